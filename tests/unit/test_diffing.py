"""What changed between two moments: told in changes, checked against whole trees."""

from __future__ import annotations

import random
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import diffkeeper
from diffkeeper.diffing import Change, Kind
from diffkeeper.trace import Trace
from tests.builder import TraceBuilder

Tree = dict[bytes, tuple[Any, ...]]
Line = tuple[str, str] | tuple[str, str, str]


def started(path: Path) -> TraceBuilder:
    builder = TraceBuilder(path)
    builder.baseline(
        {
            "log": b"one\n",
            "src/": None,
            "src/main.c": b"int main;\n",
            "src/lib/": None,
            "src/lib/a.c": b"a",
            "src/lib/b.c": b"b",
            "one": b"linked",
            "two": {"link": "one"},
            "far/three": {"link": "one"},
            "site/index": b"old site",
            "site/same": b"the same",
            "link": {"target": "log"},
        }
    )
    builder.begin()
    return builder


def finished(builder: TraceBuilder) -> Trace:
    builder.end()
    return diffkeeper.open(builder.build())


def listed(trace: Trace, changes: list[Change]) -> list[Line]:
    """(kind, path) or (kind, old path, path), as text."""
    lines: list[Line] = []
    for change in changes:
        path = trace.display(change.path).decode()
        former = change.renamed_from if change.kind is Kind.RENAMED else None
        lines.append((change.kind, path) if former is None else (change.kind, trace.display(former).decode(), path))
    return lines


def added_written_removed(b: TraceBuilder) -> None:
    b.create("new", b"text")
    b.write("log", b"two\n")
    b.unlink("src/main.c")
    b.mkdir("dir")
    b.create("dir/inside")


def nothing_that_stays(b: TraceBuilder) -> None:
    b.create("tmp", b"text")
    b.unlink("tmp")
    b.mkdir("d")
    b.rmdir("d")
    b.rename("log", "log2")
    b.rename("log2", "log")


def same_bytes_again(b: TraceBuilder) -> None:
    mtime = b.node("log").mtime
    b.rewrite("log", b"one\n")
    b.utime("log", mtime)


def replaced_by_rename(b: TraceBuilder) -> None:
    b.create("log.tmp", b"three\n")
    b.rename("log.tmp", "log")


def rotated(b: TraceBuilder) -> None:
    b.rename("log", "log.1")
    b.create("log", b"fresh\n")


def moved_directory(b: TraceBuilder) -> None:
    b.rename("src", "source")
    b.write("source/lib/a.c", b"more")
    b.rename("source/lib/b.c", "source/c.c")


def moved_twice_with_work_between(b: TraceBuilder) -> None:
    b.mkdir("x")
    b.rename("src", "x/src")
    b.write("x/src/lib/a.c", b"more")
    b.rename("x/src/lib", "lib")
    b.rename("x/src", "src")
    b.rmdir("x")


def deployed(b: TraceBuilder) -> None:
    b.mkdir("site.new")
    b.create("site.new/index", b"new site")
    b.create("site.new/more", b"more")
    b.create("site.new/same", b"the same")
    b.utime("site.new/same", b.node("site/same").mtime)
    for name in ("site/index", "site/same"):
        b.unlink(name)
    b.rmdir("site")
    b.rename("site.new", "site")


def swapped_directories(b: TraceBuilder) -> None:
    b.rename("src", "site", flags=2)


def swapped_files(b: TraceBuilder) -> None:
    b.rename("log", "src/main.c", flags=2)


def only_attributes(b: TraceBuilder) -> None:
    b.chmod("log", 0o600)
    b.chown("src", 5, 5)
    b.utime("src/main.c", 12345)


def other_types(b: TraceBuilder) -> None:
    b.unlink("log")
    b.symlink("one", "log")
    b.unlink("link")
    b.symlink("src", "link")
    b.unlink("src/lib/a.c")
    b.mkdir("src/lib/a.c")


def through_one_of_three_names(b: TraceBuilder) -> None:
    b.write("two", b" more")


def one_of_three_names_goes(b: TraceBuilder) -> None:
    b.write("two", b" more")
    b.unlink("two")


def another_name(b: TraceBuilder) -> None:
    b.link("log", "log-linked")


def outside_the_root(b: TraceBuilder) -> None:
    b.create("/opt/elsewhere", b"not in any moment")


