"""Which operation comes next: chance, from a seed, with an eye on the tree as it stands.

Owns the choice alone. An operation is a dict of JSON values; it means the same without those
before it, or fails, which is an operation as good as any: a failed call must change nothing.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from . import mapped, requests, system
from .attributes import acl
from .hands import MOST_UP, Args
from .truth import Tree

T = TypeVar("T")

NAMES = ("a", "b", "c", "log", "dir", "sub", "tmp.1", "ünï", "sp ace", "-dash", "new\nline", "tab\t", "q\"'\\",
         os.fsdecode(b"\xff\xfe"), "n" * 255, "é" * 127, "#1", "a.lock", "...", "*")  # fmt: skip
SIZES = (0, 1, 2, 7, 100, 511, 512, 513, 1000, 4095, 4096, 4097, 8192, 10000, 20000, 65536, 70001)
LARGE = (262143, 262144, 262145, 1 << 20, 4 << 20, (4 << 20) + 1, 5_000_000)
OFFSETS = (0, 0, 0, 1, 5, 100, 512, 4000, 4096, 5000, 8192, 12288, 65536, 100_000, 300_000)
TIMES = (0, 1, 999_999_999, 1_000_000_000, 1_234_567_890_123_456_789, 1 << 60, 1_795_000_000_000_000_001, -1)
GROUPS = ("data", "copy", "names", "attributes", "slots", "programs", "actors", "sockets", "xattrs", "whiteouts",
          "chroot", "namespace", "large", "deep", "security", "proc", "mapped", "uring", "aio")

MANY = 45
"""Paths in the tree from which on more is removed than made."""

ACLS = (
    acl([(1, 6, 0xFFFFFFFF), (2, 5, 1), (4, 4, 0xFFFFFFFF), (16, 5, 0xFFFFFFFF), (32, 4, 0xFFFFFFFF)]),
    acl([(1, 7, 0xFFFFFFFF), (2, 6, 1), (4, 7, 0xFFFFFFFF), (8, 3, 5), (16, 7, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)]),
    acl([(1, 6, 0xFFFFFFFF), (4, 4, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)]),
)


class Grammar:
    """`next` chooses from `tree`, which the caller keeps up to date. `groups`: what may be chosen from."""

    def __init__(self, seed: str, tree: Tree, groups: Iterable[str]) -> None:
        self._random = random.Random(seed)
        self._tree = tree
        self._groups = frozenset(groups)
        self._count = 0
        self._choices: list[tuple[int, Callable[[], Args]]] = []
        for group, weight, choice in self._table():
            if group in self._groups:
                self._choices.append((weight, choice))
        self._actors = [0, 0, 0, 1, 1]
        if "actors" in self._groups:
            self._actors += [2, 2]
        self._actors += [3] * ("chroot" in self._groups) + [4] * ("namespace" in self._groups)

    def _table(self) -> list[tuple[str, int, Callable[[], Args]]]:
        return [
            ("data", 22, self._write), ("data", 4, self._truncate), ("data", 3, self._ftruncate),
            ("copy", 5, self._fallocate), ("copy", 2, self._sendfile), ("copy", 4, self._copy_range),
            ("copy", 3, self._splice), ("copy", 3, self._clone),
            ("names", 9, self._create), ("names", 6, self._mkdir), ("names", 3, self._mknod),
            ("names", 5, self._symlink), ("names", 5, self._link), ("names", 14, self._rename),
            ("names", 6, self._unlink), ("names", 3, self._rmdir), ("names", 3, self._tmpfile),
            ("names", 3, self._chdir), ("sockets", 1, self._bind_socket), ("deep", 1, self._deep),
            ("attributes", 6, self._chmod), ("attributes", 5, self._chown), ("attributes", 6, self._utime),
            ("attributes", 1, self._chattr), ("xattrs", 7, self._setxattr), ("xattrs", 3, self._removexattr),
            ("slots", 6, self._keep), ("slots", 2, self._duplicate), ("slots", 2, self._close),
            ("slots", 3, self._pass), ("actors", 1, self._respawn), ("programs", 1, self._program),
            ("mapped", 5, self._map_store), ("mapped", 3, self._map_keep), ("mapped", 5, self._map_poke),
            ("mapped", 1, self._map_drop),
            ("uring", 4, self._ring_write), ("uring", 1, self._ring_splice), ("uring", 1, self._ring_fallocate),
            ("uring", 1, self._ring_ftruncate), ("uring", 1, self._ring_open), ("uring", 4, self._ring_name),
            ("uring", 2, self._ring_setxattr),
            ("aio", 4, self._aio),
        ]  # fmt: skip

    def next(self) -> Args:
        """The next operation."""
        self._count += 1
        self._look()
        if len(self._tree) > MANY and self._chance(0.5):
            operation = self._pick((self._unlink, self._unlink, self._rmdir, self._rmtree))()
        else:
            weights, choices = zip(*self._choices, strict=True)
            operation = self._random.choices(choices, weights)[0]()
        operation["by"] = self._pick(self._actors) if operation["op"] != "respawn" else 1 - operation["to"]
        if operation["op"] not in ("chdir", "keep", "duplicate", "close", "pass", "respawn", "map_keep", "map_drop"):
            operation["as"] = self._pick(("self", "self", "self", "self", "thread", "child"))
        return operation

    # ---- chance ----

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _pick(self, things: Sequence[T]) -> T:
        return things[self._random.randrange(len(things))]

    def _size(self) -> int:
        if "large" in self._groups and self._chance(0.02) and sum(each.size for each in self._tree.values()) < 30 << 20:
            return self._pick(LARGE)
        return self._pick(SIZES) if self._chance(0.7) else self._random.randrange(9000)

    def _offset(self) -> int:
        return self._pick(OFFSETS) if self._chance(0.7) else self._random.randrange(20000)

    def _seed(self) -> int:
        return self._random.randrange(1 << 30)

    # ---- what there is ----

    def _look(self) -> None:
        self._files, self._directories, self._links, self._others = [], [""], [], []
        self._doors: dict[str, list[str]] = {}  # directory -> symlinks that lead to it
        for path, entry in self._tree.items():
            kind = stat.S_IFMT(entry.mode)
            if path == "." or len(path) > 2000:
                continue
            if kind == stat.S_IFREG:
                self._files.append(path)
            elif kind == stat.S_IFDIR:
                self._directories.append(path)
            elif kind == stat.S_IFLNK:
                self._links.append(path)
            else:
                self._others.append(path)
        for path in self._links:
            target = self._tree[path].target
            if not target.startswith("/"):
                end = os.path.normpath(os.path.join(os.path.dirname(path), target))
                self._doors.setdefault("" if end == "." else end, []).append(path)

    def _spelt(self, path: str) -> str:
        """The path, or another way to say it: through a symlink, or with "." and ".." in it."""
        above, _, name = path.rpartition("/")
        if above in self._doors and self._chance(0.3):
            above = self._pick(self._doors[above])
            path = f"{above}/{name}"
        if self._chance(0.05):
            path = path.replace("/", "//") if self._chance(0.5) else f"./{path}"
        if self._chance(0.08):
            path = f"{self._pick(self._directories) or '.'}/{{up}}{path}"
            directory = path.partition("/{up}")[0]
            up = "" if directory == "." else "../" * (directory.count("/") + 1)
            path = path.replace("{up}", up)
        return path

    def _at(self) -> str:
        if self._chance(0.55):
            return "cwd"
        return "abs" if self._chance(0.5) else f"fd:{self._pick(self._directories) or '.'}"

    def _at_path(self) -> str:
        """For calls that take no descriptor to start from."""
        return "cwd" if self._chance(0.6) else "abs"

    def _file(self) -> str:
        return self._spelt(self._pick(self._files)) if self._files and self._chance(0.95) else self._fresh()

    def _fresh(self) -> str:
        name = self._pick(NAMES) if self._chance(0.6) else f"f{self._count}"
        above = self._pick(self._directories)
        return self._spelt(f"{above}/{name}" if above and above.count("/") < 6 else name)

    def _any(self, *, links: bool = True) -> str:
        pools = [self._files, self._files, self._directories[1:], self._others, *([self._links] if links else [])]
        pool = self._pick([pool for pool in pools if pool] or [[""]])
        return self._spelt(self._pick(pool)) or "."

    def _open(self, *, flags: str = "") -> Args:
        """What `Hands.file` understands: a slot, or a path to open."""
        if "slots" in self._groups and self._chance(0.25):
            return {"slot": self._slot()}
        if not flags:
            flags = self._pick(("rdwr",) * 5 + ("wronly", "wronly append", "rdwr creat", "wronly trunc creat",
                                                "rdwr sync", "rdwr creat append", "wronly trunc"))  # fmt: skip
        path = self._fresh() if "creat" in flags and self._chance(0.4) else self._file()
        if self._links and self._chance(0.1):
            path = self._pick(self._links)
        given: Args = {"path": path, "at": self._at(), "flags": flags, "mode": self._mode()}
        if self._chance(0.1):
            given["openat2"] = True
        return given

    def _slot(self) -> int:
        return self._pick((0, 0, 1, 1, 2, 8, 9))

    def _mode(self) -> int:
        return self._pick((0o644, 0o644, 0o600, 0o755, 0o777, 0o640, 0o4755, 0o2755, 0o6711, 0o1777, 0, 0o666))

    # ---- content ----

    def _write(self) -> Args:
        how = self._pick(("write",) * 6 + ("pwrite",) * 4 + ("writev", "pwritev", "pwritev2", "pwritev2", "direct",
                                                              "fault", "limit"))  # fmt: skip
        operation: Args = {
            "op": "write", "how": how, "seed": self._seed(), "size": self._size(), "offset": self._offset(),
            "count": self._pick((1, 2, 3, 15, 16, 17, 40)), "seek": self._offset() if self._chance(0.3) else None,
        }  # fmt: skip
        if self._chance(0.1):
            operation |= {"seek": 0, "whence": os.SEEK_END}
        if how == "pwritev2":
            operation["rwf"] = self._pick((0, system.RWF_APPEND, system.RWF_APPEND, system.RWF_DSYNC))
            operation["offset"] = self._pick((operation["offset"], -1))
        if how == "direct":
            aligned = {"size": self._pick((512, 4096, 8192, 65536)), "offset": self._pick((0, 4096, 8192, 512))}
            operation |= aligned
        return operation | self._open(flags="rdwr direct" if how == "direct" else "")

    def _truncate(self) -> Args:
        return {"op": "truncate", "path": self._file(), "at": self._at_path(), "size": self._length()}

    def _ftruncate(self) -> Args:
        return {"op": "ftruncate", "size": self._length(), **self._open(flags="rdwr")}

    def _length(self) -> int:
        if self._chance(0.02):
            return 64 << 20 if "large" in self._groups else 20 << 20
        return self._pick((0, 0, self._size(), self._offset()))

    def _fallocate(self) -> Args:
        mode = self._pick((0, 0, 1, 3, 3, 16, 17, 8, 32, 64))
        whole = mode in (8, 32) or self._chance(0.3)
        offset = 4096 * self._random.randrange(4) if whole else self._offset()
        length = 4096 * self._random.randrange(1, 4) if whole else self._size() or 1
        return {"op": "fallocate", "how": mode, "offset": offset, "length": length, **self._open(flags="rdwr")}

    def _source(self) -> Args:
        return {"path": self._file(), "at": "cwd", "flags": ""}

    def _sendfile(self) -> Args:
        offset = self._pick((None, 0, 100))
        return {"op": "sendfile", "source": self._source(), "offset": offset, "size": self._size(),
                "seek": self._seek(), **self._open(flags="rdwr")}  # fmt: skip

    def _seek(self) -> int | None:
        return self._offset() if self._chance(0.5) else None

    def _copy_range(self) -> Args:
        return {"op": "copy_range", "source": self._source(), "offset": self._pick((None, self._offset())),
                "to": self._seek(), "seek": self._seek(), "size": self._size(), **self._open(flags="rdwr")}  # fmt: skip

    def _splice(self) -> Args:
        return {"op": "splice", "seed": self._seed(), "size": self._size() or 1, "to": self._seek(),
                "seek": self._seek(), "vmsplice": self._chance(0.3), **self._open(flags="rdwr")}  # fmt: skip

    def _clone(self) -> Args:
        how = self._pick(("whole", "range", "dedupe"))
        return {"op": "clone", "how": how, "source": self._source(), "offset": 4096 * self._random.randrange(2),
                "size": 4096 * self._random.randrange(3), "to": 4096 * self._random.randrange(3),
                **self._open(flags="rdwr")}  # fmt: skip

    # ---- names ----

    def _create(self) -> Args:
        flags = self._pick(("wronly creat", "rdwr creat excl", "wronly creat trunc", "rdwr creat excl nofollow"))
        return {"op": "create", "path": self._fresh(), "at": self._at(), "flags": flags, "mode": self._mode()}

    def _mkdir(self) -> Args:
        slash = "/" if self._chance(0.1) else ""
        mode = self._pick((0o755, 0o755, 0o777, 0o700, 0o2775, 0o1777))
        return {"op": "mkdir", "path": self._fresh() + slash, "at": self._at(), "mode": mode}

    def _mknod(self) -> Args:
        kind = self._pick((stat.S_IFREG, stat.S_IFIFO, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK))
        rdev = os.makedev(self._random.randrange(300), self._random.randrange(70000)) if kind & 0o20000 else 0
        return {"op": "mknod", "path": self._fresh(), "at": self._at(), "mode": kind | self._mode(), "rdev": rdev}

    def _bind_socket(self) -> Args:
        return {"op": "bind_socket", "path": self._fresh()}

    def _symlink(self) -> Args:
        path = self._fresh()
        above = os.path.dirname(path)
        target = self._pick(("nowhere", "..", ".", "a/b", "x" * 300, "{root}/a", "{root}"))
        if self._chance(0.7):
            target = os.path.relpath(self._pick(self._directories + self._files) or ".", above or ".")
            target = target if target.count("..") <= MOST_UP else "nowhere"
        return {"op": "symlink", "path": path, "at": self._at(), "target": target}

    def _link(self) -> Args:
        flags = self._pick((0, 0, system.AT_SYMLINK_FOLLOW))
        return {"op": "link", "path": self._any(), "at": self._at(), "new": self._fresh(), "at2": self._at(),
                "flags": flags}  # fmt: skip

    def _rename(self) -> Args:
        flags = self._pick((None, None, None, 0, 0, system.RENAME_NOREPLACE, system.RENAME_EXCHANGE,
                            system.RENAME_EXCHANGE,
                            system.RENAME_WHITEOUT if "whiteouts" in self._groups else 0))  # fmt: skip
        exists = flags == system.RENAME_EXCHANGE or self._chance(0.3)
        old, new = self._any(), self._any() if exists else self._fresh()
        if self._chance(0.2) and len(self._directories) > 2:
            old, new = self._pick(self._directories[1:]), self._pick([*self._directories[1:], new])
        return {"op": "rename", "path": old, "at": self._at(), "new": new, "at2": self._at(), "flags": flags}

    def _unlink(self) -> Args:
        return {"op": "unlink", "path": self._any(), "at": self._at()}

    def _rmdir(self) -> Args:
        return {"op": "rmdir", "path": self._pick(self._directories) or "a", "at": self._at()}

    def _rmtree(self) -> Args:
        return {"op": "rmtree", "path": self._pick(self._directories) or "a", "at": self._at()}

    def _tmpfile(self) -> Args:
        ways = ("empty", "proc", "never") if "proc" in self._groups else ("empty", "never")
        return {"op": "tmpfile", "directory": self._pick(self._directories) or ".", "at": self._at(),
                "mode": self._mode(), "new": self._fresh(), "at2": self._at(), "how": self._pick(ways)}  # fmt: skip

    def _deep(self) -> Args:
        levels, length = self._pick(((25, 200), (75, 3), (40, 120)))
        return {"op": "deep", "path": self._fresh(), "at": self._at(), "levels": levels, "length": length}

    def _chdir(self) -> Args:
        return {"op": "chdir", "path": self._spelt(self._pick(self._directories)) or ".", "fchdir": self._chance(0.4)}

    # ---- attributes ----

    def _thing(self) -> Args:
        """A path, or a descriptor."""
        if self._chance(0.25):
            return {"slot": self._slot()}
        return {"path": self._any(), "at": self._at()}

    def _chmod(self) -> Args:
        flags = self._pick((0, 0, 0, system.AT_SYMLINK_NOFOLLOW))
        return {"op": "chmod", "mode": self._pick((self._mode(), self._random.randrange(0o10000))), "flags": flags,
                **self._thing()}  # fmt: skip

    def _chown(self) -> Args:
        return {"op": "chown", "uid": self._pick((-1, 0, 1000, 1001, 70000)), "gid": self._pick((-1, 0, 1000, 1001, 5)),
                "follow": self._chance(0.6), **self._thing()}  # fmt: skip

    def _utime(self) -> Args:
        return {"op": "utime", "how": self._pick(("ns", "ns", "now", "old")), "atime": self._pick(TIMES[:-1]),
                "mtime": self._pick(TIMES), "follow": self._chance(0.6), **self._thing()}  # fmt: skip

    def _xattr_name(self) -> str:
        names = ["user.one", "user.two", "user.long" + "n" * 200, "trusted.one"]
        if "security" in self._groups:
            names += ["security.one", "security.capability"]
        return self._pick((*names, "system.posix_acl_access", "system.posix_acl_access", "system.posix_acl_default"))

    def _setxattr(self) -> Args:
        name = self._xattr_name()
        value = self._random.randbytes(self._pick((0, 1, 20, 300, 1500))).hex()
        if "acl" in name:
            value = self._pick(ACLS)
        elif name.endswith("capability"):
            value = "0100000200040000000000000000000000000000"
        flags = self._pick((0, 0, 0, os.XATTR_CREATE, os.XATTR_REPLACE))
        return {"op": "setxattr", "name": name, "value": value, "flags": flags, "xat": self._chance(0.15),
                "follow": self._chance(0.7), **self._plain_thing()}  # fmt: skip

    def _removexattr(self) -> Args:
        return {"op": "removexattr", "name": self._xattr_name(), "xat": self._chance(0.15),
                "follow": self._chance(0.7), **self._plain_thing()}  # fmt: skip

    def _plain_thing(self) -> Args:
        thing = self._thing()
        if "at" in thing and thing["at"].startswith("fd:") and "proc" not in self._groups:
            thing["at"] = "cwd"
        return thing

    def _chattr(self) -> Args:
        return {"op": "chattr", "attributes": self._pick((0, 0x40, 0x80)), **self._open(flags="rdwr")}

    # ---- what is held ----

    def _keep(self) -> Args:
        return {"op": "keep", **self._opened(), "slot": self._slot()}

    def _opened(self) -> Args:
        while "path" not in (given := self._open()):
            continue
        return given

    def _duplicate(self) -> Args:
        return {"op": "duplicate", "of": self._slot(), "slot": self._slot()}

    def _close(self) -> Args:
        return {"op": "close", "slot": self._slot()}

    def _pass(self) -> Args:
        return {"op": "pass", "slot": self._slot(), "to": self._pick(self._actors), "slot2": self._slot()}

    def _respawn(self) -> Args:
        return {"op": "respawn", "to": self._pick((0, 1))}

    # ---- through memory, and asked for ----

    def _pages(self) -> Args:
        return {"page": self._pick((0, 0, 0, 1, 2)), "pages": self._pick((1, 1, 2, 5, 20)), **self._open(flags="rdwr")}

    def _stored(self) -> Args:
        return {"seed": self._seed(), "size": self._pick((1, 2, 7, 100, 4096, 5000, 20000)), "offset": self._offset(),
                "whole": self._chance(0.1)}  # fmt: skip

    def _map_store(self) -> Args:
        how = self._pick(mapped.WAYS)
        return {"op": "map_store", "how": how, "more": self._pick((1, 3, 500)), **self._stored(), **self._pages()}

    def _map_keep(self) -> Args:
        return {"op": "map_keep", "map": self._pick((0, 1, 2)), **self._pages()}

    def _map_poke(self) -> Args:
        then = self._pick(("", "", "", "msync", "some", "fsync"))
        return {"op": "map_poke", "map": self._pick((0, 1, 2)), "then": then, **self._stored()}

    def _map_drop(self) -> Args:
        return {"op": "map_drop", "map": self._pick((0, 1, 2)), **self._stored()}

    def _way(self) -> Args:
        return {"way": self._pick(("plain",) * 4 + requests.WAYS), "worker": self._chance(0.2)}

    def _ring_write(self) -> Args:
        how = self._pick(("write", "write", "vectors", "fixed", "linked"))
        offset = self._pick((None, self._offset()))
        return {"op": "ring_write", "how": how, "seed": self._seed(), "size": self._size(), "offset": offset,
                "seek": self._seek(), **self._way(), **self._open()}  # fmt: skip

    def _ring_splice(self) -> Args:
        return {"op": "ring_splice", "seed": self._seed(), "size": min(self._size() or 1, 60000),
                "offset": self._offset(), **self._way(), **self._open(flags="rdwr")}  # fmt: skip

    def _ring_fallocate(self) -> Args:
        return self._fallocate() | {"op": "ring_fallocate"} | self._way()

    def _ring_ftruncate(self) -> Args:
        return self._ftruncate() | {"op": "ring_ftruncate"} | self._way()

    def _ring_open(self) -> Args:
        flags = self._pick(("wronly creat", "rdwr creat excl", "wronly creat trunc", "wronly trunc"))
        return self._create() | {"op": "ring_open", "flags": flags} | self._way()

    def _ring_name(self) -> Args:
        how = self._pick(("mkdir", "symlink", "link", "rename", "rename", "unlink", "unlink"))
        operation: Args = {"op": "ring_name", "how": how, "path": self._any(), "at": self._at(), "new": self._fresh(),
                           "at2": self._at(), "mode": 0, **self._way()}  # fmt: skip
        if how in ("mkdir", "symlink"):
            operation |= {"path": self._fresh(), "mode": 0o750}
        elif how == "rename":
            operation |= {"mode": self._pick((0, 0, system.RENAME_NOREPLACE, system.RENAME_EXCHANGE))}
            operation |= {"new": self._any()} if operation["mode"] == system.RENAME_EXCHANGE else {}
        elif how == "unlink" and self._chance(0.2):
            operation |= {"path": self._pick(self._directories) or "a", "mode": 0x200}
        return operation

    def _ring_setxattr(self) -> Args:
        operation = self._setxattr() | {"op": "ring_setxattr"} | self._way()
        if operation.get("at", "").startswith("fd:"):  # no request has both a path and where that starts
            operation["at"] = "cwd"
        return operation

    def _aio(self) -> Args:
        """Some of them past the page cache."""
        operation: Args = {"op": "aio", "seed": self._seed(), "size": self._size() or 1, "offset": self._offset(),
                           "count": self._pick((1, 1, 2, 3, 7, 20)), "aligned": False}  # fmt: skip
        if self._chance(0.3):
            operation |= {"size": self._pick((4096, 8192, 65536)), "offset": 4096 * self._random.randrange(4)}
            return operation | {"aligned": True} | self._open(flags="rdwr direct")
        return operation | self._open()

    def _program(self) -> Args:
        argv, paths = self._pick((
            (["cp", "{0}", "{1}"], [self._file(), self._fresh()]),
            (["cp", "-a", "{0}", "{1}"], [self._any(), self._fresh()]),
            (["mv", "{0}", "{1}"], [self._any(), self._fresh()]),
            (["sed", "-i", "s/a/b/", "{0}"], [self._file()]),
            (["tee", "-a", "{0}"], [self._file()]),
            (["ln", "-sf", "somewhere", "{0}"], [self._fresh()]),
            (["install", "-m", "750", "{0}", "{1}"], [self._file(), self._fresh()]),
            (["dd", "if=/dev/zero", "of=out", "bs=1000", "seek=3", "count=2"], []),
            (["touch", "{0}"], [self._any()]),
            (["truncate", "-s", "+100", "{0}"], [self._file()]),
        ))  # fmt: skip
        return {"op": "program", "argv": argv, "paths": paths}
