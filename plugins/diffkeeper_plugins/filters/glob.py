"""The glob filter: keeps or leaves out files by patterns of the kind that .gitignore has.

Owns what the patterns mean, for the filter `gitignore`, too; matching itself is pathspec's.
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
        self._exclude = spec("glob", exclude)
        self._include = spec("glob", include) if include else None

    def keep_path(self, path: bytes, is_dir: bool) -> bool:
        if not keeps(self._exclude, path, is_dir):
            return False
        return is_dir or self._include is None or not path.strip(b"/") or not keeps(self._include, path, False)


def keeps(excluded: GitIgnoreSpec, path: bytes, is_dir: bool) -> bool:
    """Whether patterns leave a path as it is; the root always."""
    text = path.decode("utf-8", "surrogateescape").lstrip("/")
    return not text or not excluded.match_file(text + "/" if is_dir else text)


def spec(name: str, patterns: Sequence[str]) -> GitIgnoreSpec:
    """The patterns of the filter `name`, compiled. Raises PluginError."""
    try:
        return GitIgnoreSpec.from_lines(patterns)
    except ValueError as error:
        raise PluginError(f"the filter {name!r} was given a wrong pattern: {error}") from error
