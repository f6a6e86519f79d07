"""The glob filter: keeps or leaves out files by patterns of the kind that .gitignore has.

Owns what the patterns mean; matching itself is pathspec's.
"""

from __future__ import annotations

from collections.abc import Sequence

from pathspec import GitIgnoreSpec

from diffkeeper.errors import PluginError
from diffkeeper.plugins import EventFilter


class GlobFilter(EventFilter):
    """Leaves out files that match `exclude`, and, where `include` is given, all that do not match it.

    Patterns are those of .gitignore: without a slash a name at any depth, with one a path below
    the root, `**` any directories, a slash at the end only directories. A directory that is
    excluded takes along all that is in it. Directories are never left out for want of an include.
    """

    def __init__(self, exclude: tuple[str, ...] = (), include: tuple[str, ...] = ()) -> None:
        if not exclude and not include:
            raise PluginError("the filter 'glob' needs exclude=PATTERN or include=PATTERN")
        self._exclude = _spec(exclude)
        self._include = _spec(include) if include else None

    def keep_path(self, path: bytes, is_dir: bool) -> bool:
        text = path.decode("utf-8", "surrogateescape").lstrip("/")
        if not text:
            return True
        name = text + "/" if is_dir else text
        if self._exclude.match_file(name):
            return False
        return is_dir or self._include is None or self._include.match_file(name)


def _spec(patterns: Sequence[str]) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines(patterns)
    except ValueError as error:
        raise PluginError(f"the filter 'glob' was given a wrong pattern: {error}") from error