def moved_out_and_in(b: TraceBuilder) -> None:
    b.rename("/opt/root/src", "/opt/src")
    b.mkdir("/opt/incoming")
    b.create("/opt/incoming/file", b"x")
    b.rename("/opt/incoming", "/opt/root/incoming")


CASES: list[tuple[Callable[[TraceBuilder], None], list[Line]]] = [
    (
        added_written_removed,
        [("added", "dir"), ("added", "dir/inside"), ("modified", "log"), ("added", "new"), ("removed", "src/main.c")],
    ),
    (nothing_that_stays, []),
    (same_bytes_again, []),
    (replaced_by_rename, [("modified", "log")]),
    (rotated, [("modified", "log"), ("added", "log.1")]),
    (
        moved_directory,
        [
            ("renamed", "src", "source"),
            ("renamed", "src/lib/b.c", "source/c.c"),
            ("modified", "source/lib/a.c"),
        ],
    ),
    (moved_twice_with_work_between, [("renamed", "src/lib", "lib"), ("modified", "lib/a.c")]),
    (deployed, [("modified", "site/index"), ("added", "site/more")]),
    (swapped_directories, [("renamed", "src", "site"), ("renamed", "site", "src")]),
    (swapped_files, [("modified", "log"), ("modified", "src/main.c")]),
    (only_attributes, [("attributes", "log"), ("attributes", "src"), ("attributes", "src/main.c")]),
    (other_types, [("modified", "link"), ("type", "log"), ("type", "src/lib/a.c")]),
    (through_one_of_three_names, [("modified", "far/three"), ("modified", "one"), ("modified", "two")]),
    (one_of_three_names_goes, [("modified", "far/three"), ("modified", "one"), ("removed", "two")]),
    (another_name, [("added", "log-linked")]),
    (outside_the_root, []),
    (
        moved_out_and_in,
        [
            ("added", "incoming"),
            ("added", "incoming/file"),
            ("removed", "src"),
            ("removed", "src/lib"),
            ("removed", "src/lib/a.c"),
            ("removed", "src/lib/b.c"),
            ("removed", "src/main.c"),
        ],
    ),
]
OPPOSITE = {"added": "removed", "removed": "added"}


