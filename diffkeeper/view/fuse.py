"""The adapter between a kernel's FUSE requests and places. The only importer of pyfuse3 and trio.

Owns the translation of requests and replies, mount options, and the loop that serves until it is
told to stop. What stands where is in `tree` and its kinds; the life of the process in `mount`.

The past never changes: names, also those that do not exist, and attributes are good for a day,
pages for as long as the kernel likes. Handlers answer at once and never wait for anything but
the store, so they are run one after the other, and need no locks.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3
import trio

from diffkeeper.errors import DiffKeeperError, MountpointError
from diffkeeper.model import Attrs

from .tree import NUMBERS, Entry, Handle, Inode, Inodes, Place

log = logging.getLogger(__name__)

DAY = 86_400.0
BLOCK = 4096
XATTR_NAMES = 1 << 16
"""Bytes of attribute names a file may list on Linux (XATTR_LIST_MAX)."""

SPIN_NS = 100_000
EAGER_MS = 2
"""How long the next request is waited for, after an answer: first without sleep, then without the event loop."""

MOST_AT_ONCE = 256
"""Requests answered in a row before signals are looked for."""

READ_AHEAD_KB = 1024
"""As much as a request of a kernel can ask for."""

SMALL = 64 << 10
"""Bytes of a file that is handed over as it is opened."""

P = ParamSpec("P")
R = TypeVar("R")


def _handler(
    answer: Callable[Concatenate[Filesystem, P], R],
) -> Callable[Concatenate[Filesystem, P], Coroutine[Any, Any, R]]:
    """Make a FUSE request handler of a method: whatever goes wrong in it is an errno for one caller."""

    @functools.wraps(answer)
    async def guarded(self: Filesystem, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return answer(self, *args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except OSError as error:
            if error.errno in (None, errno.EIO):
                log.exception("%s%r failed", answer.__name__, args)
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from error
        except DiffKeeperError as error:
            log.error("%s%r: %s", answer.__name__, args, error)  # noqa: TRY400 - the message says it all
            raise pyfuse3.FUSEError(errno.EIO) from error
        except Exception as error:
            log.exception("%s%r failed", answer.__name__, args)
            raise pyfuse3.FUSEError(errno.EIO) from error

    return guarded


class _Listing:
    """An open directory: its entries made as they are read, from any position on."""

    def __init__(self, directory: Inode) -> None:
        self.directory = directory
        self._entries = directory.place.children()
        self._next = 0
        self._refused: tuple[bytes, Entry] | None = None

    def entries(self, start: int) -> Iterator[tuple[int, bytes, Entry]]:
        """Position, name and entry of those from position `start` on."""
        if start != self._next:
            self._entries, self._refused, self._next = self.directory.place.children(), None, 0
        while True:
            entry = self._refused or next(self._entries, None)
            self._refused = None
            if entry is None:
                return
            self._next += 1
            if self._next > start:
                yield self._next - 1, *entry

    def refuse(self, name: bytes, entry: Entry) -> None:
        """The entry just given was not taken: it comes again."""
        self._refused = name, entry
        self._next -= 1


class Filesystem(pyfuse3.Operations):
    """Answers a kernel's requests from the places below `top`."""

    supports_dot_lookup = False
    enable_acl = False

    def __init__(self, top: Place, ready: Callable[[], None], opening: Callable[[], None], *, xattrs: bool) -> None:
        """`ready` is called when the kernel has answered, `opening` before a file is opened for the first time.

        `xattrs`: something has extended attributes.
        """
        super().__init__()
        self.inodes = Inodes(top)
        self._ready, self._opening, self._xattrs = ready, opening, xattrs
        self._handles: dict[int, Handle] = {}
        self._listings: dict[int, _Listing] = {}
        self._last_handle = NUMBERS

    def init(self) -> None:
        self._ready()

    @_handler
    def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        del ctx
        entry = self.inodes[parent_inode].place.lookup(name)
        if entry is None:
            return _nothing()
        return _answer(self.inodes.tell(entry.place, parent_inode), entry.attrs)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for number, times in inode_list:
            self.inodes.forget(number, times)

    @_handler
    def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        del ctx
        known = self.inodes[inode]
        return _answer(known, known.place.attrs())

    @_handler
    def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        del ctx
        return self.inodes[inode].place.attrs().target

    @_handler
    def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        del ctx
        handle = self._handle()
        self._listings[handle] = _Listing(self.inodes[inode])
        return handle

    @_handler
    def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self._listings[fh]
        directory = listing.directory
        # Positions: 0 is ".", 1 is "..", then the entries. The kernel counts no reference for the two.
        for position, name, inode in ((0, b".", directory), (1, b"..", self.inodes[directory.parent])):
            if start_id > position:
                continue
            if not pyfuse3.readdir_reply(token, name, _answer(inode, inode.place.attrs()), position + 1):
                return
        for position, name, entry in listing.entries(max(start_id - 2, 0)):
            inode = self.inodes.tell(entry.place, directory.number)
            if not pyfuse3.readdir_reply(token, name, inode.answer or _answer(inode, entry.attrs), position + 3):
                self.inodes.forget(inode.number, 1)  # it did not fit: the kernel was not told after all
                listing.refuse(name, entry)
                return

    @_handler
    def releasedir(self, fh: int) -> None:
        del self._listings[fh]

    @_handler
    def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        del ctx
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise pyfuse3.FUSEError(errno.EROFS)
        known = self.inodes[inode]
        if known.place.live:
            handle = self._handle()
            self._handles[handle] = known.place.open()
            return pyfuse3.FileInfo(fh=handle, direct_io=True, keep_cache=False)
        if not known.opened:
            known.opened = True
            self._opening()
            self._opening = _nothing_to_do
            self._fill(known)
        return pyfuse3.FileInfo(fh=inode)

    @_handler
    def read(self, fh: int, off: int, size: int) -> bytes:
        handle = self._handles.get(fh)
        return handle.read(off, size) if handle else self.inodes[fh].place.read(off, size)

    async def release(self, fh: int) -> None:
        if fh in self._handles:
            self._handles.pop(fh).close()

    @_handler
    def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        del ctx
        if not self._xattrs:
            # The kernel takes it that there is no such thing here, and asks no more: it remembers no values, and
            # `ls -l` would be two requests a file. Not so in listxattr, or `tar --xattrs` would complain of each.
            raise pyfuse3.FUSEError(errno.ENOSYS)
        value = self.inodes[inode].place.xattrs().get(name)
        if value is None:
            raise pyfuse3.FUSEError(errno.ENODATA)
        return value

    @_handler
    def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        del ctx
        names = sorted(self.inodes[inode].place.xattrs())
        if sum(len(name) + 1 for name in names) > XATTR_NAMES:
            raise pyfuse3.FUSEError(errno.E2BIG)
        return names

    @_handler
    def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        del ctx
        answer = pyfuse3.StatvfsData()
        answer.f_bsize = answer.f_frsize = BLOCK
        answer.f_namemax = 255
        return answer

    def _fill(self, inode: Inode) -> None:
        """Give the kernel all of a small file: who opens it reads it, and need not ask again.

        Only at the first opening: nobody can wait for pages of the file yet, whom we would wait for here.
        """
        if 0 < (size := inode.place.attrs().size) <= SMALL:
            with contextlib.suppress(DiffKeeperError, OSError):  # then a read is asked for, and says why
                pyfuse3.notify_store(inode.number, 0, inode.place.read(0, size))

    def _handle(self) -> int:
        """A number for what is open, above all inodes: a file that never changes is open by the number of its inode."""
        self._last_handle += 1
        return self._last_handle


