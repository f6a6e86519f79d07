"""A real mount, used by real programs: every moment is a directory, whatever happens to its server."""

from __future__ import annotations

import contextlib
import ctypes
import filecmp
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from diffkeeper.store import names
from diffkeeper.store.db import Database
from diffkeeper.store.files import DATA_FILE
from diffkeeper.store.tables import Table
from tests.builder import TraceBuilder

PROGRAM = (sys.executable, "-m", "diffkeeper")
SECOND = 10**9
USER = pwd.getpwnam("nobody").pw_uid  # fusermount3 wants one that has a name


def diffkeeper(*args: object, uid: int = 0, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line, as another user if asked."""
    return run(*PROGRAM, *args, uid=uid, **kwargs)


def run(*command: object, uid: int = 0, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    words = [os.fspath(word) if isinstance(word, Path) else str(word) for word in command]
    if uid:
        words = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *words]
        if words[4] == sys.executable:  # which may be in a directory that only root can enter
            words[4:4] = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    options: dict[str, Any] = {"capture_output": True, "text": True, "check": False, "timeout": 60, **kwargs}
    return subprocess.run(words, **options)  # noqa: PLW1510 - it is among the options


def is_mounted(where: Path) -> bool:
    return any(line.split()[4] == str(where) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def eventually(condition: Callable[[], object], seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def is_over(pid: int) -> bool:
    """Whether a process has ended, all its threads; whoever should take notice of that may take their time."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "Z" and len(os.listdir(f"/proc/{pid}/task")) == 1
    except (FileNotFoundError, ProcessLookupError):
        return True


def server(mountpoint: Path) -> int:
    """Pid of the process that serves a mount."""
    status = (mountpoint / ".diffkeeper/status").read_text()
    return int(next(line.split()[-1] for line in status.splitlines() if line.startswith("server: ")))


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with one file of each kind, changed at whole seconds."""
    builder = TraceBuilder(tmp_path_factory.mktemp("recorded") / "trace")
    builder.baseline(
        {
            "keep/a": {"content": b"kept\n", "mode": 0o640, "uid": USER, "gid": USER, "mtime": 5 * SECOND + 123},
            "keep/b": {"link": "keep/a"},
            "keep/sticky": None,
            "status.log": b"ready\n",
            "link": {"target": "keep/a"},
            "xattr": {"content": b"", "xattrs": {b"user.colour": b"blue", b"user.empty": b""}},
            "fifo": {"mode": stat.S_IFIFO | 0o600},
            "secret": {"content": b"mine", "mode": 0o600, "uid": 0, "gid": 0},
        }
    )  # fmt: skip
    builder.begin()
    builder.write("status.log", b"working\n", at=1.0)
    builder.create("large", os.urandom(3_000_000), at=2.0)
    builder.mark("half way", at=2.5)
    builder.truncate("large", 2_000_001, at=3.0)
    builder.write("large", b"tail", offset=5_000_000, at=3.0)
    builder.unlink("keep/b", at=4.0)
    builder.rename("keep", "kept", at=5.0)
    builder.create(b"name\xff\n", b"odd", at=6.0)
    builder.end(at=7.0)
    return builder.build()


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    """An empty directory, and nothing mounted on it afterwards."""
    where = tmp_path / "mnt"
    where.mkdir()
    yield where
    if is_mounted(where):
        subprocess.run(["umount", "--lazy", where], check=True)


@pytest.fixture
def mounted(trace: Path, mountpoint: Path) -> Path:
    result = diffkeeper("mount", trace, mountpoint)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    return mountpoint


@pytest.fixture
def fuse_for_all() -> Iterator[None]:
    """/dev/fuse as udev makes it on a desktop or server: open to every user."""
    before = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
    os.chmod("/dev/fuse", 0o666)
    yield
    os.chmod("/dev/fuse", before)


# -- what is seen ------------------------------------------------------------------------------


def test_listing(mounted: Path) -> None:
    """The top lists start, end, marks and latest; other moments and .diffkeeper are there when named."""
    assert sorted(os.listdir(mounted)) == ["@end", "@half way", "@start", "latest"]
    assert (mounted / "@1s/status.log").read_text() == "ready\nworking\n"
    assert (mounted / "latest/status.log").samefile(mounted / "@end/status.log")
    assert sorted(os.listdir(mounted / ".diffkeeper")) == ["history", "outside", "status", "timeline"]
    assert [entry for entry in run("ls", "-a", mounted / "@start").stdout.split() if "diffkeeper" in entry] == []


def test_bad_moments(mounted: Path) -> None:
    """A moment that is misspelt or out of range does not exist."""
    for name in ("@1h", "@nothing", "@", "@e999", "@" + "9" * 254, "end"):
        with pytest.raises(FileNotFoundError):
            os.stat(mounted / name)


def test_diff_of_two_moments(mounted: Path) -> None:
    """diff -r shows just what changed, and nothing for a moment and itself."""
    found = run("diff", "-r", mounted / "@start", mounted / "@1s")
    assert found.stdout.splitlines()[1:] == ["1a2", "> working"] and "fifo" not in found.stderr
    assert run("diff", "-r", mounted / "@start", mounted / "@0s").stdout == ""
    gone = run("diff", "-rq", mounted / "@3s", mounted / "@4s").stdout
    assert gone == f"Only in {mounted}/@3s/keep: b\n"


def test_attributes(mounted: Path) -> None:
    """stat() says what was recorded: mode, owner, size, nanoseconds, link count, target."""
    found = os.lstat(mounted / "@start/keep/a")
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_size) == (0o640, USER, USER, 5)
    assert (found.st_mtime_ns, found.st_nlink) == (5 * SECOND + 123, 2)
    assert found.st_ino == os.lstat(mounted / "@start/keep/b").st_ino
    assert os.lstat(mounted / "@4s/keep/a").st_nlink == 1
    assert os.readlink(mounted / "@start/link") == "keep/a" and os.lstat(mounted / "@start/link").st_size == 6
    assert stat.S_ISFIFO(os.lstat(mounted / "@start/fifo").st_mode)
    assert os.lstat(mounted / "@start").st_nlink == 3 and os.lstat(mounted / "@start/keep").st_nlink == 3


def test_xattrs(mounted: Path) -> None:
    """Extended attributes read back as recorded."""
    path = mounted / "@end/xattr"
    assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == {"user.colour": b"blue", "user.empty": b""}
    with pytest.raises(OSError, match="No data"):
        os.getxattr(path, "user.other")
    assert os.listxattr(mounted / "@end/status.log") == []


def test_a_trace_without_xattrs(tmp_path: Path, mountpoint: Path) -> None:
    """The kernel asks for no value twice, not of other files either; who lists or copies them finds none."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"dir/file": b"x\n", "link": {"target": "dir"}})
    builder.begin()
    builder.write("dir/file", b"y\n")
    builder.end()
    assert diffkeeper("mount", builder.build(), mountpoint).returncode == 0
    file = mountpoint / "@end/dir/file"
    with pytest.raises(OSError, match="not supported"):
        os.getxattr(file, "user.colour")
    assert os.listxattr(file) == []
    (tmp_path / "untarred").mkdir()
    for words in (
        ["cp", "-a", mountpoint / "@end", tmp_path / "copied"],
        ["cp", "-R", "--preserve=all", mountpoint / "@end", tmp_path / "preserved"],
        ["rsync", "-aAXH", f"{mountpoint}/@end/", tmp_path / "synced"],
        ["tar", "--xattrs", "--acls", "-C", mountpoint / "@end", "-cf", tmp_path / "moment.tar", "."],
        ["tar", "--xattrs", "-C", tmp_path / "untarred", "-xf", tmp_path / "moment.tar"],
        ["ls", "-lZ", mountpoint / "@end/dir"],
    ):
        done = run(*words)
        assert (done.returncode, done.stderr) == (0, ""), words
    for copy in ("copied", "preserved", "synced", "untarred"):
        assert (tmp_path / copy / "dir/file").read_bytes() == b"x\ny\n"


def test_content_by_any_read(mounted: Path, tmp_path: Path) -> None:
    """Reads at any offset, holes and mapped pages give the bytes of the moment."""
    before, after = (mounted / "@2s/large").read_bytes(), (mounted / "@3s/large").read_bytes()
    assert (len(before), len(after)) == (3_000_000, 5_000_004)
    assert after == before[:2_000_001] + bytes(2_999_999) + b"tail"
    with open(mounted / "@3s/large", "rb") as file:
        for offset in (0, 1, 2_000_000, 4_999_999, 5_000_003, 5_000_004, 9_000_000):
            assert os.pread(file.fileno(), 5000, offset) == after[offset : offset + 5000]
    assert run("cmp", mounted / "@2s/large", mounted / "@3s/large").returncode == 1
    assert run("grep", "-c", "tail", mounted / "@3s/large").stdout == "1\n"


def test_copies(mounted: Path, tmp_path: Path) -> None:
    """cp -a and tar take a moment away whole: links, owners, times, odd names."""
    assert run("cp", "-a", mounted / "@end", tmp_path / "copy").stderr == ""
    assert run("tar", "-C", mounted / "@3s", "-cf", tmp_path / "moment.tar", ".").stderr == ""
    (tmp_path / "untarred").mkdir()
    assert run("tar", "-C", tmp_path / "untarred", "-xf", tmp_path / "moment.tar").stderr == ""
    for source, copy in (("@end", "copy"), ("@3s", "untarred")):
        theirs = {path.relative_to(mounted / source) for path in (mounted / source).rglob("*")}
        assert theirs == {path.relative_to(tmp_path / copy) for path in (tmp_path / copy).rglob("*")}
        for name in theirs:
            one, two = os.lstat(mounted / source / name), os.lstat(tmp_path / copy / name)
            assert one.st_mode == two.st_mode and (one.st_uid, one.st_gid) == (two.st_uid, two.st_gid)
            assert stat.S_ISDIR(one.st_mode) or one.st_nlink == two.st_nlink
            if stat.S_ISREG(one.st_mode):
                assert filecmp.cmp(mounted / source / name, tmp_path / copy / name, shallow=False)
                assert source == "@3s" or one.st_mtime_ns == two.st_mtime_ns
    assert os.getxattr(tmp_path / "copy/xattr", "user.colour") == b"blue"
    assert (tmp_path / os.fsdecode(b"copy/name\xff\n")).read_bytes() == b"odd"


def test_nothing_can_be_written(mounted: Path) -> None:
    """Whatever would change the past is refused: the filesystem is read-only."""
    target = mounted / "@end/status.log"
    attempts: list[tuple[Any, ...]] = [
        (os.truncate, target, 0), (os.unlink, target), (os.chmod, target, 0o777), (os.utime, target),
        (os.mkdir, mounted / "@end/new"), (os.rename, target, mounted / "@end/other"), (os.mkfifo, mounted / "@end/f"),
        (os.setxattr, target, "user.x", b""), (os.symlink, "a", mounted / "b"), (os.link, target, mounted / "l"),
        (open, target, "a"), (open, mounted / "new", "w"),
    ]  # fmt: skip
    for call, *args in attempts:
        with pytest.raises(OSError, match="Read-only file system"):
            call(*args)
    options = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {mounted} " in line)
    assert {"ro", "nosuid", "nodev"} <= set(options.split()[5].split(",")) and "fuse.diffkeeper" in options


def test_history(mounted: Path) -> None:
    """Every version of a file, by the event that made it; the same inodes as in the moments."""
    history = mounted / ".diffkeeper/history/status.log"
    assert [path.read_text() for path in sorted(history.iterdir())] == ["ready\n", "ready\nworking\n"]
    assert min(history.iterdir()).samefile(mounted / "@start/status.log")
    timeline = (mounted / ".diffkeeper/timeline").read_text().splitlines()
    assert len(timeline) == 10 and timeline[0].split()[:3] == ["1.000s", "write", "status.log"]
    for line in timeline:
        assert (mounted / f"@{line.split()[0]}").is_dir()


# -- inodes and caches -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10,000 files of which one changes."""
    builder = TraceBuilder(tmp_path_factory.mktemp("many") / "trace")
    builder.baseline({f"d{n % 100}/f{n}": f"file {n}\n".encode() * 20 for n in range(10_000)})
    builder.begin()
    builder.write("d7/f7", b"more\n", at=1.0)
    builder.end(at=2.0)
    return builder.build()


def test_diff_reads_only_what_changed(many: Path, mountpoint: Path) -> None:
    """diff -r of 10,000 files at two moments reads the one that changed: the others are one inode in both."""
    assert diffkeeper("mount", many, mountpoint).returncode == 0
    start, end = mountpoint / "@start", mountpoint / "@end"
    diff = subprocess.Popen(["diff", "-rq", start, end], stdout=subprocess.PIPE, text=True)
    os.waitid(os.P_PID, diff.pid, os.WEXITED | os.WNOWAIT)
    counts = dict(line.split(": ") for line in Path(f"/proc/{diff.pid}/io").read_text().splitlines())
    assert diff.communicate()[0] == f"Files {start}/d7/f7 and {end}/d7/f7 differ\n"
    assert int(counts["rchar"]) < 50_000  # all files: 4,000,000
    one, two = ({n: os.stat(top / f"d{n}/f{n}").st_ino for n in range(100)} for top in (start, end))
    assert [n for n in range(100) if one[n] != two[n]] == [7] and len(set(one.values())) == 100


def cached_pages(fd: int) -> int:
    """How many pages of an open file are in the page cache: cachestat(2)."""
    whole, found = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
    if ctypes.CDLL(None, use_errno=True).syscall(451, fd, whole, found, 0):
        raise OSError(ctypes.get_errno(), "cachestat")
    return found[0]


def test_a_small_file_is_handed_over_as_it_is_opened(tmp_path: Path, mountpoint: Path) -> None:
    """Nobody has to ask for its bytes again: they are in the page cache. Of a large file nothing is, before a read."""
    files = {"one": b"x", "page": b"y" * 4096, "some": os.urandom(50_001), "large": os.urandom(1 << 20), "empty": b""}
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline(files)
    builder.begin()
    builder.end()
    assert diffkeeper("mount", builder.build(), mountpoint).returncode == 0
    for name, pages in (("one", 1), ("page", 1), ("some", 13), ("large", 0), ("empty", 0)):
        for _ in range(2):
            with (mountpoint / "@end" / name).open("rb", buffering=0) as file:
                assert cached_pages(file.fileno()) == pages, name
        assert (mountpoint / "@end" / name).read_bytes() == files[name]


def test_memory_follows_the_kernel(many: Path, mountpoint: Path) -> None:
    """Places that the kernel forgets are forgotten: walking moment after moment does not grow the server."""
    assert diffkeeper("mount", many, mountpoint).returncode == 0
    pid = server(mountpoint)

    def walk_and_drop() -> int:
        for moment in ("@start", "@0.5s", "@e1", "@end"):
            assert run("find", mountpoint / moment, "-type", "f").stdout.count("\n") == 10_000
        Path("/proc/sys/vm/drop_caches").write_text("2")
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    walk_and_drop()
    first = walk_and_drop()
    sizes = [walk_and_drop() for _ in range(4)]
    assert sizes[-1] < first + (8 << 20), (first, sizes)


# -- coming and going --------------------------------------------------------------------------


def test_umount(mounted: Path) -> None:
    """umount returns when nothing is mounted; doing it again says so."""
    pid = server(mounted)
    assert diffkeeper("umount", mounted).returncode == 0
    assert not is_mounted(mounted) and os.listdir(mounted) == []
    assert eventually(lambda: is_over(pid))
    again = diffkeeper("umount", mounted)
    assert (again.returncode, again.stderr) == (90, f"diffkeeper: nothing is mounted at {mounted}\n")


def test_umount_in_use(mounted: Path) -> None:
    """A mount in use stays, with a message; afterwards it can be unmounted."""
    with open(mounted / "@end/status.log"):
        busy = diffkeeper("umount", mounted)
        assert busy.returncode == 90 and "in use" in busy.stderr and is_mounted(mounted)
    assert diffkeeper("umount", mounted).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_unmount(mounted: Path, number: signal.Signals) -> None:
    """A signal to the server unmounts, also while a file is open."""
    pid = server(mounted)
    with open(mounted / "@end/large", "rb") as file:
        file.read(10)
        os.kill(pid, number)
        assert eventually(lambda: not is_mounted(mounted) and is_over(pid))


def test_killed_server(trace: Path, mounted: Path) -> None:
    """After kill -9 of the server, umount clears the mountpoint, and mount takes it again by itself."""
    for clear in (True, False):
        pid = server(mounted)
        os.kill(pid, signal.SIGKILL)
        assert eventually(partial(is_over, pid))
        with pytest.raises(OSError, match="not connected"):
            os.listdir(mounted)
        if clear:
            assert diffkeeper("umount", mounted).returncode == 0 and os.listdir(mounted) == []
        again = diffkeeper("mount", trace, mounted)
        assert (again.returncode, again.stderr) == (0, "")
        assert (mounted / "@start/status.log").read_text() == "ready\n"


def test_foreground(trace: Path, mountpoint: Path) -> None:
    """-f stays until interrupted, then leaves with 0 and without a word."""
    process = subprocess.Popen([*PROGRAM, "mount", "-f", trace, mountpoint], stderr=subprocess.PIPE)
    assert eventually(lambda: is_mounted(mountpoint))
    assert (mountpoint / "@end/status.log").exists() and server(mountpoint) == process.pid
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10)[1] == b"" and process.returncode == 0
    assert not is_mounted(mountpoint)


