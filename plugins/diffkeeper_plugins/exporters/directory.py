"""The dir exporter: a moment as an ordinary directory, with attributes, hard links and holes.

Owns how recorded attributes are put on real files. Everything is made and opened by its own name
below an open directory and never through a symlink, in a place that only its owner can enter until
the export is whole, so neither a recorded name nor a recorded link leads out. Of an earlier attempt
that was stopped, the regular files that are whole are kept; all else is made again.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Self

from diffkeeper.errors import DiffKeeperError
from diffkeeper.exporting import (
    Entry,
    Exported,
    Meter,
    Selection,
    content,
    cost,
    entries,
    fidelity_note,
    is_exact,
    weight,
)
from diffkeeper.model import Attrs, Fidelity
from diffkeeper.plugins import Exporter

if TYPE_CHECKING:
    from diffkeeper.progress import Progress
    from diffkeeper.trace import Trace

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVILEGED = (b"security.", b"trusted.")
"""Extended attributes that give rights (security.capability is a set-id bit by another name), or that tell root's."""
_SPECIAL_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


class DirectoryExporter(Exporter):
    """A directory. Set-id and sticky bits, capabilities and device nodes only when asked for; owners as root."""

    resumes: ClassVar[bool] = True

    def __init__(self, suid: bool = False, devices: bool = False, owners: bool | None = None) -> None:
        self._devices = devices
        self._apply = _Attributes(suid, os.geteuid() == 0 if owners is None else owners)

    def export(self, trace: Trace, selection: Selection, destination: Path | BinaryIO, progress: Progress) -> Exported:
        assert isinstance(destination, Path)
        meter = Meter(progress, weight(trace, selection))
        notes = self._apply.notes
        count = size = inexact = 0
        damaged, missing = list[str](), set[bytes]()
        with suppress(FileExistsError):  # an earlier attempt, see `_Tree._kept`
            os.mkdir(destination, stat.S_IRWXU)
        with _Tree(destination, self._apply) as tree:
            for entry in entries(trace, selection):
                meter.add(cost(entry))
                if entry.attrs.is_dir:
                    tree.enter(entry)
                elif _is_device(entry.attrs) and not self._devices:
                    notes["device nodes left out (--opt devices=true makes them)"] += 1
                    continue
                elif entry.attrs.is_file and entry.link is None:
                    if wrong := tree.file(entry, trace, selection.moment.seq):
                        damaged.append(wrong)
                        missing.add(entry.path)
                        continue
                    size += entry.attrs.size
                elif entry.link in missing:
                    damaged.append(f"{_shown(entry.path)}: the same file as {_shown(entry.link or b'')}")
                    continue
                else:
                    tree.other(entry)
                count += 1
                inexact += not is_exact(entry)
        lines = tuple(f"{number} {what}" for what, number in sorted(notes.items()))
        return Exported(count, size, lines + fidelity_note(inexact), tuple(damaged))


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _is_device(attrs: Attrs) -> bool:
    return stat.S_ISCHR(attrs.mode) or stat.S_ISBLK(attrs.mode)


class _Attributes:
    """Puts recorded attributes on files, and counts in `notes` what cannot be had."""

    def __init__(self, suid: bool, owners: bool) -> None:
        self._suid, self._owners = suid, owners
        self.notes: Counter[str] = Counter()

    def mode(self, attrs: Attrs) -> int:
        mode = stat.S_IMODE(attrs.mode)
        return mode if self._suid else mode & ~_SPECIAL_BITS

    def of_open(self, fd: int, attrs: Attrs, also: int = 0) -> None:
        """On a regular file or directory; with `also` set in its mode for the time being."""
        if attrs.mode & _SPECIAL_BITS and not self._suid:
            self.notes["set-id or sticky bits left out (--opt suid=true keeps them)"] += 1
        if self._owners:
            os.chown(fd, attrs.uid, attrs.gid)
        self._xattrs(fd, attrs)  # after chown, which drops capabilities; before the mode may forbid it
        os.chmod(fd, self.mode(attrs) | also)
        if not (attrs.is_dir and attrs.fidelity is Fidelity.UNKNOWN):  # a directory that was never looked at
            os.utime(fd, ns=(attrs.mtime, attrs.mtime))

    def of_name(self, directory: int, name: bytes, attrs: Attrs) -> None:
        """On a symlink or special file."""
        if self._owners:
            os.chown(name, attrs.uid, attrs.gid, dir_fd=directory, follow_symlinks=False)
        self._xattrs(b"/proc/self/fd/%d/%s" % (directory, name), attrs)
        if not attrs.is_symlink:
            os.chmod(name, self.mode(attrs), dir_fd=directory)
        os.utime(name, ns=(attrs.mtime, attrs.mtime), dir_fd=directory, follow_symlinks=False)

    def _xattrs(self, target: int | bytes, attrs: Attrs) -> None:
        for name, value in attrs.xattrs.items():
            if name.startswith(_PRIVILEGED) and not self._suid:
                self.notes["security and trusted attributes left out (--opt suid=true keeps them)"] += 1
                continue
            try:
                if isinstance(target, int):
                    os.setxattr(target, name, value)
                else:
                    os.setxattr(target, name, value, follow_symlinks=False)
            except OSError as error:
                shown = name.decode("utf-8", "backslashreplace")
                self.notes[f"files without their extended attribute {shown}: {error.strerror}"] += 1


