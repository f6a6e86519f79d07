"""The life of a mount: what must be true before, the process that serves it, and its end.

Owns the checks and their messages, the daemon, its log, and what the kernel says is mounted where.
What is served is in `hidden` and its neighbours, how in `fuse`.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from diffkeeper import arrays, errors
from diffkeeper.errors import DiffKeeperError, MountpointError, NoFuseError
from diffkeeper.trace import Trace, open_trace

FUSE_DEVICE = "/dev/fuse"
FILESYSTEM = "fuse.diffkeeper"
READY = b"\0"
GONE_AFTER = 10.0
"""Seconds that `umount` waits for a mount to be gone once the kernel has agreed."""

COLLECT_AFTER = 20_000
"""Objects made until cycles are looked for. What a kernel knows of a tree is many objects and no cycles: to go through
them as often as Python does by itself takes a tenth of the time of a listing."""

SHORT_TURN = 0.0005
"""Seconds that a thread which only loads something may keep the others from running; Python's own are 0.005."""

Indexing = Callable[[int, int], None]


def mount(
    trace_path: Path, mountpoint: Path, *, foreground: bool = False, progress: Indexing | None = None,
    opened: Callable[[Trace], None] | None = None,
) -> None:  # fmt: skip
    """Mount a trace. Returns when it can be used; with `foreground`, when it is unmounted.

    `opened` is shown the trace before that. It is mounted as it is then, also where it is still being recorded.

    Raises NoFuseError, MountpointError, and what opening a trace raises.
    """
    _check_fuse()
    where = os.path.realpath(mountpoint)
    path = Path(os.path.abspath(trace_path))

    def check() -> None:
        with open_trace(path, progress=progress) as trace:
            _check_mountpoint(where, trace)
            if opened is not None:
                opened(trace)

    if foreground:
        check()
        _log_to(logging.StreamHandler(sys.stderr))
        _serve(path, where, "", lambda: None)
    else:
        _start_daemon(path, where, check)


def umount(mountpoint: Path, *, in_use: bool = False) -> None:
    """Unmount, and return when nothing is mounted there any more. Works on a mount whose server died.

    `in_use`: also where it is; whoever is in it may stay, and its server ends with them.
    Raises MountpointError when nothing of ours is mounted there, or it is in use.
    """
    where = os.path.realpath(mountpoint)
    if _mounted_at(where) is None:
        raise MountpointError(f"nothing is mounted at {where}")
    if _mounted_at(where) != FILESYSTEM:
        raise MountpointError(f"what is mounted at {where} is not a trace ({_mounted_at(where)}): leave it be")
    _unmount(where, in_use=in_use)
    deadline = time.monotonic() + GONE_AFTER
    while _mounted_at(where) == FILESYSTEM:
        if time.monotonic() > deadline:
            raise MountpointError(f"{where} is still mounted: unmount whatever was mounted over it first")
        time.sleep(0.01)


def _unmount(where: str, *, in_use: bool = False) -> None:
    tool = shutil.which("fusermount3")
    command = [tool, "-u", *(["-z"] if in_use else [])] if tool else ["umount", *(["-l"] if in_use else [])]
    command += ["--", where]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode == 0:
        return
    said = done.stderr.decode(errors="replace").strip() or f"{command[0]} failed"
    if "busy" in said.lower():
        said = "it is in use; leave it (cd elsewhere, close its files) and try again"
    raise MountpointError(f"cannot unmount {where}: {said}")


# -- before ------------------------------------------------------------------------------------