def test_the_daemon_lets_go(trace: Path, mountpoint: Path) -> None:
    """The server keeps nothing of its caller: no pipe, no lock, no directory, no session."""
    reading, writing = os.pipe()
    subprocess.run([*PROGRAM, "mount", trace, mountpoint], pass_fds=[writing], check=True, cwd=mountpoint.parent)
    os.close(writing)
    assert os.read(reading, 1) == b""
    os.close(reading)
    pid = server(mountpoint)
    assert os.getsid(pid) not in (os.getsid(0), pid) and os.readlink(f"/proc/{pid}/cwd") == "/"
    standard = {os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1, 2)}
    assert standard == {"/dev/null"}


def test_another_user_mounts(trace: Path, tmp_path: Path, fuse_for_all: None) -> None:
    """A trace that belongs to a user can be mounted by that user, without root."""
    own = Path(shutil.copytree(trace, f"/tmp/diffkeeper-test-{os.getpid()}/trace"))
    where = own.parent / "mnt"
    where.mkdir()
    for path in (own.parent, own, where, *own.rglob("*")):
        os.chown(path, USER, USER)
    try:
        result = diffkeeper("mount", own, where, uid=USER, cwd=str(own.parent))
        assert (result.returncode, result.stderr) == (0, "")
        assert run("cat", where / "@1s/status.log", uid=USER).stdout == "ready\nworking\n"
        assert "Permission denied" in run("cat", where / "@start/secret", uid=USER).stderr
        assert diffkeeper("umount", where, uid=USER).returncode == 0 and not is_mounted(where)
        assert diffkeeper("mount", own, where, uid=USER).returncode == 0
        status = run("cat", where / ".diffkeeper/status", uid=USER).stdout
        os.kill(int(status.split("server: process ")[1].split()[0]), signal.SIGKILL)
        assert diffkeeper("umount", where, uid=USER).returncode == 0 and not is_mounted(where)
    finally:
        if is_mounted(where):
            subprocess.run(["umount", "--lazy", where], check=True)
        shutil.rmtree(own.parent)


