"""A tree of paths with a value at each leaf, for exporters that follow how a tree changes.

Owns nothing but the structure: what is above a leaf is a directory, and one that is left empty is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

V = TypeVar("V")


class _Directory(dict[bytes, object]):
    """Name -> _Directory or value."""


class PathTree(Generic[V]):
    """Paths are relative, without empty parts. A leaf takes the place of what stood there or above it."""

    def __init__(self) -> None:
        self._top = _Directory()

    def put(self, path: bytes, value: V) -> None:
        self._parent(path)[path.rpartition(b"/")[2]] = value

    def get(self, path: bytes) -> object:
        """The value at a leaf; None where there is none."""
        above = self._at(path)
        return above.get(path.rpartition(b"/")[2]) if above is not None else None

    def take(self, path: bytes) -> list[tuple[bytes, V]]:
        """Remove a path and all below it; returns the leaves, by path. The empty path is everything."""
        if not path:
            taken: object = self._top
            self._top = _Directory()
            return list(_leaves(path, taken))
        parts = path.split(b"/")
        way = [self._top]
        for part in parts[:-1]:
            inner = way[-1].get(part)
            if not isinstance(inner, _Directory):
                return []
            way.append(inner)
        if parts[-1] not in way[-1]:
            return []
        taken = way[-1].pop(parts[-1])
        while len(way) > 1 and not way[-1]:
            way.pop()
            del way[-1][parts[len(way) - 1]]
        return list(_leaves(path, taken))

    def move(self, old: bytes, new: bytes) -> bool:
        """Give a directory or leaf another path; says whether there was one."""
        above, name = self._at(old), old.rpartition(b"/")[2]
        if above is None or name not in above:
            return False
        moved = above[name]
        self.take(old)
        self._parent(new)[new.rpartition(b"/")[2]] = moved
        return True

    def _at(self, path: bytes) -> _Directory | None:
        here: object = self._top
        for part in path.split(b"/")[:-1]:
            here = here.get(part) if isinstance(here, _Directory) else None
        return here if isinstance(here, _Directory) else None

    def _parent(self, path: bytes) -> _Directory:
        here = self._top
        for part in path.split(b"/")[:-1]:
            inner = here.get(part)
            if not isinstance(inner, _Directory):
                inner = here[part] = _Directory()
            here = inner
        return here


def _leaves(path: bytes, found: object) -> Iterator[tuple[bytes, V]]:
    pending = [(path, found)]
    while pending:
        where, here = pending.pop()
        if isinstance(here, _Directory):
            above = where + b"/" if where else b""
            pending += [(above + name, inner) for name, inner in sorted(here.items(), reverse=True)]
        else:
            yield where, here  # type: ignore[misc]  # no directory: a value
