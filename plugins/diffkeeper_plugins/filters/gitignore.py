"""The gitignore filter: leaves out what a project's own ignore files name.

Owns which files are read and how their patterns come into a trace; what a pattern means is as in `glob`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from diffkeeper.plugins import EventFilter
from diffkeeper_plugins.filters.glob import keeps, spec


class GitignoreFilter(EventFilter):
    """Leaves out what the ignore files at the top of a root name, by default .diffkeeperignore and .gitignore.

    `files`: their names; those that are not there do not count. With several roots, the patterns of all
    apply below each. Ignore files further down, and git's own settings, are not read. A recording takes
    the patterns from the files as they are before the command, and keeps them as `patterns` (lines, and
    where they are given no file is read). .git itself is not left out by any of this: name it in
    .diffkeeperignore.
    """

    def __init__(
        self, files: tuple[str, ...] = (".diffkeeperignore", ".gitignore"), patterns: str | None = None
    ) -> None:
        self._files = files
        self._given = patterns is not None
        self._ignored = spec("gitignore", (patterns or "").split("\n"))

    def settled(self, given: Mapping[str, str], read: Callable[[str], Sequence[bytes]]) -> Mapping[str, str]:
        if self._given:
            return given
        lines = [
            line
            for name in self._files
            for content in read(name)
            for line in content.decode("utf-8", "surrogateescape").splitlines()
            if line.strip() and not line.startswith("#")
        ]
        return {**given, "patterns": "\n".join(lines)}

    def keep_path(self, path: bytes, is_dir: bool) -> bool:
        return keeps(self._ignored, path, is_dir)
