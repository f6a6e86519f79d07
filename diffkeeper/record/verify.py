"""After the command: is the recorded end what is really there? What is not is healed, and counted.

Compares every path under the roots that an event touched with the real filesystem, and emits HEAL
records for what differs. Reads the finished index; writes only records.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from ..model import Attrs
from ..progress import Progress
from ..store.reader import Reader
from ..wire import Flag, WireOp, encode
from . import baseline, scope
from .deep import within_reach

_MODE_MATTERS = 0o7777 | 0o170000
DIRECTORIES = 4096  # whose nodes are remembered while paths are compared
_LARGE = 16 << 20  # from here on holes are worth looking for


def _compared(xattrs: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """What programs set; a security module labels files by itself."""
    return {name: value for name, value in xattrs.items() if name.startswith((b"user.", b"system.posix_acl_"))}


def _in_order(paths: Iterable[bytes]) -> list[bytes]:
    """Sorted, all that is below a path right behind it."""
    return sorted(paths, key=lambda path: path.replace(b"/", b"\0"))


class Verifier:
    """One pass. `paths` and `mismatches` count; `emit` takes the pieces of HEAL records."""

    def __init__(
        self,
        reader: Reader,
        emit: Callable[[Iterable[baseline.Piece]], None],
        keep: Callable[[bytes, bool], bool],
        time: int,
        *,
        everything: bool = False,
    ) -> None:
        """`keep`: which paths (and is it a directory?) are recorded; `time`: monotonic ns for the records made here.

        `everything`: something was lost, nobody knows where, so not only what events name is compared.
        """
        self._reader = reader
        self._emit = emit
        self._time = time
        self._keep = keep
        self._everything = everything
        self._settled = set[bytes]()  # what was healed with all that is below it
        self._hasty = False  # bytes are compared only of what events changed
        self._changes = reader.changes()
        self._directories: dict[bytes, int | None] = {}
        self._roots = reader.session.roots
        self._trace = reader.session.trace
        self._healer = baseline.Baseline(self._roots, self._trace, emit, keep)
        self._pseudo = scope.pseudo_mountpoints()
        self.paths = 0
        self.mismatches = 0

    def touched(self) -> list[bytes]:
        """Paths under the roots that events named or changed, and the directories above them, parents first."""
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
        for path in list(found):
            above = os.path.dirname(path)
            while above not in found and above != b"/":
                found.add(above)
                above = os.path.dirname(above)
        return self._ours(found)

    def _ours(self, paths: Iterable[bytes]) -> list[bytes]:
        return _in_order(
            path
            for path in paths
            if any(scope.is_inside(path, root) for root in self._roots) and not scope.is_inside(path, self._trace)
        )

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
                if path != self._trace and path not in self._settled and self._keep(path, is_dir):
                    yield path
                    if is_dir and path not in self._pseudo:
                        pending.append(path)

    def run(self, progress: Progress) -> None:
        """Compare and heal everything touched, and what is in a directory that was not as it should be.

        If there was anything to heal, all the rest as well, as far as stat() tells: where one call was taken for
        another, what it did may be at a path that no event names.
        """
        paths = self.touched()
        seen = set(paths)
        while paths:
            further = self._round(paths, progress)
            paths = self._ours(further - seen)
            if not paths and self.mismatches and not self._everything:
                self._everything = self._hasty = True
                paths = self._ours(set(self._all()) - seen)
            seen.update(paths)

    def _round(self, paths: Sequence[bytes], progress: Progress) -> set[bytes]:
        """Compare and heal paths, parents first; says which others are to be looked at then."""
        further: set[bytes] = set()
        barred: bytes | None = None  # no directory: what the trace has below it goes with it, or a symlink leads on
        for done, path in enumerate(paths):
            if done % 256 == 0:
                progress.progress("verifying", done, len(paths))
            is_dir = os.path.isdir(path) and not os.path.islink(path)
            if (barred is not None and scope.is_inside(path, barred)) or not self._keep(path, is_dir):
                continue
            self.paths += 1
            outcome = self._compare(path)
            if not is_dir or outcome == "healed whole":
                barred = path
                if outcome != "same":
                    self._settled.add(path)
            elif outcome in ("same", "healed") and path not in self._pseudo:
                further.update(self._doubtful(path, all_of_it=outcome == "healed"))
        progress.progress("verifying", len(paths), len(paths))
        return further

    def _doubtful(self, path: bytes, *, all_of_it: bool) -> Iterator[bytes]:
        """What either has in a directory and the other not: where calls overtook each other, no event names it.

        `all_of_it`: it may be another directory than the trace says, so what else is in it counts as well.
        """
        node = self._node(path)
        recorded = {name for name, _ in self._reader.children(node, self._reader.last_seq)} if node else set()
        real: set[bytes] = set()
        with suppress(OSError), within_reach(path) as near:
            real.update(os.listdir(near))
        yield from (os.path.join(path, name) for name in (recorded | real if all_of_it else recorded ^ real))

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

    def _compare(self, path: bytes) -> str:
        try:
            with within_reach(path) as near:
                return self._compare_at(path, near)
        except (FileNotFoundError, NotADirectoryError):  # a directory of a long path is gone
            return self._compare_at(path, b"/proc/self/fd/gone")
        except OSError:
            return "unknown"

    def _compare_at(self, path: bytes, near: bytes) -> str:
        """`near`: where system calls reach it."""
        reader = self._reader
        node = self._node(path)
        recorded = reader.attrs(node, reader.last_seq) if node else None
        try:
            status = os.lstat(near)
        except (FileNotFoundError, NotADirectoryError):
            if recorded is None:
                return "same"
            self.mismatches += 1
            self._emit((encode(WireOp.HEAL, time=self._time, flags=Flag.GONE, payload=path + b"\0\0"),))
            return "gone"
        except OSError:
            return "unknown"
        if recorded is not None and node is not None and self._same(near, status, node, recorded):
            return "same"
        self.mismatches += 1
        if recorded is None and stat.S_ISDIR(status.st_mode):
            self._heal_tree(path)
            return "healed whole"
        self._healer.snapshot(path, status, WireOp.HEAL, self._time, near=near)
        return "healed"

    def _heal_tree(self, top: bytes) -> None:
        for path in self._real(top):
            with suppress(FileNotFoundError, NotADirectoryError), within_reach(path) as near:
                self._healer.snapshot(path, os.lstat(near), WireOp.HEAL, self._time, near=near)

    def _same(self, path: bytes, status: os.stat_result, node: int, recorded: Attrs) -> bool:
        if (status.st_mode ^ recorded.mode) & _MODE_MATTERS:
            return False
        if (status.st_uid, status.st_gid, status.st_mtime_ns) != (recorded.uid, recorded.gid, recorded.mtime):
            return False
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(path) == recorded.target
        if _compared(baseline.xattrs_of(path)) != _compared(recorded.xattrs):
            return False
        if not stat.S_ISREG(status.st_mode):
            return True
        if status.st_size != recorded.size:
            return False
        if self._hasty and node not in self._changes.nodes:
            return True
        large = status.st_size > _LARGE
        return self._same_data(path, node, status.st_size) if large else self._same_bytes(path, node)

    def _same_data(self, path: bytes, node: int, size: int) -> bool:
        """Where either has data: a file may be terabytes long and hold a few bytes."""
        reader = self._reader
        with open(path, "rb", buffering=0) as real:
            spans = sorted([*baseline.data_ranges(real.fileno(), size), *reader.extents(node, reader.last_seq)])
            done = 0
            for start, length in spans:
                for offset in range(max(start, done), start + length, baseline.CONTENT_PIECE):
                    done = min(offset + baseline.CONTENT_PIECE, start + length)
                    recorded = reader.read(node, reader.last_seq, offset, done - offset)
                    if os.pread(real.fileno(), done - offset, offset) != recorded:
                        return False
        return True

    def _same_bytes(self, path: bytes, node: int) -> bool:
        with open(path, "rb", buffering=0) as real:
            for recorded in self._reader.chunks(node, self._reader.last_seq, baseline.CONTENT_PIECE):
                if real.read(len(recorded)) != recorded:
                    return False
            return not real.read(1)
