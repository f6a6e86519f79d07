"""Mounts as one process sees them: which path there leads to a place in a filesystem.

Owns the choice among several paths, and how a table of mounts stands in a MOUNTS record. Where the table comes from is
another matter (`diffkeeper.record.mounting`); this reads nothing of the system.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .errors import TraceDamagedError

MOST = 100_000
"""Mounts of one table; the kernel's own limit for a namespace is the same."""


class Mount(NamedTuple):
    """The directory `top` of the filesystem `device` (s_dev), of the `kind` that mount(8) names, is at `point`."""

    device: int
    top: bytes
    point: bytes
    kind: bytes = b"none"


class Mounts:
    """Mounts that can be seen, none of them covered by another one as a whole. `roots`: of the recording."""

    def __init__(self, table: Sequence[Mount], roots: Iterable[bytes]) -> None:
        self.table = tuple(table)
        self._roots = tuple(roots)
        self._points = {mount.point: mount.kind for mount in table}
        self._by_device: dict[int, list[Mount]] = {}
        for mount in table:
            self._by_device.setdefault(mount.device, []).append(mount)

    def path(self, device: int, inside: bytes) -> bytes | None:
        """The absolute path of what is at `inside` of a filesystem; None: nowhere to be seen.

        Of several, the one under a root, and by the mount that shows most of the filesystem.
        """
        found: list[tuple[bool, int, bytes]] = []
        for mount in self._by_device.get(device, ()):
            if is_below(inside, mount.top):
                path = moved(inside, mount.top, mount.point)
                if not self._is_covered(mount, path):
                    found.append((not self._is_recorded(path), len(mount.top), path))
        return min(found)[2] if found else None

    def kind(self, path: bytes) -> bytes:
        """Of the filesystem that an absolute path leads to; empty: not known."""
        while path not in self._points and path != b"/":
            path = path.rpartition(b"/")[0] or b"/"
        return self._points.get(path, b"")

    def has_aliases(self) -> bool:
        """Whether anything below the roots has another path as well."""
        for root in self._roots:
            for mount in self.table:
                if is_below(mount.point, root):
                    top = mount.top
                elif is_below(root, mount.point) and not self._is_covered(mount, root):
                    top = moved(root, mount.point, mount.top)
                else:
                    continue
                for other in self._by_device[mount.device]:
                    if other is not mount and (is_below(other.top, top) or is_below(top, other.top)):
                        return True
        return False

    def _is_recorded(self, path: bytes) -> bool:
        return any(is_below(path, root) for root in self._roots)

    def _is_covered(self, mount: Mount, path: bytes) -> bool:
        """Whether another mount is between this one's point and a path."""
        while path != mount.point:
            if path in self._points:
                return True
            path = path.rpartition(b"/")[0] or b"/"
        return False

    def packed(self) -> bytes:
        """As the payload of a MOUNTS record has it."""
        return b"".join(b"%d\0%b\0%b\0%b\0" % mount for mount in self.table)


def unpack(payload: bytes) -> list[Mount]:
    """Raises TraceDamagedError."""
    parts = payload.split(b"\0")
    if len(parts) % 4 != 1 or parts[-1] or len(parts) > 4 * MOST:
        raise TraceDamagedError("damaged journal: a table of mounts is cut off")
    table = []
    for number, top, point, kind in zip(parts[0::4], parts[1::4], parts[2::4], parts[3::4], strict=False):
        if not number.isdigit() or len(number) > 10 or not top.startswith(b"/") or not point.startswith(b"/"):
            raise TraceDamagedError("damaged journal: a mount makes no sense")
        table.append(Mount(int(number), top, point, kind))
    return table


def is_below(path: bytes, directory: bytes) -> bool:
    """Whether `path` is `directory`, or in it."""
    return path == directory or path.startswith(directory.rstrip(b"/") + b"/")


def moved(path: bytes, above: bytes, to: bytes) -> bytes:
    """`path`, which is below `above`, were that at `to`."""
    rest = path[len(above.rstrip(b"/")) :]
    return to.rstrip(b"/") + rest if rest.strip(b"/") else to
