"""After the command: is the recorded end what is really there? What is not is healed, and counted.

Compares every path under the roots that an event touched, or that others have changed, with the real
filesystem, and emits HEAL records for what differs. Reads the finished index; writes only records.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import NamedTuple

from ..model import NO_SEQ, Attrs
from ..progress import Progress, Silent
from ..store.reader import Reader
from ..store.session import is_trace
from ..wire import Flag, WireOp, Wrong, encode
from . import baseline, scope
from .comparing import wrong
from .deep import within_reach
from .others import Outside

DIRECTORIES = 4096  # whose nodes are remembered while paths are compared
_GOES_ON = frozenset(("same", "healed", "unknown"))  # with what is in a directory


def _doubtful(directory: bytes, real: set[bytes], recorded: set[bytes], *, all_of_it: bool) -> Iterator[bytes]:
    """What either has in a directory and the other not: where calls overtook each other, no event names it.

    `all_of_it`: it may be another directory than the trace says, so what else is in it counts as well.
    """
    yield from (b"%b/%b" % (directory, name) for name in (recorded | real if all_of_it else recorded ^ real))


def _is_untouched(attrs: Attrs) -> bool:
    return attrs.version == attrs.changed == NO_SEQ


class _Directory(NamedTuple):
    """One to be gone through. `outcome`: of comparing it, if it was; it is below "", the directory "/"."""

    path: bytes
    node: int | None
    outcome: str = ""


class Verifier:
    """One pass. `paths`, `mismatches` and `others` count; `emit` takes the pieces of HEAL records."""

    def __init__(
        self,
        reader: Reader,
        emit: Callable[[Iterable[baseline.Piece]], None],
        keep: Callable[[bytes, bool], bool],
        time: int,
        *,
        changed: Iterable[bytes] = (),
        everything: bool = False,
    ) -> None:
        """`keep`: which paths (and is it a directory?) are recorded; `time`: monotonic ns for the records made here.

        `changed`: paths that are not as they were before the command. Where no event touched them, it was others.
        `everything`: something was lost, nobody knows where, so not only what events name is compared, and who it was
        is not known.
        """
        self._reader = reader
        self._emit = emit
        self._time = time
        self._keep = keep
        self._everything = everything
        self._changed = () if everything else changed
        self._outside: Outside | None = None
        self._settled = set[bytes]()  # what was healed with all that is below it
        self._hasty = False  # bytes are compared only of what events changed
        self._directories: dict[bytes, int | None] = {}
        self._roots = reader.session.roots
        self._below = tuple(root.rstrip(b"/") + b"/" for root in self._roots)
        self._traces = {reader.session.trace, *reader.session.traces}
        self._in_traces = tuple(trace + b"/" for trace in self._traces)
        self._progress: Progress = Silent()
        self._seen = 0  # how many paths are to be compared, as far as is known
        self._healer = baseline.Baseline(self._roots, self._traces, emit, keep)
        self._pseudo = scope.pseudo_mountpoints()
        self.paths = 0
        self.mismatches = 0
        self.others = 0
        self._emptied = set[bytes]()  # directories from which something has gone that is not in _changes any more
        with reader.held():
            self._changes = reader.changes(self._lasting)

    def _lasting(self, paths: set[bytes]) -> set[bytes]:
        """Those under the roots that the trace has at its end, or that are there; what has gone is left to the
        directory that it was in, whose names are compared. Of a service's temporary files there may be millions.
        """
        names: dict[bytes, list[bytes]] = {}
        for path in paths:
            above, _, name = path.rpartition(b"/")
            names.setdefault(above, []).append(name)
        kept = set[bytes]()
        for above, used in names.items():
            if not self._is_within(above or b"/"):
                kept.update(b"%b/%b" % (above, name) for name in used if self._is_within(b"%b/%b" % (above, name)))
                continue
            node, there = self._directory(above), set[bytes]()
            with suppress(FileNotFoundError, NotADirectoryError):
                try:
                    with within_reach(above) as near:
                        there.update(os.listdir(near or b"/"))
                except PermissionError:
                    there.update(used)
            last = self._reader.last_seq
            lasting = {name for name in used if name in there or (node and self._reader.lookup(node, name, last))}
            kept.update(b"%b/%b" % (above, name) for name in lasting)
            if len(lasting) < len(used):
                kept.add(above or b"/")
                self._emptied.add(above or b"/")
        return kept

    def touched(self) -> list[bytes]:
        """Paths under the roots that events named or changed, or others, and the directories above, parents first."""
        found = set(self._changes.paths)
        walked = set[bytes]()
        for moved in sorted(self._changes.moved):
            # Events name what is in a directory as it was called before; or after, if calls overtook each other.
            for path, node, is_dir in self._recorded(moved) if moved not in walked else ():
                if is_dir:
                    walked.add(path)
                elif node in self._changes.nodes:
                    found.add(path)
        found |= walked
        if self._everything:
            found.update(self._all())
        else:
            self._outside = Outside(self._changed, found, self._emptied)
            found |= self._outside.paths
        for path in list(found):
            above = path.rpartition(b"/")[0]
            while above and above not in found:
                found.add(above)
                above = above.rpartition(b"/")[0]
        return self._ours(found)

    def _ours(self, paths: Iterable[bytes]) -> list[bytes]:
        """Those under the roots, all that is below a path right behind it."""
        ours = [
            path
            for path in paths
            if self._is_within(path) and path not in self._traces and not path.startswith(self._in_traces)
        ]
        return sorted(ours, key=lambda path: path.replace(b"/", b"\0"))

    def _is_within(self, path: bytes) -> bool:
        """Whether a path is a root, or below one."""
        return path.startswith(self._below) or path in self._roots

    def _all(self) -> Iterator[bytes]:
        for root in self._roots:
            yield from (path for path, _, _ in self._recorded(root))
            yield from self._real(root)

    def _recorded(self, top: bytes) -> Iterator[tuple[bytes, int, bool]]:
        """What the trace has at its end from a path down: path, node, whether it is a directory."""
        reader, seq = self._reader, self._reader.last_seq
        node = self._node(top)
        pending = [(top, node)] if node else []
        while pending:
            path, node = pending.pop()
            attrs = reader.attrs(node, seq)
            is_dir = attrs is not None and attrs.is_dir
            yield path, node, is_dir
            if is_dir and path not in self._settled:
                pending += [(os.path.join(path, name), child) for name, child in reader.children(node, seq)]

    def _real(self, top: bytes) -> Iterator[bytes]:
        """All paths that are recorded, as they are found from a directory down, parents first."""
        yield top
        pending = [top]
        while pending:
            directory = pending.pop()
            found: list[tuple[bytes, bool]] = []
            with suppress(OSError), within_reach(directory) as near, os.scandir(near) as entries:
                found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
            for name, is_dir in found:
                path = os.path.join(directory, name)
                if path in self._traces or (is_dir and is_trace(path)):
                    continue
                if path not in self._settled and self._keep(path, is_dir):
                    yield path
                    if is_dir and path not in self._pseudo:
                        pending.append(path)

    def run(self, progress: Progress) -> None:
        """Compare and heal everything touched, and what is in a directory that was not as it should be.

        If there was anything to heal, all the rest as well, as far as stat() tells: where one call was taken for
        another, what it did may be at a path that no event names.
        """
        self._progress = progress
        with self._reader.held():
            paths = self.touched()
            seen = set(paths)
            while paths:
                self._seen = len(seen)
                further = self._round(paths)
                paths = self._ours(further - seen)
                if not paths and self.mismatches > self.others and not self._everything:
                    self._everything = self._hasty = True
                    paths = self._ours(set(self._all()) - seen)
                seen.update(paths)
        progress.progress("verifying", self._seen, self._seen)

    def _round(self, paths: Sequence[bytes]) -> set[bytes]:
        """Compare and heal paths, parents first; says which others are to be looked at then.

        One directory after the other, and from a path only to those below it where it is a directory: what the trace
        has below anything else goes with that, and a symlink leads on.
        """
        names: dict[bytes, list[bytes]] = {}
        for path in paths:
            above, _, name = path.rpartition(b"/")
            names.setdefault(above, []).append(name)
        begins = names.keys() - set(paths)
        pending = [_Directory(path, self._directory(path)) for path in reversed(names) if path in begins]
        further = set[bytes]()
        while pending:
            directory = pending.pop()
            pending += reversed(self._within(directory, names.get(directory.path, []), further))
        return further

    def _within(self, directory: _Directory, names: Sequence[bytes], further: set[bytes]) -> list[_Directory]:
        """Compare these names in a directory; says which are directories to go on with."""
        path, node, outcome = directory
        recorded = dict(self._reader.children(node, self._reader.last_seq)) if node else {}
        found: list[_Directory] = []
        with ExitStack() as held:
            near = b"/proc/self/fd/gone"
            with suppress(OSError):  # a directory of a long path is gone
                near = held.enter_context(within_reach(path))
            real = self._listed(path, near)
            for name in names:
                if not name:  # "/" is in itself
                    outcome = self._compare(b"/", b"/", node)[0]
                    continue
                child = recorded.get(name)
                there = real is None or name in real
                result, is_dir = self._compare(b"%b/%b" % (path, name), b"%b/%b" % (near, name), child, there=there)
                if is_dir and result in _GOES_ON:
                    found.append(_Directory(b"%b/%b" % (path, name), child, result))
            if outcome in ("same", "healed") and path not in self._pseudo:
                further.update(_doubtful(path, real or set(), set(recorded), all_of_it=outcome == "healed"))
        return found

    def _listed(self, path: bytes, near: bytes) -> set[bytes] | None:
        """The names in a directory of ours; None where that cannot be said.

        Where upper and lower case are the same, lstat() finds what is there under other names than this.
        """
        if path in self._pseudo or not self._is_within(path or b"/"):
            return None
        try:
            return set(os.listdir(near or b"/"))
        except OSError:
            return None

    def _node(self, path: bytes) -> int | None:
        parent, _, name = path.rpartition(b"/")
        directory = self._directory(parent)
        if not name or directory is None:
            return directory
        return self._reader.lookup(directory, name, self._reader.last_seq)

    def _directory(self, path: bytes) -> int | None:
        """The index stays as it is while it is compared, and a directory comes after the one that it is in."""
        known = self._directories
        if path not in known:
            above, _, name = path.rpartition(b"/")
            if len(known) == DIRECTORIES:
                known.clear()
            if above in known and name:
                parent = known[above]
                known[path] = None if parent is None else self._reader.lookup(parent, name, self._reader.last_seq)
            else:
                known[path] = self._reader.resolve(path, self._reader.last_seq)
        return known[path]

    def _compare(self, path: bytes, near: bytes, node: int | None, *, there: bool = True) -> tuple[str, bool]:
        """How a path is, and whether a directory stands there. `near`: where system calls reach it; `node`: what
        the trace has there; `there`: whether anything is."""
        status = None
        try:
            with suppress(FileNotFoundError, NotADirectoryError):
                status = os.lstat(near) if there else None
        except OSError:
            self.paths += self._keep(path, False)
            return "unknown", False
        is_dir = status is not None and stat.S_ISDIR(status.st_mode)
        if not self._keep(path, is_dir) or (is_dir and not node and is_trace(near)):
            return "left out", is_dir
        self.paths += 1
        if self.paths % 256 == 0:
            self._progress.progress("verifying", self.paths, self._seen)
        try:
            outcome = self._outcome(path, near, status, node)
        except (FileNotFoundError, NotADirectoryError):  # it went while we looked
            outcome = self._outcome(path, near, None, node)
        except OSError:
            outcome = "unknown"
        if outcome != "same" and (not is_dir or outcome == "healed whole"):
            self._settled.add(path)
        return outcome, is_dir

    def _outcome(self, path: bytes, near: bytes, status: os.stat_result | None, node: int | None) -> str:
        recorded = self._reader.attrs(node, self._reader.last_seq) if node else None
        if status is None:
            if recorded is None:
                return "same"
            wrong_in = self._counted(path, Wrong.NAME, lambda: _is_untouched(recorded))
            self._emit((encode(
                WireOp.HEAL, time=self._time, flags=Flag.GONE, length=wrong_in, payload=path + b"\0\0",
            ),))  # fmt: skip
            return "gone"
        found = Wrong.NAME
        if recorded is not None and node is not None:
            bytes_too = not self._hasty or node in self._changes.nodes
            found = wrong(self._reader, near, status, node, recorded, bytes_too=bytes_too)
            if not found:
                return "same"
        found = self._counted(path, found, lambda: self._has_lost(near, node))
        if recorded is None and stat.S_ISDIR(status.st_mode):
            self._heal_tree(path, found)
            return "healed whole"
        self._healer.snapshot(path, status, WireOp.HEAL, self._time, near=near, wrong=found)
        return "healed"

    def _counted(self, path: bytes, found: Wrong, untouched: Callable[[], bool]) -> Wrong:
        """In what a path was wrong, and whether others were it. `untouched`: see `Outside.explains`."""
        self.mismatches += 1
        if self._outside is None or not self._outside.explains(path, found, untouched):
            return found
        self.others += 1
        return found | Wrong.OTHERS

    def _has_lost(self, near: bytes, node: int | None) -> bool:
        """Whether something has gone from a directory that no event touched."""
        recorded = self._reader.entries(node, self._reader.last_seq) if node else ()
        try:
            real = set(os.listdir(near)) if recorded else set()
        except OSError:
            return False
        return any(name not in real and _is_untouched(attrs) for name, _, attrs in recorded)

    def _heal_tree(self, top: bytes, found: Wrong) -> None:
        for path in self._real(top):
            with suppress(FileNotFoundError, NotADirectoryError), within_reach(path) as near:
                self._healer.snapshot(path, os.lstat(near), WireOp.HEAL, self._time, near=near, wrong=found)