class _Tree:
    """The directory that is being filled, depth first, and where in it we are.

    Only two directories are open, however deep it goes: the top and the current one.
    """

    def __init__(self, top: Path, apply: _Attributes) -> None:
        self._top = os.open(top, _DIRECTORY)
        self._here = os.dup(self._top)
        self._stack: list[Entry] = []
        self._locked: list[Entry] = []  # directories whose owner must not enter them, once all is done
        self._apply = apply

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if error is None:
                while self._stack:
                    self._leave()
                for entry in reversed(self._locked):
                    self._chmod(entry)
        finally:
            os.close(self._here)
            os.close(self._top)

    def enter(self, entry: Entry) -> None:
        """Make a directory and go into it; the first is the top itself."""
        if entry.path:
            name = self._to_parent_of(entry)
            with suppress(FileExistsError):
                os.mkdir(name, stat.S_IRWXU, dir_fd=self._here)
            self._step(os.open(name, _DIRECTORY, dir_fd=self._here))
        self._stack.append(entry)

    def file(self, entry: Entry, trace: Trace, seq: int) -> str:
        """Make a regular file. Where its content cannot be had it is left out; says why."""
        name = self._to_parent_of(entry)
        if self._kept(name, entry.attrs):
            return ""
        fd = os.open(name, _NEW_FILE, 0o600, dir_fd=self._here)
        try:
            for offset, data in content(trace.reader, entry, seq):
                done = 0
                while done < len(data):
                    done += os.pwrite(fd, memoryview(data)[done:], offset + done)
            os.truncate(fd, entry.attrs.size)
            self._apply.of_open(fd, entry.attrs)
        except DiffKeeperError as error:
            os.unlink(name, dir_fd=self._here)
            return f"{_shown(entry.path)}: {error}"
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            os.unlink(name, dir_fd=self._here)
            return f"{_shown(entry.path)}: its {entry.attrs.size} bytes are more than the filesystem here can hold"
        finally:
            os.close(fd)
        return ""

    def _kept(self, name: bytes, attrs: Attrs) -> bool:
        """Whether an earlier attempt has made this file to its end: its time is set last. Else it is not there."""
        try:
            found = os.lstat(name, dir_fd=self._here)
        except FileNotFoundError:
            return False
        whole = stat.S_ISREG(found.st_mode) and (found.st_size, found.st_mtime_ns) == (attrs.size, attrs.mtime)
        if whole:
            with suppress(PermissionError):
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._here)
                try:
                    self._apply.of_open(fd, attrs)  # once more, for its notes
                    return True
                finally:
                    os.close(fd)
        self._clear(name)
        return False

    def _clear(self, name: bytes) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._here)

    def other(self, entry: Entry) -> None:
        """Make another name of a file, a symlink or a special file."""
        name, attrs = self._to_parent_of(entry), entry.attrs
        self._clear(name)
        if entry.link is not None:
            self._link(entry.link, name)
            return
        if attrs.is_symlink:
            os.symlink(attrs.target, name, dir_fd=self._here)
        else:
            os.mknod(name, stat.S_IFMT(attrs.mode) | 0o600, attrs.rdev, dir_fd=self._here)
        self._apply.of_name(self._here, name, attrs)

    def _to_parent_of(self, entry: Entry) -> bytes:
        """Make the directory that `entry` belongs in the current one. Returns the entry's name."""
        parent, _, name = entry.path.rpartition(b"/")
        while self._stack[-1].path != parent:
            self._leave()
        return name

    def _leave(self) -> None:
        entry = self._stack.pop()
        self._apply.of_open(self._here, entry.attrs, also=stat.S_IRWXU)
        if entry.attrs.mode & stat.S_IRWXU != stat.S_IRWXU:
            self._locked.append(entry)
        if self._stack:
            self._step(os.open(b"..", _DIRECTORY, dir_fd=self._here))

    def _step(self, fd: int) -> None:
        os.close(self._here)
        self._here = fd

    def _below_top(self, path: bytes) -> int:
        fd = os.dup(self._top)
        for part in filter(None, path.split(b"/")):
            try:
                inner = os.open(part, _DIRECTORY, dir_fd=fd)
            finally:
                os.close(fd)
            fd = inner
        return fd

    def _link(self, first: bytes, name: bytes) -> None:
        directory, _, source = first.rpartition(b"/")
        fd = self._below_top(directory)
        try:
            os.link(source, name, src_dir_fd=fd, dst_dir_fd=self._here, follow_symlinks=False)
        finally:
            os.close(fd)

    def _chmod(self, entry: Entry) -> None:
        fd = self._below_top(entry.path)
        try:
            os.chmod(fd, self._apply.mode(entry.attrs))
        finally:
            os.close(fd)