def test_others_may_look_at_roots_mount(mounted: Path) -> None:
    """What root mounts others can see, as far as the recorded owners and modes let them."""
    for path in (mounted.parent, *mounted.parent.parents):
        if path.stat().st_mode & 0o055 != 0o055 and str(path).startswith("/tmp/"):
            path.chmod(0o755)
    assert run("cat", mounted / "@start/status.log", uid=USER).stdout == "ready\n"
    assert "Permission denied" in run("cat", mounted / "@start/secret", uid=USER).stderr


# -- bad mountpoints ---------------------------------------------------------------------------


def test_bad_mountpoints(trace: Path, mounted: Path, tmp_path: Path) -> None:
    """Missing, not a directory, busy, not empty, inside the trace: one line and exit code 90, nothing mounted."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    (trace / "inside").mkdir(exist_ok=True)
    cases = {
        tmp_path / "missing": "no mountpoint", tmp_path / "full/file": "not a directory", mounted: "is busy",
        tmp_path / "full": "not empty", trace / "inside": "overlaps the trace", trace.parent: "overlaps the trace",
    }  # fmt: skip
    for where, message in cases.items():
        result = diffkeeper("mount", trace, where)
        assert result.returncode == 90 and message in result.stderr and result.stderr.count("\n") == 1, result
    (trace / "inside").rmdir()


def test_mountpoint_in_the_recorded_root(tmp_path: Path) -> None:
    """A mountpoint in the recorded directory is refused: the next recording would find itself."""
    root = tmp_path / "root"
    (root / "mnt").mkdir(parents=True)
    builder = TraceBuilder(tmp_path / "trace", roots=(str(root),))
    builder.begin()
    builder.end()
    result = diffkeeper("mount", builder.build(), root / "mnt")
    assert result.returncode == 90 and "overlaps the recorded" in result.stderr


def test_no_trace(mountpoint: Path) -> None:
    """A trace that is missing or none is said before anything is mounted."""
    assert diffkeeper("mount", mountpoint.parent / "none", mountpoint).returncode == 85
    assert diffkeeper("mount", mountpoint.parent, mountpoint).returncode == 86
    assert not is_mounted(mountpoint)


def test_no_fuse(trace: Path, mountpoint: Path) -> None:
    """A user who may not open /dev/fuse, and a machine without it, get exit code 83 and what to do."""
    hidden = 'mount -t tmpfs none /dev && exec "$@"'
    result = run("unshare", "--mount", "sh", "-c", hidden, "sh", *PROGRAM, "mount", trace, mountpoint)
    assert result.returncode == 83 and "modprobe fuse" in result.stderr and result.stderr.count("\n") == 1
    closed = 'mount -t tmpfs -o dev none /dev && mknod -m 600 /dev/fuse c 10 229 && exec "$@"'
    as_user = ("setpriv", f"--reuid={USER}", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    result = run("unshare", "--mount", "sh", "-c", closed, "sh", *as_user, *PROGRAM, "mount", trace, mountpoint)
    assert result.returncode == 83 and "chmod 666 /dev/fuse" in result.stderr and result.stderr.count("\n") == 1


def test_usage(trace: Path, mountpoint: Path) -> None:
    """--state-dir stands for the argument; too few or too many words are usage errors."""
    assert diffkeeper("mount", "--state-dir", trace, mountpoint).returncode == 0
    assert is_mounted(mountpoint) and diffkeeper("umount", mountpoint).returncode == 0
    for words in ((), (trace, mountpoint, "more")):
        assert diffkeeper("mount", *words).returncode == 2


def test_a_mount_gives_no_rights(tmp_path: Path, mountpoint: Path) -> None:
    """A set-id program in a trace runs as whoever starts it, a device node opens nothing: nosuid, nodev, read-only."""
    program = Path(os.path.realpath("/bin/cat")).read_bytes()
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline(
        {
            "cat": {"content": program, "mode": 0o6755, "uid": 0, "gid": 0},
            "null": {"mode": stat.S_IFCHR | 0o666, "rdev": os.makedev(1, 3)},
            "plain": {"content": b"x", "mode": 0o644},
        }
    )
    builder.begin()
    builder.end()
    assert diffkeeper("mount", builder.build(), mountpoint).returncode == 0
    line = next(line for line in Path("/proc/mounts").read_text().splitlines() if f" {mountpoint} " in line)
    assert {"ro", "nosuid", "nodev"} <= set(line.split()[3].split(","))
    assert (mountpoint / "@end/cat").stat().st_mode & 0o7777 == 0o6755  # told as it was recorded
    for parent in mountpoint.parents[:3]:
        parent.chmod(0o755)
    done = run(mountpoint / "@end/cat", "/proc/self/status", uid=USER)
    assert done.returncode == 0, done.stderr
    (ids,) = (row.split()[1:] for row in done.stdout.splitlines() if row.startswith("Uid:"))
    assert {*ids} == {str(USER)}
    with pytest.raises(PermissionError):
        (mountpoint / "@end/null").open("rb")
    assert (mountpoint / "@end/plain").read_bytes() == b"x"


@pytest.mark.parametrize("called", [b"ring", b"..", b"a/b"])
def test_names_and_rings_that_cannot_be(tmp_path: Path, mountpoint: Path, called: bytes) -> None:
    """A name that no file has, or a directory inside itself: who walks the mount comes to an end, and it lives on."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"plain": b"x", "dir/inner": b"y"})
    builder.begin()
    builder.end()
    path = builder.build()
    database = Database(path / DATA_FILE, write=True)
    txn = database.begin()
    top, below = (names.resolve(txn, b"/opt/root" + part, names.LATEST) for part in (b"", b"/dir"))
    assert top is not None and below is not None
    txn.put(
        Table.NAMES, names.U64.pack(below) + called + b"\0" + names.U64.pack(0),
        names.U64.pack(top if called == b"ring" else below),
    )  # fmt: skip
    txn.commit()
    database.close()
    assert diffkeeper("mount", path, mountpoint).returncode == 0
    for command in (["find", mountpoint / "@end"], ["diff", "-r", mountpoint / "@start", mountpoint / "@end"]):
        run(*command, timeout=60)
    assert (mountpoint / "@end/plain").read_bytes() == b"x"
    assert (mountpoint / "@end/dir/inner").read_bytes() == b"y"
    assert sorted(os.listdir(mountpoint / "@end")) == ["dir", "plain"]
    assert diffkeeper("umount", mountpoint).returncode == 0


