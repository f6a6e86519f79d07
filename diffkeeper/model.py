"""The words everything else is written in: Op, Fidelity, Event, Moment, Attrs, Process, Session and others.

Frozen data, no I/O, no imports of ours. Paths are bytes as the kernel has them, absolute unless
said otherwise; times are nanoseconds in an int unless the name says seconds. A node is one file,
directory or other inode of the recorded tree, numbered from 1 (ROOT_NODE, the directory "/") and
never reused, so a node outlives renames and a path may mean different nodes at different moments.
"""

from __future__ import annotations

import enum
import stat as stat_module
from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct, field

ROOT_NODE = 1

FROM_OUTSIDE = "from outside: "
"""How the detail of a heal begins where nothing that was recorded touched a path, and it changed."""

NO_SEQ = 0
"""The moment before event 1: the tree as the baseline found it."""


class Op(enum.IntEnum):
    """What an event did. Numbers are stored; never renumber."""

    CREATE = 1  # a regular file made by open(2), creat(2)
    WRITE = 2
    TRUNCATE = 3  # also open(O_TRUNC): offset is the new size
    CHMOD = 4
    CHOWN = 5
    UTIME = 6
    MKDIR = 7
    MKNOD = 8
    SYMLINK = 9
    LINK = 10
    RENAME = 11
    EXCHANGE = 12  # renameat2(RENAME_EXCHANGE)
    UNLINK = 13
    RMDIR = 14
    SETXATTR = 15
    REMOVEXATTR = 16
    FORK = 17
    EXEC = 18
    EXIT = 19
    MARK = 20
    GAP = 21  # the recorder missed something: detail says what, count how many events (0: not known)
    HEAL = 22  # found wrong after the command and put right
    CHATTR = 23  # flags of chattr(1): detail names them; a moment does not have them

    @property
    def label(self) -> str:
        """Lower-case name, as the timeline prints it and `--op` takes it."""
        return self.name.lower()


class Fidelity(enum.IntEnum):
    """How far the recorded bytes can be trusted. Numbers are stored; never renumber."""

    EXACT = 1  # seen at the call, or re-read while the writer stood still
    REREAD = 2  # read later: may hold bytes that were written after
    PARTIAL = 3  # a file outside the roots whose earlier content was never seen
    UNKNOWN = 4

    @property
    def label(self) -> str:
        return self.name.lower()


class Event(Struct, frozen=True, gc=False):
    """One change. `seq` (from 1, no holes) is the total order; `time` counts from the command's start.

    `path` is absolute ("" for process events that have none; for an unlinked file still open, its
    last path). `to`: new path of RENAME, EXCHANGE and LINK; target of SYMLINK. `size`: bytes
    written by WRITE, new size for TRUNCATE. `offset`: of WRITE. `detail`: mark name, gap cause,
    argv of EXEC joined by spaces, exit status text, xattr name.
    """

    seq: int
    time: int
    op: Op
    pid: int
    path: bytes
    to: bytes | None = None
    node: int = 0
    offset: int | None = None
    size: int | None = None
    fidelity: Fidelity = Fidelity.EXACT
    outside: bool = False  # the path is not under a root
    count: int = 0
    detail: str = ""


class Attrs(Struct, frozen=True, gc=False):
    """What stat() says of a node at a moment.

    `version` changes exactly when the content may have (it is the seq of the last event that wrote
    it, 0 for the baseline's); `changed` likewise for everything else here. Same node, version and
    changed: the same file version, byte for byte.
    """

    mode: int  # with the type bits, as st_mode
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    ctime: int = 0
    nlink: int = 1
    rdev: int = 0
    target: bytes = b""  # of a symlink
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    version: int = 0
    changed: int = 0
    fidelity: Fidelity = Fidelity.EXACT

    @property
    def is_dir(self) -> bool:
        return stat_module.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat_module.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        return stat_module.S_ISLNK(self.mode)


class Moment(Struct, frozen=True, gc=False):
    """A place in the total order: everything up to and including event `seq` has happened."""

    seq: int
    name: str  # a pasteable spelling, without "@"


class Mark(Struct, frozen=True, gc=False):
    name: str
    seq: int  # of its MARK event
    time: int


class Process(Struct, frozen=True, gc=False):
    """A process of the recorded tree. Times count from the command's start; `end` None: still ran."""

    pid: int
    ppid: int
    uid: int
    comm: str  # the last exec's
    argv: tuple[str, ...] = ()
    start: int = 0
    end: int | None = None
    status: int | None = None  # wait status


class Filtered(Struct, frozen=True, gc=False):
    """What one filter of a recording has left out of it."""

    name: str
    before: int = 0  # paths that stood there before the command; a directory counts as one, with all in it
    events: int = 0  # changes to what is left out
    examples: tuple[str, ...] = ()  # the first few paths, as `EventFilter.keep_path` has them; a directory ends in "/"
    time: int = 0  # ns that the filter took
    error: str = ""  # what it raised first; what it could not judge was kept


class Session(Struct, frozen=True, gc=False):
    """What was recorded, how, and how well: one per trace."""

    format: int  # of the store
    version: str  # of the DiffKeeper that recorded
    command: tuple[str, ...]
    cwd: bytes
    roots: tuple[bytes, ...]  # absolute, resolved, none inside another
    trace: bytes  # absolute path the trace was recorded at; it is not part of any moment
    started: int  # CLOCK_REALTIME of the command's start, ns since the epoch
    host: str = ""
    kernel: str = ""
    duration: int | None = None  # ns; None: the recording was cut off
    status: int | None = None  # wait status of the command; None: not known
    events: int = 0
    lost: Mapping[str, int] = field(default_factory=dict)  # cause -> events (or bytes ranges) missed
    fidelity: Mapping[str, int] = field(default_factory=dict)  # label -> events with content
    verified_paths: int | None = None  # None: not verified
    mismatches: int = 0
    wrong: Mapping[str, int] = field(default_factory=dict)  # what of these was -> how many: "times", "content", ...
    filters: tuple[tuple[str, Mapping[str, str]], ...] = ()  # name and options of the filters in force, in order
    filtered: tuple[Filtered, ...] = ()  # what each of them left out; empty: not known yet
    differ: tuple[str, Mapping[str, str]] = ("auto", MappingProxyType({}))  # what makes patches, and its options
    notes: tuple[str, ...] = ()  # e.g. tracepoints this kernel does not have
    traces: tuple[bytes, ...] = ()  # others that lay below the roots; they are not part of any moment either
    others: int = 0  # of the mismatches, what was changed from outside: nothing that was recorded touched it

    @property
    def exit_code(self) -> int | None:
        """As a shell would report it: 128+N for signal N; None when not known."""
        if self.status is None:
            return None
        return 128 + (self.status & 0x7F) if self.status & 0x7F else self.status >> 8 & 0xFF