def _nothing_to_do() -> None:
    return


def _nothing() -> pyfuse3.EntryAttributes:
    """There is no such name, and there never will be."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = 0
    entry.entry_timeout = DAY
    return entry


def _answer(inode: Inode, attrs: Attrs) -> pyfuse3.EntryAttributes:
    """What the kernel is told of an inode. Neither its name nor its attributes ever change."""
    if inode.answer is None:
        inode.answer = _entry(inode.number, attrs)
    answer: pyfuse3.EntryAttributes = inode.answer
    return answer


def _entry(number: int, attrs: Attrs) -> pyfuse3.EntryAttributes:
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = number
    entry.entry_timeout = entry.attr_timeout = DAY
    entry.st_mode = attrs.mode
    entry.st_nlink = attrs.nlink
    entry.st_uid = attrs.uid
    entry.st_gid = attrs.gid
    entry.st_rdev = attrs.rdev
    entry.st_size = attrs.size
    entry.st_blksize = BLOCK
    entry.st_blocks = -(-attrs.size // 512)
    entry.st_atime_ns = entry.st_mtime_ns = attrs.mtime
    entry.st_ctime_ns = attrs.ctime
    return entry


def serve(
    top: Place, mountpoint: str, name: str, ready: Callable[[], None], device: Callable[[], tuple[int, int] | None],
    *, xattrs: bool,
) -> None:  # fmt: skip
    """Mount at `mountpoint` and serve until it is unmounted or a SIGTERM, SIGINT or SIGHUP comes.

    `name` is what mount(8) shows as the source. `ready` is called when the kernel has answered. `device` says which
    number the mount has by then, None if there is none (any more). `xattrs`: something has extended attributes.
    Raises MountpointError when it cannot be mounted.
    """
    options = {"ro", "nosuid", "nodev", "default_permissions", "subtype=diffkeeper", f"fsname={_option(name)}"}
    if os.geteuid() == 0:
        options.add("allow_other")  # else not even root's own services could look; owners and modes still decide
    complaint = tempfile.TemporaryFile()  # for libfuse, which says why on standard error only
    with complaint:
        try:
            with _stderr_to(complaint.fileno()):
                filesystem = Filesystem(top, ready, lambda: _read_far_ahead(device()), xattrs=xattrs)
                pyfuse3.init(filesystem, mountpoint, options)
        except RuntimeError as error:
            complaint.seek(0)
            said = complaint.read().decode(errors="replace").strip().splitlines() or [str(error)]
            raise MountpointError(f"cannot mount at {mountpoint}: {said[-1]}") from error
    pyfuse3.trio = _Eager()  # type: ignore[attr-defined]  # its own, and not in its stubs
    try:
        trio.run(_loop)
    finally:
        pyfuse3.close(unmount=True)


def _read_far_ahead(device: tuple[int, int] | None) -> None:
    """Let the kernel ask for a megabyte at once where a file is read from end to end. Only root can.

    Not before the kernel has our first answer: with that it sets this to what it takes for best.
    """
    if device is not None:
        with contextlib.suppress(OSError):
            Path("/sys/class/bdi/{}:{}/read_ahead_kb".format(*device)).write_text(str(READ_AHEAD_KB))


class _Eager:
    """trio as pyfuse3 uses it, but for `wait_readable`: who reads a file asks again and again.

    Going to sleep in trio's loop and coming back costs as much as most answers, so the next request is
    waited for right here first. Nor is there a turn in the loop for the lock, which only one task would ever
    take. pyfuse3 is told so in the way in which its own `asyncio.enable` does it.
    """

    Lock, ClosedResourceError = contextlib.nullcontext, trio.ClosedResourceError
    open_nursery = staticmethod(trio.open_nursery)
    current_task = staticmethod(trio.lowlevel.current_task)
    current_trio_token = staticmethod(trio.lowlevel.current_trio_token)
    notify_closing = staticmethod(trio.lowlevel.notify_closing)

    def __init__(self) -> None:
        self.lowlevel = self
        self._requests = select.poll()
        self._fd = -1
        self._at_once = 0

    async def wait_readable(self, fd: int) -> None:
        if fd != self._fd:
            self._requests.register(fd, select.POLLIN)
            self._fd = fd
        if self._at_once < MOST_AT_ONCE and (self._is_next_here() or self._requests.poll(EAGER_MS)):
            self._at_once += 1
            return
        self._at_once = 0
        await trio.lowlevel.wait_readable(fd)

    def _is_next_here(self) -> bool:
        """Whether a request is there, or comes before a processor would have gone to sleep and been woken again.

        In a virtual machine that takes longer than to answer. Whoever asks may need this processor, and gets it.
        """
        until = time.perf_counter_ns() + SPIN_NS
        while not self._requests.poll(0):
            if time.perf_counter_ns() > until:
                return False
            os.sched_yield()
        return True


async def _loop() -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_on, signals)
            await pyfuse3.main(max_tasks=1)  # no handler waits, so a second would only take turns with the first
            nursery.cancel_scope.cancel()


async def _stop_on(signals: AsyncIterator[int]) -> None:
    async for _ in signals:
        pyfuse3.terminate()


@contextlib.contextmanager
def _stderr_to(fd: int) -> Iterator[None]:
    sys.stderr.flush()
    saved = os.dup(2)
    os.dup2(fd, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _option(text: str) -> str:
    """Text that libfuse and /proc/self/mountinfo can carry as a value of a mount option."""
    return "".join(c if c.isascii() and c.isprintable() and c not in ',\\"\' ' else "?" for c in text)