def test_damage_is_an_error_for_one_reader(tmp_path: Path, mountpoint: Path) -> None:
    """A file that cannot be read gives EIO and a log that status names; the mount lives on."""
    builder = TraceBuilder(tmp_path / "trace")
    noise = os.urandom(60_000)
    builder.baseline({"good": b"fine\n", "bad": noise})
    builder.begin()
    builder.end()
    path = builder.build()
    index = path / "index.lmdb"
    data = bytearray(index.read_bytes())
    at = data.find(noise[30_000:30_016])
    assert at > 0
    data[at : at + 16] = bytes(16)
    index.write_bytes(data)
    environment = os.environ | {"XDG_STATE_HOME": str(tmp_path / "state")}
    assert diffkeeper("mount", path, mountpoint, env=environment).returncode == 0
    with contextlib.suppress(FileNotFoundError):
        assert os.listdir(tmp_path / "state/diffkeeper") == []
    for _ in range(2):
        with (mountpoint / "@end/bad").open("rb") as file, pytest.raises(OSError, match="Input/output error"):
            file.read()
    assert (mountpoint / "@end/good").read_text() == "fine\n"
    status = (mountpoint / ".diffkeeper/status").read_text()
    log = Path(status.split("something went wrong, see: ")[1].strip())
    assert log.is_relative_to(tmp_path / "state") and "bad" not in os.listdir(mountpoint) and log.read_text()


def test_the_kernel_reads_far_ahead(mounted: Path) -> None:
    """Once a file was opened, the kernel asks for a megabyte at once; who serves ends all the same when asked to."""
    (mounted / "@end/status.log").read_text()
    device = mounted.stat().st_dev
    ahead = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    assert ahead.read_text() == "1024\n"
    pid = server(mounted)
    assert diffkeeper("umount", mounted).returncode == 0
    assert eventually(lambda: is_over(pid))
