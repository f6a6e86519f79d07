"""The mounts that the recorder sees, told anew whenever a recorded process has changed any.

Owns reading mountinfo and which mounts are covered by others. What they mean for paths is in `diffkeeper.mounts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..mounts import Mount, Mounts, is_below
from ..wire import WireOp, encode
from . import scope
from .baseline import Piece
from .kernel import Control, Kernel
from .requests import Request


class _Entry(NamedTuple):
    number: int
    parent: int
    mount: Mount


class Mounting:
    """One recording's. `emit` takes the pieces of MOUNTS records."""

    def __init__(self, roots: Sequence[bytes], emit: Callable[[Iterable[Piece]], None]) -> None:
        self._roots, self._emit = roots, emit
        self._kernel: Kernel | None = None
        self.mounts = Mounts((), roots)
        self.look(0)

    def connect(self, kernel: Kernel) -> None:
        """From now on the kernel half is told where paths do not say what they lead to."""
        self._kernel = kernel
        kernel.control[Control.APART] |= self.mounts.has_aliases()

    def placed(self, request: Request) -> Request:
        """A request with the path that its file has for the recorder: its process may be gone, mounts and all."""
        if not request.apart:
            return request
        path = self.mounts.path(request.inode.dev, request.path) if request.path else None
        return request._replace(path=path or b"")

    def look(self, time: int) -> None:
        """Tell of the mounts if they are other ones than before. `time`: monotonic ns."""
        mounts = Mounts(_visible(_entries()), self._roots)
        if mounts.table == self.mounts.table:
            return
        self.mounts = mounts
        self._emit((encode(WireOp.MOUNTS, time=time, payload=mounts.packed()),))
        if self._kernel is not None:
            self._kernel.control[Control.APART] |= mounts.has_aliases()


def _entries() -> list[_Entry]:
    entries = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields, _, tail = line.partition(b" - ")
        number, parent, device, top, point = fields.split(b" ")[:5]
        major, minor = map(int, device.split(b":"))
        mount = Mount(major << 20 | minor, scope.unescaped(top), scope.unescaped(point), tail.split(b" ")[0])
        entries.append(_Entry(int(number), int(parent), mount))
    return entries


def _visible(entries: Sequence[_Entry]) -> list[Mount]:
    """Those that a path leads to, of filesystems that hold anybody's files."""
    below: dict[int, list[_Entry]] = {}
    for entry in entries:
        below.setdefault(entry.parent, []).append(entry)
    numbers = {entry.number for entry in entries}
    pending = [entry for entry in entries if entry.parent not in numbers or entry.parent == entry.number]
    found: list[Mount] = []
    while pending:
        entry = pending.pop()
        on_it = [each for each in below.get(entry.number, ()) if each is not entry]
        points = {each.mount.point for each in on_it}
        if entry.mount.point in points:  # one mounted over the whole of it
            pending += [each for each in on_it if each.mount.point == entry.mount.point]
            continue
        if entry.mount.kind.decode() not in scope.PSEUDO_FILESYSTEMS and entry.mount.top.startswith(b"/"):
            found.append(entry.mount)
        pending += [
            each for each in on_it
            if not any(point != each.mount.point and is_below(each.mount.point, point) for point in points)
        ]  # fmt: skip
    return sorted(found)
