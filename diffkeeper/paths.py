"""Path patterns as `diff` and `export` take them, and the paths that an event is about.

Owns what a pattern means; knows nothing of trees. A pattern is a glob in which `*` crosses
slashes. Without a slash it means a name at any depth; with one, a path below a root; with one in
front, an absolute path. Whatever lies under a directory that matches, matches.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence

from .model import Event, Op


def below_root(path: bytes, roots: Iterable[bytes]) -> bytes | None:
    """`path` relative to the root it is in, empty for the root itself; None when it is in none."""
    for root in roots:
        prefix = root.rstrip(b"/") + b"/"
        if path == root or path + b"/" == prefix:
            return b""
        if path.startswith(prefix):
            return path[len(prefix) :]
    return None


def paths_of(event: Event) -> tuple[bytes, ...]:
    """The absolute paths that an event is about: none, one, or two."""
    if event.to is not None and event.op in (Op.RENAME, Op.EXCHANGE, Op.LINK):
        return event.path, event.to
    return (event.path,) if event.path else ()


class PathPatterns:
    """Matches absolute paths against patterns; without any, everything matches."""

    def __init__(self, patterns: Sequence[bytes], roots: Sequence[bytes]) -> None:
        self._roots = roots
        cleaned = [_clean(pattern) for pattern in patterns]
        self._everything = not patterns or b"" in cleaned
        self._absolute = [_compile(pattern) for pattern in cleaned if pattern.startswith(b"/")]
        self._names = [_compile(pattern) for pattern in cleaned if b"/" not in pattern]
        self._relative = [_compile(pattern) for pattern in cleaned if b"/" in pattern and not pattern.startswith(b"/")]

    def match(self, path: bytes) -> bool:
        """Whether the path, or a directory above it, matches."""
        while not self.match_itself(path):
            above = path.rpartition(b"/")[0]
            if not above:
                return False
            path = above
        return True

    def match_itself(self, path: bytes) -> bool:
        """Whether this very path matches, whatever is above it."""
        if self._everything:
            return True
        if any(pattern.match(path) for pattern in self._absolute):
            return True
        relative = below_root(path, self._roots)
        if not relative:
            return False
        name = relative.rpartition(b"/")[2]
        return any(p.match(name) for p in self._names) or any(p.match(relative) for p in self._relative)


def _clean(pattern: bytes) -> bytes:
    """Without what a shell's completion and habit add: `./`, slashes at the end."""
    while pattern.startswith(b"./"):
        pattern = pattern[2:].lstrip(b"/")
    stripped = pattern.rstrip(b"/")
    return b"" if stripped == b"." or (pattern and not stripped) else stripped


def _compile(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(fnmatch.translate(pattern.decode("latin-1")).encode("latin-1"))
