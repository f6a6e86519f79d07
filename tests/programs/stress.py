"""stress-ng's filesystem stressors, each bounded by operations, its files kept so that there is something to compare.

Left out of the class `filesystem`: what changes no file (bind-mount, binderfs, eventfd, io, open_by_handle,
procfs) and what runs until its time is up whatever it is told (inode-flags).
"""

from __future__ import annotations

from .program import Program

STRESSORS = {
    # name: operations in a quick run and in a long one; more options
    "access": (5, 100, ""),
    "chattr": (5, 100, ""),
    "chdir": (1, 50, "--chdir-dirs 256"),
    "chmod": (5, 200, ""),
    "chown": (50, 2000, ""),
    "copy-file": (20, 500, "--copy-file-bytes 128M"),
    "dentry": (200, 20000, "--dentries 200"),
    "dir": (100, 20000, "--dir-dirs 64"),
    "dirdeep": (100, 5000, "--dirdeep-files 2 --dirdeep-bytes 300"),
    "dirmany": (200, 20000, ""),
    "dnotify": (10, 500, ""),
    "dup": (5, 500, ""),
    "fallocate": (10, 500, "--fallocate-bytes 4M"),
    "fanotify": (20, 2000, ""),
    "fcntl": (50, 2000, ""),
    "fiemap": (50, 1000, ""),
    "file-ioctl": (50, 2000, ""),
    "filename": (20, 2000, ""),
    "flock": (50, 2000, ""),
    "fpunch": (2, 20, ""),
    "fsize": (2, 50, ""),
    "getdent": (10, 500, ""),
    "hdd": (50, 5000, "--hdd-bytes 4M"),
    "inotify": (1, 50, ""),
    "iomix": (50, 5000, "--iomix-bytes 4M"),
    "ioprio": (10, 500, ""),
    "lease": (50, 2000, ""),
    "link": (1, 20, ""),
    "locka": (20, 500, ""),
    "lockf": (20, 500, ""),
    "lockofd": (20, 500, ""),
    "mknod": (20, 2000, ""),
    "open": (50, 5000, ""),
    "readahead": (5, 500, "--readahead-bytes 4M"),
    "rename": (200, 20000, ""),
    "revio": (50, 5000, "--revio-bytes 4M"),
    "seek": (50, 5000, "--seek-size 4M --seek-punch"),
    "sendfile": (50, 2000, ""),
    "splice": (50, 2000, "--splice-bytes 4M"),
    "symlink": (1, 20, ""),
    "sync-file": (5, 100, "--sync-file-bytes 4M"),
    "touch": (50, 10000, ""),
    "utime": (50, 5000, ""),
    "verity": (5, 200, ""),
    "xattr": (1, 50, ""),
    # What writes in other ways than with a call for each write; not of the class.
    "aio": (50, 5000, ""),
    "aiol": (50, 5000, ""),
    "io-uring": (50, 5000, ""),
    "mmap": (5, 100, "--mmap-file --mmap-bytes 1M"),
    "msync": (20, 1000, "--msync-bytes 1M"),
    "mremap": (5, 100, "--mremap-bytes 1M"),
}
SECONDS = {"quick": 2, "long": 20}  # a stressor that its operations do not end (fpunch, symlink) is ended by this


CLEANS = {"filename"}  # stress-ng 0.19 fails where it meets the files that it was told to keep


def _line(name: str, count: str, more: str) -> str:
    keeps = "" if name in CLEANS else "--keep-files"
    words = f"stress-ng -q --{name} 2 --{name}-ops {count} {more} {keeps} --temp-path . --timeout $SECONDS"
    return f"{words} || {{ code=$?; echo {name}: $code; exit $code; }}\n"


def _each() -> list[Program]:
    """A program for each stressor, for the long runs; in the middle it stands still once."""
    found = []
    for name, (quick, long, more) in STRESSORS.items():
        line = _line(name, "$OPS", more)
        found.append(Program(
            f"stress-ng {name}",
            f"{line}moment middle\n{line}",
            {"OPS": quick, "SECONDS": SECONDS["quick"]},
            {"OPS": long, "SECONDS": SECONDS["long"]},
        ))  # fmt: skip
    return found


def _together(name: str, names: list[str]) -> Program:
    """Several stressors one after the other in one recording, a moment after each."""
    script = ""
    for one in names:
        quick, _, more = STRESSORS[one]
        script += f"{_line(one, str(quick), more)}moment after-{one}\n"
    return Program(name, script, {"SECONDS": SECONDS["quick"]}, events=100)


EACH = _each()
ON_NAMES = ["access", "chdir", "dentry", "dir", "dirdeep", "dirmany", "filename", "link", "mknod", "open", "rename"]
ON_ATTRIBUTES = ["chattr", "chmod", "chown", "fcntl", "flock", "inotify", "lease", "symlink", "touch", "utime", "xattr"]
OTHERS = ["aio", "aiol", "io-uring", "mmap", "msync", "mremap"]
LONG_ONLY = ["iomix"]  # seeks and writes of several processes through one descriptor: times may come out old
_ELSEWHERE = {*ON_NAMES, *ON_ATTRIBUTES, *OTHERS, *LONG_ONLY}
QUICK = [
    _together("stress-ng, names", ON_NAMES),
    _together("stress-ng, attributes and locks", ON_ATTRIBUTES),
    _together("stress-ng, data", [name for name in STRESSORS if name not in _ELSEWHERE]),
    _together("stress-ng, mapped and asynchronous writes", OTHERS),
]
