"""A random walk over a small tree, for tests that look at every moment of something that was not planned."""

from __future__ import annotations

import random
import stat
from pathlib import Path
from typing import Any

from tests.builder import TraceBuilder


def busy(path: Path, seed: int) -> tuple[TraceBuilder, dict[int, Any]]:
    """A random walk over a small tree, and the tree after every event."""
    chance = random.Random(seed)
    builder = TraceBuilder(path)
    builder.baseline({"d/": None, "d/a": b"1\n", "d/e/": None, "d/e/b": b"2\n", "c": {"content": b"3", "mode": 0o755}})
    builder.begin()
    trees = {0: builder.tree()}
    names = ["a", "b", "c", "d", "e", "f"]

    def place() -> str:
        return "/".join(chance.choice(names) for _ in range(chance.randint(1, 3)))

    while len(trees) < 120:
        one, other = place(), place()
        builder.pid = chance.choice((100, 100, 101))
        try:
            isfile = stat.S_ISREG(builder.node(one).mode)
        except (KeyError, AttributeError):
            isfile = False
        try:
            match chance.randrange(9):
                case 0 | 1 if isfile:
                    builder.write(one, b"%d\n" % chance.randrange(9))
                case 2 if isfile:
                    builder.rewrite(one, b"new %d\n" % chance.randrange(9))
                case 3 if isfile:
                    builder.chmod(one, chance.choice((0o644, 0o755)))
                case 4 if not builder.exists(one) and stat.S_ISDIR(builder.node(one.rpartition("/")[0]).mode):
                    chance.choice((builder.create, builder.mkdir, lambda at: builder.symlink("to", at)))(one)
                case 5 if builder.exists(one) and not builder.exists(other) and not other.startswith(one):
                    if stat.S_ISDIR(builder.node(other.rpartition("/")[0]).mode):
                        builder.rename(one, other)
                case 6 if isfile and chance.random() < 0.5:
                    builder.unlink(one)
                case 7 if isfile and not builder.exists(other):
                    if stat.S_ISDIR(builder.node(other.rpartition("/")[0]).mode):
                        builder.link(one, other)
                case 8 if chance.random() < 0.2:
                    builder.mark(f"mark{builder.seq}")
                case _:
                    continue
        except KeyError:
            continue
        trees[builder.seq] = builder.tree()
    builder.end()
    builder.build()
    return builder, trees
