"""The traces that are damaged: small, and with something in every table; indexed, and as a journal alone.

Owns what they hold. Made without a kernel, so that each is made in a moment.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from tests.builder import TraceBuilder


def _story(builder: TraceBuilder) -> None:
    builder.baseline(
        {
            "docs/": None, "docs/deep/er/est": b"x" * 300, "a": b"first\n" * 500,
            "b": {"target": "a"}, "up": {"target": "../../../../../../etc"}, "x": {"content": b"1", "mode": 0o4755},
            "y": {"link": "x"}, "z": {"content": b"2", "xattrs": {b"user.colour": b"blue"}},
            "tty": {"mode": 0o020620, "rdev": 1025},
        }
    )  # fmt: skip
    noise = random.Random(7).randbytes(40_000)
    builder.begin()
    builder.exec("/bin/make", "all")
    builder.fork(101)
    for number in range(12):
        builder.rewrite("a", noise[:3000] + b"%d\n" % number * 40)
        builder.write("x", b"y" * 50, number * 40)
    builder.create("n", noise)
    builder.rewrite("n", noise[:20_000] + b"changed" + noise[20_000:])
    builder.mark("half")
    builder.rename("docs", "papers")
    builder.mkdir("empty")
    builder.mkfifo("fifo")
    builder.symlink("/etc", "etc")
    builder.link("n", "m")
    builder.write("n", b"end", offset=1 << 20)
    builder.truncate("n", 3 << 20)
    builder.setxattr("n", b"user.k", b"v")
    builder.chmod("a", 0o600)
    builder.create("new", b"z" * 5000)
    builder.rename("new", "a")
    builder.gap(2, "ring full")
    builder.unlink("y")
    builder.heal("x", b"healed")
    builder.exit(0)
    builder.end()
    builder.settle("verified_paths=9")
    builder.settle("note=made for tests")


def indexed(path: Path) -> Path:
    builder = TraceBuilder(path)
    _story(builder)
    return builder.build()


def journal(path: Path, frame: int = 4) -> Path:
    """Not indexed yet; with a second root."""
    builder = TraceBuilder(path, roots=(b"/opt/root", b"/srv"), frame=frame)
    _story(builder)
    return builder.journal()


def many(path: Path) -> Path:
    """Indexed, with tables of several levels."""
    builder = TraceBuilder(path)
    builder.baseline({f"d{number % 7}/file-with-a-long-name-{number:05}": b"%d" % number for number in range(250)})
    builder.begin()
    for number in range(60):
        builder.create(f"d{number % 7}/new{number}", bytes(number) + random.Random(number).randbytes(400))
    builder.end()
    return builder.build()


def copy(seed: Path, to: Path) -> Path:
    if to.exists():
        shutil.rmtree(to)
    shutil.copytree(seed, to)
    return to
