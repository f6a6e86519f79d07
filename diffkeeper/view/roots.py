"""Where the recorded roots stand, and so what the top of a moment is.

Owns the layout rule: one root is itself the top of every moment; of several, each stands at its
absolute path below a common top. Pure path arithmetic: it asks no trace.
"""

from __future__ import annotations

from collections.abc import Sequence


def join(directory: bytes, name: bytes) -> bytes:
    """`directory` (absolute) with a name or relative path below it."""
    return directory.rstrip(b"/") + b"/" + name


class Roots:
    """The roots of one trace: absolute paths, none inside another.

    `top` is the absolute path that a moment's top directory stands for. `ways` are the directories
    above several roots, with the names in each that lead to a root; nothing else is seen there.
    """

    def __init__(self, roots: Sequence[bytes]) -> None:
        self.roots = tuple(roots)
        self.top = self.roots[0] if len(self.roots) == 1 else b"/"
        names: dict[bytes, set[bytes]] = {}
        for root in self.roots if len(self.roots) > 1 else ():
            above = b"/"
            for name in root.strip(b"/").split(b"/"):
                names.setdefault(above, set()).add(name)
                above = join(above, name)
        self.ways = {path: tuple(sorted(below)) for path, below in names.items()}

    def inside(self, path: bytes) -> bool:
        """Whether a canonical absolute path is a root or below one."""
        return any(path == root or path.startswith(root.rstrip(b"/") + b"/") for root in self.roots)

    def seen(self, path: bytes) -> bool:
        """Whether a canonical absolute path can be in a moment at all."""
        return self.inside(path) or path in self.ways

    def display(self, path: bytes) -> bytes:
        """`path` as people write it: relative to the top when it is below a single root, else as it is."""
        if len(self.roots) != 1 or not self.inside(path):
            return path
        return path[len(self.top.rstrip(b"/")) + 1 :] or b"."