@pytest.mark.parametrize(("work", "lines"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_listed(tmp_path: Path, work: Callable[[TraceBuilder], None], lines: list[Line]) -> None:
    """Each kind of work is told as people would tell it, sorted by path, and backwards just the other way."""
    builder = started(tmp_path / "trace")
    work(builder)
    with finished(builder) as trace:
        assert listed(trace, list(trace.diff("start", "end"))) == lines
        back = [(OPPOSITE.get(kind, kind), *reversed(paths)) for kind, *paths in lines]
        told = listed(trace, list(trace.diff("end", "start")))
        if work is not rotated:  # backwards, log.1 becomes log, which takes the place of another file
            assert sorted(told) == sorted(back) or work in (moved_directory, moved_twice_with_work_between)
        assert list(trace.diff("end", "end")) == []


def test_a_change_says_what_it_was_and_is(tmp_path: Path) -> None:
    """Attributes and nodes of both ends come along; a rename says whether the content differs too."""
    builder = started(tmp_path / "trace")
    builder.rename("log", "log.old")
    builder.write("log.old", b"two\n")
    builder.rename("src/main.c", "main.c")
    with finished(builder) as trace:
        log, main = trace.diff("start", "end")
        assert (log.before and log.before.size, log.after and log.after.size, log.rewritten) == (4, 8, True)
        assert trace.reader.read(log.before_node, 0, 0, 100) == b"one\n"
        assert main.rewritten is False


def test_only_the_paths_asked_for(tmp_path: Path) -> None:
    """Names, paths, globs and directories choose; a rename is shown for either of its names."""
    builder = started(tmp_path / "trace")
    added_written_removed(builder)
    builder.rename("site/index", "index")
    with finished(builder) as trace:

        def chosen(*paths: str) -> list[Line]:
            return listed(trace, list(trace.diff("start", "end", paths)))

        assert chosen("src") == [("removed", "src/main.c")]
        assert chosen("dir", "/opt/root/new") == [("added", "dir"), ("added", "dir/inside"), ("added", "new")]
        assert chosen("*.c") == [("removed", "src/main.c")]
        assert chosen("site/") == [("renamed", "site/index", "index")]
        assert chosen("nowhere") == []


def test_untouched_directories_are_not_looked_into(tmp_path: Path) -> None:
    """Comparing looks at what events touched, by name; it lists no directory for that."""
    builder = started(tmp_path / "trace")
    for _ in range(500):
        builder.write("log", b"x")
    with finished(builder) as trace:
        seen: list[tuple[int, int]] = []
        children = trace.reader.children

        def watched(parent: int, seq: int) -> Iterator[tuple[bytes, int]]:
            seen.append((parent, seq))
            return children(parent, seq)

        trace.reader.children = watched  # type: ignore[method-assign]  # to see what is listed
        assert listed(trace, list(trace.diff("start", "end"))) == [("modified", "log")]
        assert seen == []


def explained(before: Tree, after: Tree, changes: list[Change]) -> None:
    """Fail unless `changes` account for every difference of two trees, and for nothing else."""
    by_path = {change.path: change for change in changes if change.kind is not Kind.REMOVED}
    removed = {change.path for change in changes if change.kind is Kind.REMOVED}
    origin: dict[bytes, bytes | None] = {}
    for path in sorted(after):
        change = by_path.get(path)
        if change is not None and change.kind is Kind.ADDED:
            origin[path] = None
        elif change is not None:
            origin[path] = change.renamed_from or path
        else:
            above, _, name = path.rpartition(b"/")
            former = origin.get(above, above)
            origin[path] = path if former is None or above not in after else former + b"/" + name
        source = origin[path]
        if source is None:
            continue
        assert source in before, f"{path!r} has no origin"
        same = alike(before[source]) == alike(after[path])
        told = change is not None and (change.kind is not Kind.RENAMED or change.rewritten)
        assert same or change is not None, f"{path!r} has changed, untold"
        assert not (same and told), f"{path!r} is told to have changed: {change}"
    sources = [source for source in origin.values() if source is not None]
    assert len(sources) == len(set(sources)), "one origin for two paths"
    assert set(sources) | removed == set(before), "what is gone, and what is told to be gone"
    assert not set(sources) & removed


def alike(state: tuple[Any, ...]) -> tuple[Any, ...]:
    mode, uid, gid, _, mtime, content = state
    return mode, uid, gid, 0 if stat.S_ISDIR(mode) else mtime, content


def random_step(chance: random.Random, b: TraceBuilder) -> None:
    """Some call that a program could make on what stands there."""
    tree = [path for path in b.tree() if path != b"/opt/root"]
    directories = [path for path in tree if stat.S_ISDIR(b.node(path).mode)] + [b"/opt/root"]
    files = [path for path in tree if stat.S_ISREG(b.node(path).mode)]
    new = chance.choice(directories) + b"/" + chance.choice([b"a", b"b", b"c", b"d"])
    there = b.exists(new)
    call = chance.randrange(11)
    if call <= 1 and not there:
        b.create(new, chance.randbytes(3))
    elif call == 2 and not there:
        b.mkdir(new)
    elif call == 3 and files:
        b.write(chance.choice(files), chance.randbytes(2))
    elif call == 4 and files:
        b.unlink(chance.choice(files))
    elif call == 5 and files and not there:
        b.link(chance.choice(files), new)
    elif call == 6 and tree:
        b.chmod(chance.choice(tree), chance.choice([0o600, 0o700]))
    elif call == 7:
        empty = [path for path in directories[:-1] if not b.node(path).entries]
        if empty:
            b.rmdir(chance.choice(empty))
    elif tree:
        old = chance.choice(tree)
        apart = not (new + b"/").startswith(old + b"/") and not (old + b"/").startswith(new + b"/")
        if apart and not there:
            b.rename(old, new)
        elif apart and call == 8:
            b.rename(old, new, flags=2)
        elif apart and stat.S_ISREG(b.node(old).mode) and stat.S_ISREG(b.node(new).mode):
            b.rename(old, new)


@pytest.mark.parametrize("seed", range(30))
def test_any_work_is_explained(tmp_path: Path, seed: int) -> None:
    """Between random moments of random work, applying the changes to one tree gives the other."""
    chance = random.Random(seed)
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"a/": None, "a/b": b"1", "a/c": {"link": "a/b"}, "b/c/d": b"2", "c": b"3"})
    builder.begin()
    trees: dict[int, Tree] = {0: builder.tree()}
    for _ in range(60):
        random_step(chance, builder)
        trees[builder.seq] = builder.tree()
    with finished(builder) as trace:
        for _ in range(25):
            a, b = (chance.choice(list(trees)) for _ in range(2))
            explained(trees[a], trees[b], list(trace.diff(a, b)))
