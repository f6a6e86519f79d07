"""A trace against the truth: each marked moment, entry by entry.

Owns `Wrong`, one moment that is not what was there, and reading a moment's tree from the store.
What the store says has not changed since the last moment is not read again; a sample of the moments is
read anew all the same, and some through the mount.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import json
import os
import random
import stat
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffkeeper
from diffkeeper.model import Fidelity
from diffkeeper.store.reader import Reader
from tests.system import harness

from .truth import HUGE, Entry, Scanner, Tree, digest_of

Difference = tuple[Entry | None, Entry | None]
"""(recorded, real)."""

_LABELS = (
    "security.selinux", "security.SMACK", "security.apparmor", "security.ima", "security.evm", "trusted.SGI_ACL_",
)  # fmt: skip
"""What security modules give files by themselves, and where XFS keeps its ACLs."""


@dataclass(frozen=True)
class Wrong:
    """A moment that is not what was there: of each path, what was recorded and what was real."""

    number: int
    operation: dict[str, Any] | None
    outcome: dict[str, Any]
    paths: dict[str, Difference]
    marked: bool
    """Every entry that differs in content, size or times says by itself that it is not exact."""

    def signature(self) -> tuple[str, ...]:
        """What stays the same while a script is made small: the kinds of difference at the first path."""
        return kinds_of(next(iter(self.paths.values())))

    def __str__(self) -> str:
        lines = [f"moment {self.number}, after {json.dumps(self.operation)}: {self.outcome or 'done'}"]
        for path, (recorded, real) in list(self.paths.items())[:6]:
            lines.append(f"  {path!r}")
            if recorded is None or real is None:
                lines.append(f"    recorded {recorded}\n    real     {real}")
                continue
            lines += [
                f"    {name}: recorded {getattr(recorded, name)!r}, real {getattr(real, name)!r}"
                for name in kinds_of((recorded, real))
            ]
        return "\n".join(lines)


def kinds_of(difference: Difference) -> tuple[str, ...]:
    """Which fields are not the same."""
    recorded, real = difference
    if recorded is None or real is None:
        return ("missing" if recorded is None else "extra",)
    return tuple(name for name in Entry._fields if getattr(recorded, name) != getattr(real, name))


@dataclass
class Verdict:
    """Of one recording."""

    moments: int = 0
    sampled: int = 0  # of these, read again without a cache
    mounted: int = 0  # of these, read through the mount
    wrong: list[Wrong] = field(default_factory=list)
    marked: list[Wrong] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)  # operation -> how often it succeeded
    onsets: dict[tuple[str, ...], list[int]] = field(default_factory=dict)
    """What went wrong anew, by operation and kinds of difference: the moments. Most wrong moments only inherit."""


def truths(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any] | None, dict[str, Any], Tree]]:
    """(number, operation, outcome, the tree) of each line that a worker wrote; always the same tree object."""
    tree: Tree = {}
    for line in lines:
        told = json.loads(line)
        for path in told["gone"]:
            del tree[path]
        tree.update({path: entry_of(values) for path, values in told["changed"].items()})
        yield told["n"], told["operation"], told["outcome"], tree


def entry_of(values: list[Any]) -> Entry:
    """An entry as a worker told it."""
    return Entry._make([*values[:9], tuple((name, value) for name, value in values[9])])


def recorded_tree(reader: Reader, top: int, seq: int) -> tuple[Tree, dict[str, Fidelity]]:
    """The tree below a node at a moment, and how sure each entry is, as any reader would get it."""
    tree: Tree = {}
    trust: dict[str, Fidelity] = {}
    pending = [(".", top)]
    while pending:
        path, node = pending.pop()
        tree[path], trust[path] = _recorded(reader, node, seq)
        if stat.S_ISDIR(tree[path].mode):
            above = "" if path == "." else path + "/"
            pending += [(above + os.fsdecode(name), child) for name, child in reader.children(node, seq)]
    return tree, trust


class Film:
    """The same for one moment after the other: what the store says does not change from the last is not asked for."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._entries: dict[int, tuple[int, Entry, Fidelity]] = {}  # node -> until when, what
        self._changes: dict[int, list[int]] = {}
        self._children: dict[int, tuple[int, list[tuple[str, int]]]] = {}
        self._namings: dict[int, list[int]] = {}

    def tree(self, top: int, seq: int) -> tuple[Tree, dict[str, Fidelity]]:
        """As `recorded_tree`. Moments must come in order."""
        tree: Tree = {}
        trust: dict[str, Fidelity] = {}
        pending = [(".", top)]
        while pending:
            path, node = pending.pop()
            known = self._entries.get(node)
            if known is None or seq >= known[0]:
                until = self._next(self._changes, node, seq)
                known = self._entries[node] = (until, *_recorded(self._reader, node, seq))
            tree[path], trust[path] = known[1:]
            if not stat.S_ISDIR(known[1].mode):
                continue
            inside = self._children.get(node)
            if inside is None or seq >= inside[0]:
                found = [(os.fsdecode(name), child) for name, child in self._reader.children(node, seq)]
                inside = self._children[node] = self._next(self._namings, node, seq), found
            above = "" if path == "." else path + "/"
            pending += [(above + name, child) for name, child in inside[1]]
        return tree, trust

    def _next(self, table: dict[int, list[int]], node: int, seq: int) -> int:
        """The next event after `seq` at which a node changes, or the names in it."""
        seqs = table.get(node)
        if seqs is None:
            reader = self._reader
            changes = reader.versions(node) if table is self._changes else {at for _, at, _ in reader.namings(node)}
            seqs = table[node] = sorted(changes)
        at = bisect.bisect_right(seqs, seq)
        return seqs[at] if at < len(seqs) else 1 << 62


