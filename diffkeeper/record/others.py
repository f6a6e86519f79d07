"""What processes that are not recorded change under the roots meanwhile: an editor, a daemon, a container's.

Owns a fingerprint of each thing that the baseline met, looking for what has another by the end, and telling whether
the command was it. What is to be done about it is for `verify`.

A fingerprint is of what stat() says: nobody can set a ctime, so what has the same is the same, but for stores to
mapped memory where a filesystem gives these no times (tmpfs).
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet

from ..wire import Wrong
from .deep import within_reach


def _fingerprint(name: bytes, status: os.stat_result) -> int:
    return hash((name, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns))


class Fingerprints:
    """Those of the roots, and of what is in each directory below: 8 bytes a thing, so that a million are some 10 MB."""

    def __init__(self) -> None:
        self._roots: dict[bytes, int] = {}
        self._directories: dict[bytes, tuple[int, array[int]]] = {}

    def note_root(self, path: bytes, status: os.stat_result) -> None:
        self._roots[path] = _fingerprint(path, status)

    def note(self, directory: bytes, device: int, entries: Iterable[tuple[bytes, os.stat_result | None]]) -> None:
        """Everything in a directory, by name; without a status, what is left out of the recording.

        `device`: what the directory is on. Where another is mounted there by the end, that is none of what is recorded.
        """
        known = [hash(name) if status is None else _fingerprint(name, status) for name, status in entries]
        self._directories[directory] = device, array("q", known)

    def changed(self, tell: Callable[[int, int], None]) -> Iterator[bytes]:
        """Paths that are new, or not as they were; what has gone shows in the directory that it was in.

        `tell` is given how many of how many directories have been looked at.
        """
        for path, known in self._roots.items():
            try:
                if _fingerprint(path, os.lstat(path)) != known:
                    yield path
            except OSError:
                yield path
        for number, (directory, (device, noted)) in enumerate(self._directories.items()):
            if number % 256 == 0:
                tell(number, len(self._directories))
            for name, status in _differing(directory, device, set(noted)):
                path = os.path.join(directory, name)
                if status.st_dev == device or not stat.S_ISDIR(status.st_mode) or self._is_known(path, status.st_dev):
                    yield path

    def _is_known(self, directory: bytes, device: int) -> bool:
        """Whether the same filesystem was mounted there before."""
        noted = self._directories.get(directory)
        return noted is not None and noted[0] == device


def _differing(directory: bytes, device: int, known: set[int]) -> Iterator[tuple[bytes, os.stat_result]]:
    """What is in a directory that is not known. A directory that has gone has none: that shows in the one it was in."""
    try:
        with within_reach(directory) as near, os.scandir(near) as entries:
            if os.stat(near).st_dev != device:
                return
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:  # it has gone, or was not readable before
                    continue
                if _fingerprint(entry.name, status) not in known and hash(entry.name) not in known:
                    yield entry.name, status
    except OSError:
        return


class Outside:
    """Who it was, where the trace does not say what is there: others, if nothing that was recorded can have been.

    `paths`: what changed, and no event touched.
    """

    def __init__(
        self, changed: Iterable[bytes], named: AbstractSet[bytes], emptied: AbstractSet[bytes] = frozenset()
    ) -> None:
        """`changed`: by `Fingerprints`; `named`: what events named, or changed; `emptied`: directories in which they
        named more than that.
        """
        parents = {path.rpartition(b"/")[0] for path in named} | emptied
        changed = frozenset(changed).difference(named)
        self.paths = changed - parents
        self._beside = changed & parents  # directories in which the command changed something, as others may have
        self._entered = {path.rpartition(b"/")[0] for path in self.paths}

    def explains(self, path: bytes, wrong: Wrong, untouched: Callable[[], bool]) -> bool:
        """Whether others made a path what it is: this one, or the directory that it was in.

        `untouched`: of what has gone, whether no event touched it; of a directory, whether such a thing has left it.
        """
        if path in self.paths or path.rpartition(b"/")[0] in self.paths:
            return True
        if path in self._beside:
            return wrong != Wrong.TIMES or path in self._entered or untouched()
        return wrong == Wrong.NAME and untouched()