def _check_fuse() -> None:
    contained = "in a container, start it with --device /dev/fuse --cap-add SYS_ADMIN"
    try:
        os.close(os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError as error:
        hint = f"mount as root, or: sudo chmod 666 {FUSE_DEVICE}" if os.geteuid() else contained
        raise NoFuseError(f"this user may not open {FUSE_DEVICE}: {hint}") from error
    except OSError as error:
        hint = f"load it with 'modprobe fuse'; {contained}"
        raise NoFuseError(f"no FUSE here, {FUSE_DEVICE}: {error.strerror}; {hint}") from error
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise NoFuseError("fusermount3 is missing: apt install fuse3, or mount as root")


def _check_mountpoint(where: str, trace: Trace) -> None:
    with contextlib.suppress(OSError):
        if _mounted_at(where) == FILESYSTEM and _is_dead(where):
            _unmount(where)
    try:
        names = os.listdir(where)
    except FileNotFoundError as error:
        raise MountpointError(f"no mountpoint {where}: make it with 'mkdir {where}'") from error
    except NotADirectoryError as error:
        raise MountpointError(f"the mountpoint {where} is not a directory: give an empty one") from error
    except OSError as error:
        raise MountpointError(f"cannot use {where} as mountpoint: {error.strerror}") from error
    if _mounted_at(where) is not None:
        raise MountpointError(f"{where} is busy: something is mounted there; 'diffkeeper umount {where}' first")
    own = os.path.realpath(trace.path)
    if _overlap(where, own):
        raise MountpointError(f"the mountpoint {where} overlaps the trace {own}: give a directory elsewhere")
    for root in map(os.fsdecode, trace.roots):
        if root != "/" and _overlap(where, root):
            raise MountpointError(f"the mountpoint {where} overlaps the recorded {root}: give a directory elsewhere")
    if names:
        raise MountpointError(f"the mountpoint {where} is not empty: give an empty directory")


def _overlap(one: str, other: str) -> bool:
    return os.path.commonpath((one, other)) in (one, other)


def _is_dead(where: str) -> bool:
    """Whether the process that served a mount is gone. Not by stat(): its answer may still be cached."""
    try:
        os.statvfs(where)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def _mounted_at(where: str) -> str | None:
    """Type of what is mounted at exactly this canonical path, on top; None when nothing is."""
    found = _mount_at(where)
    return found[0] if found else None


def _device_at(where: str) -> tuple[int, int] | None:
    """Major and minor number of our own mount at a canonical path."""
    found = _mount_at(where)
    return found[1] if found and found[0] == FILESYSTEM else None


def _mount_at(where: str) -> tuple[str, tuple[int, int]] | None:
    found = None
    with open("/proc/self/mountinfo", "rb") as table:
        for line in table:
            fields, _, rest = line.partition(b" - ")
            device, _, point = fields.split(b" ")[2:5]
            for octal, char in ((rb"\040", b" "), (rb"\011", b"\t"), (rb"\012", b"\n"), (rb"\134", b"\\")):
                point = point.replace(octal, char)
            if os.fsdecode(point) == where:
                major, minor = map(int, device.split(b":"))
                found = rest.split(b" ")[0].decode(), (major, minor)
    return found


# -- the process that serves -------------------------------------------------------------------


def _serve(path: Path, where: str, log: str, ready: Callable[[], None]) -> None:
    try:
        from . import fuse
        from .hidden import Top
    except ImportError as error:
        raise NoFuseError(f"cannot load the FUSE library ({error}): apt install fuse3, then 'make setup'") from error

    def status() -> Iterator[str]:
        yield f"mountpoint: {where}"
        yield f"server: process {os.getpid()}"
        if log and os.path.exists(log):
            yield f"something went wrong, see: {log}"

    with open_trace(path) as trace:
        xattrs = trace.reader.has_xattrs()
        fuse.serve(Top(trace, status), where, os.fspath(path), ready, lambda: _device_at(where), xattrs=xattrs)


def _start_daemon(path: Path, where: str, check: Callable[[], None]) -> None:
    """Serve in a process of its own; return when it is ready, raise what it or `check` raises.

    The process loads what it needs, which takes as long as all else, while its parent checks.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    waiting, going = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.close(going)
        _daemon(path, where, waiting, writing)
    os.close(waiting)
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading, "rb") as pipe, open(going, "wb", buffering=0) as gate:
        check()
        with contextlib.suppress(BrokenPipeError):  # it has ended, and says why
            gate.write(READY)
        answer = pipe.read()
    if answer == READY:
        return
    kind, _, message = answer.decode(errors="surrogateescape").partition("\n")
    error = getattr(errors, kind, DiffKeeperError) if kind else DiffKeeperError
    raise error(message or f"the process that should serve {where} died before it was ready")


def _daemon(path: Path, where: str, gate: int, pipe: int) -> NoReturn:
    """The child's side: leave the caller's session, wait at the gate, then serve. Never returns."""
    answered = False

    def answer(message: bytes) -> None:
        nonlocal answered
        if not answered:
            answered = True
            os.write(pipe, message)
            os.close(pipe)

    def ready() -> None:
        answer(READY)
        threading.Thread(target=_load_arrays, daemon=True).start()

    status = 1
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        gc.freeze()  # what still owns a descriptor must not close a later one of the same number
        _keep_only(gate, pipe)
        os.chdir("/")
        with contextlib.suppress(ImportError):  # which is told when it serves
            from . import fuse, hidden  # noqa: F401
        gc.set_threshold(COLLECT_AFTER)
        if not os.read(gate, 1):
            os._exit(status)  # the caller has found what speaks against it
        os.close(gate)
        log = _log_file()
        _serve(path, where, log, ready)
        status = 0
    except DiffKeeperError as error:
        if answered:
            logging.getLogger(__name__).exception("the mount at %s ended", where)
        answer(f"{type(error).__name__}\n{error}".encode(errors="surrogateescape"))
    except BaseException as error:
        if answered:
            logging.getLogger(__name__).exception("the mount at %s ended", where)
        answer(f"DiffKeeperError\ncannot mount at {where}: {error!r}".encode(errors="surrogateescape"))
    finally:
        os._exit(status)


def _load_arrays() -> None:
    """What large files need, while the mount can be used already. No request waits for a long turn of it."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(SHORT_TURN)
    try:
        arrays.load()
    finally:
        sys.setswitchinterval(usual)


def _keep_only(*kept: int) -> None:
    """Close what was inherited, so that nobody waits for this process: locks, pipes, the terminal."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with contextlib.suppress(OSError):  # the listing's own descriptor
                os.close(int(name))


class _LogFile(logging.Handler):
    """A log that is made when there is something to say."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(self._path, flags, 0o600), "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(self.format(record) + "\n")
        except OSError:
            self.handleError(record)


def _log_file() -> str:
    """Prepare the log; its path. In $XDG_STATE_HOME/diffkeeper, else the directory for temporary files."""
    state = os.environ.get("XDG_STATE_HOME")
    directory = os.path.join(state, "diffkeeper") if state and os.path.isabs(state) else tempfile.gettempdir()
    with contextlib.suppress(OSError):
        os.makedirs(directory, mode=0o700, exist_ok=True)
    path = os.path.join(directory, f"diffkeeper-mount-{os.getuid()}-{os.getpid()}.log")
    _log_to(_LogFile(path))
    return path


def _log_to(handler: logging.Handler) -> None:
    logger = logging.getLogger()
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