def _recorded(reader: Reader, node: int, seq: int) -> tuple[Entry, Fidelity]:
    attrs = reader.attrs(node, seq)
    assert attrs is not None, f"node {node} has a name and is nothing"
    kind = stat.S_IFMT(attrs.mode)
    entry = Entry(
        mode=attrs.mode,
        uid=attrs.uid,
        gid=attrs.gid,
        size=attrs.size if kind == stat.S_IFREG else 0,
        mtime=attrs.mtime,
        nlink=attrs.nlink,
        rdev=attrs.rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
        target=os.fsdecode(attrs.target) if kind == stat.S_IFLNK else "",
        digest=_digest(reader, node, seq, attrs.size) if kind == stat.S_IFREG else "",
        xattrs=tuple(sorted((os.fsdecode(name), value.hex()) for name, value in attrs.xattrs.items())),
    )
    return entry, attrs.fidelity


def _digest(reader: Reader, node: int, seq: int, size: int) -> str:
    return digest_of(size, lambda: reader.extents(node, seq), lambda at, length: reader.read(node, seq, at, length))


def differences(
    recorded: Tree, real: Tree, *, trouble: Callable[[Entry], Entry]
) -> dict[str, Difference]:
    """Paths that are not the same in both. `trouble` takes out of an entry what a filesystem makes up."""
    if recorded == real:
        return {}
    found: dict[str, Difference] = {}
    for path in sorted({*recorded, *real}):
        one, other = recorded.get(path), real.get(path)
        if one is None or other is None or trouble(one) != trouble(other):
            found[path] = one, other
    return found


def plain(entry: Entry, *, links: bool = True) -> Entry:
    """Without what the filesystem or a security module made up. `links`: a directory's link count is a fact."""
    if any(name.startswith(_LABELS) for name, _ in entry.xattrs):
        entry = entry._replace(xattrs=tuple(pair for pair in entry.xattrs if not pair[0].startswith(_LABELS)))
    return entry if links or not stat.S_ISDIR(entry.mode) else entry._replace(nlink=1)


def compare(
    trace: Path, lines: Iterable[str], *, sample: float = 0.02, mounts: int = 5, first: bool = False, links: bool = True
) -> Verdict:
    """Hold every mark against the truth. `sample`: share of moments read without a cache; `mounts`: how many are
    read through the mount as well; `first`: stop at the first wrong one; `links`: compare those of directories."""
    trouble = functools.partial(plain, links=links)
    verdict, chance = Verdict(), random.Random(0)
    to_mount: dict[int, Tree] = {}
    before: dict[str, Difference] = {}
    with diffkeeper.open(trace) as opened:
        reader, root = opened.reader, opened.roots[0]
        marks = {mark.name: mark.seq for mark in opened.marks()}
        film = Film(reader)
        for number, operation, outcome, real in truths(lines):
            seq = marks[f"m{number}"]
            top = reader.resolve(root, seq)
            assert top is not None, "the root is gone"
            fresh = chance.random() < sample
            recorded, trust = recorded_tree(reader, top, seq) if fresh else film.tree(top, seq)
            verdict.moments += 1
            verdict.sampled += fresh
            if operation is not None and "error" not in outcome:
                verdict.outcomes[operation["op"]] = verdict.outcomes.get(operation["op"], 0) + 1
            paths = differences(recorded, real, trouble=trouble)
            for path, difference in paths.items():
                if before.get(path) != difference and operation is not None:
                    onset = operation["op"], str(operation.get("how", "")), *kinds_of(difference)
                    verdict.onsets.setdefault(onset, []).append(number)
            before = paths
            if paths:
                marked = all(
                    one is not None and other is not None and trust[path] != Fidelity.EXACT
                    and one._replace(size=0, mtime=0, digest="") == other._replace(size=0, mtime=0, digest="")
                    for path, (one, other) in paths.items()
                )  # fmt: skip
                (verdict.marked if marked else verdict.wrong).append(Wrong(number, operation, outcome, paths, marked))
                if first and not marked:
                    return verdict
            elif chance.random() < 0.02 and len(to_mount) < mounts:
                to_mount[number] = dict(real)
    if to_mount:
        with mounted(trace, trace.parent / "mounted") as point:
            for number, real in to_mount.items():
                verdict.mounted += 1
                if paths := _through_mount(point / f"@m{number}", real, trouble):
                    verdict.wrong.append(Wrong(number, {"op": "mount"}, {}, paths, marked=False))
    return verdict


@contextlib.contextmanager
def mounted(trace: Path, point: Path) -> Iterator[Path]:
    point.mkdir(exist_ok=True)
    result = harness.run("mount", trace, point)
    assert result.returncode == 0, result.stderr
    try:
        yield point
    finally:
        subprocess.run([*harness.DIFFKEEPER, "umount", point], check=True, capture_output=True)
        point.rmdir()


def _through_mount(moment: Path, real: Tree, trouble: Callable[[Entry], Entry]) -> dict[str, Difference]:
    """What differs when a moment is read as any program would read it."""
    seen, _ = Scanner(os.fsencode(moment)).scan()

    def without_huge(entry: Entry) -> Entry:
        entry = trouble(entry)
        return entry._replace(digest="") if entry.size >= HUGE else entry

    return differences(seen, real, trouble=without_huge)
