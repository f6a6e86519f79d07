"""A story: a known sequence of changes, told by a program and by a model, so that any prefix of it can be checked.

Owns `steps()` (what happens, the same for the same seed), `perform()` (it happens, each step one
system call that makes one event) and `World` (what stands there after any number of steps).

    python -m tests.crash.story WORKERS STEPS SEED PAUSE LARGE [PROGRESS]     each worker tells its own, in ./wN

Ends with the exit code `EXIT_CODE`. PROGRESS is a descriptor that takes the number of steps done so far, as text.
"""

from __future__ import annotations

import os
import random
import stat
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

EXIT_CODE = 7
LARGE = 600_000
"""Bytes of the longest writes: more than one record holds."""


class Step(NamedTuple):
    """One change: what is done, to which path, and with what."""

    what: str
    path: str
    other: str = ""
    offset: int = 0
    size: int = 0


def data_of(number: int, size: int) -> bytes:
    """The bytes that step `number` writes."""
    word = b"%d|" % number
    return (word * (size // len(word) + 1))[:size]


def steps(seed: int, large: int = LARGE) -> Iterator[Step]:
    """Without end. Each can be done when those before it were."""
    chance = random.Random(seed)
    world = World()
    for number in range(1 << 60):
        step = _next(chance, world, number, large)
        world.apply(number, step)
        yield step


def _next(chance: random.Random, world: World, number: int, large: int) -> Step:
    files = [path for path, entry in world.entries.items() if stat.S_ISREG(entry.mode)]
    folders = ["", *(path for path, entry in world.entries.items() if stat.S_ISDIR(entry.mode))]

    def fresh(letter: str) -> str:
        folder = chance.choice(folders)
        return f"{folder}/{letter}{number}" if folder else f"{letter}{number}"

    roll = chance.random()
    if not files or (roll < 0.12 and len(files) < 60):
        return Step("create", fresh("f"))
    path = chance.choice(files)
    size = world.entries[path].size
    if roll < 0.50:
        return Step("write", path, offset=size, size=chance.choice((1, 80, 700, 4096)))
    if roll < 0.70:
        return Step("write", path, offset=chance.randrange(size + 100), size=chance.randrange(1, 3000))
    if roll < 0.705:
        return Step("write", path, size=large)
    if roll < 0.75:
        return Step("truncate", path, size=chance.choice((0, size // 2, size + 10)))
    if roll < 0.78 and len(folders) < 12:
        return Step("mkdir", fresh("d"))
    if roll < 0.84:
        return Step("rename", path, other=chance.choice((fresh("r"), *[name for name in files if name != path][:3])))
    if roll < 0.87:
        return Step("link", path, other=fresh("l"))
    if roll < 0.89:
        return Step("symlink", fresh("s"), other=path)
    if roll < 0.93:
        return Step("chmod", path, size=chance.choice((0o600, 0o644, 0o755)))
    links = [path for path, entry in world.entries.items() if stat.S_ISLNK(entry.mode)]
    return Step("unlink", chance.choice(links) if links and roll < 0.95 else path)


class Entry:
    """A file, directory or symlink of the model; two names of one file share it."""

    def __init__(self, mode: int, target: str = "") -> None:
        self.mode, self.target, self.links = mode, target, 1
        self.data = bytearray()

    @property
    def size(self) -> int:
        return len(self.data)


class World:
    """What stands there after the steps that were applied."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def apply(self, number: int, step: Step) -> None:
        entries, path = self.entries, step.path
        if step.what == "create":
            entries[path] = Entry(stat.S_IFREG | 0o644)
        elif step.what == "mkdir":
            entries[path] = Entry(stat.S_IFDIR | 0o755)
        elif step.what == "symlink":
            entries[path] = Entry(stat.S_IFLNK | 0o777, step.other)
        elif step.what == "write":
            data = entries[path].data
            data.extend(bytes(max(0, step.offset - len(data))))
            data[step.offset : step.offset + step.size] = data_of(number, step.size)
        elif step.what == "truncate":
            data = entries[path].data
            del data[step.size :]
            data.extend(bytes(step.size - len(data)))
        elif step.what == "chmod":
            entries[path].mode = stat.S_IFREG | step.size
        elif step.what == "link":
            entries[path].links += 1
            entries[step.other] = entries[path]
        elif step.what == "unlink":
            entries.pop(path).links -= 1
        elif entries.get(step.other) is not entries[path]:  # a rename; of two names of one file, nothing happens
            if step.other in entries:
                entries[step.other].links -= 1
            entries[step.other] = entries.pop(path)

    def makes_event(self, step: Step) -> bool:
        """Whether a step, about to be done, changes anything."""
        return step.what != "rename" or self.entries.get(step.other) is not self.entries[step.path]

    def shown(self) -> dict[str, tuple[int, int, bytes]]:
        """Path -> mode, links (0 for directories), content or target."""
        return {
            path: (
                entry.mode,
                0 if stat.S_ISDIR(entry.mode) else entry.links,
                entry.target.encode() if entry.target else bytes(entry.data),
            )
            for path, entry in self.entries.items()
        }


def perform(number: int, step: Step) -> None:
    """The same for real, below the working directory."""
    if step.what == "create":
        os.close(os.open(step.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    elif step.what == "write":
        fd = os.open(step.path, os.O_WRONLY)
        assert os.pwrite(fd, data_of(number, step.size), step.offset) == step.size
        os.close(fd)
    elif step.what == "truncate":
        os.truncate(step.path, step.size)
    elif step.what == "mkdir":
        os.mkdir(step.path, 0o755)
    elif step.what == "rename":
        os.rename(step.path, step.other)
    elif step.what == "link":
        os.link(step.path, step.other)
    elif step.what == "symlink":
        os.symlink(step.other, step.path)
    elif step.what == "chmod":
        os.chmod(step.path, step.size)
    else:
        os.unlink(step.path)


def tell(count: int, seed: int, pause: float, large: int, progress: int) -> None:
    """Do the first `count` steps; rest for `pause` seconds after every tenth."""
    for number, step in zip(range(count), steps(seed, large), strict=False):
        perform(number, step)
        if number % 10 == 9:
            if progress >= 0:
                os.write(progress, b"%d\n" % (number + 1))
            if pause:
                time.sleep(pause)


def main(workers: int, count: int, seed: int, pause: float, large: int, progress: int = -1) -> int:
    os.umask(0o022)
    children = []
    for worker in range(workers):
        child = os.fork()
        if not child:
            os.chdir(f"w{worker}")
            tell(count, seed + worker, pause, large, progress if worker == 0 else -1)
            os._exit(0)
        children.append(child)
    failed = [status for _, status in (os.waitpid(child, 0) for child in children) if status]
    return 1 if failed else EXIT_CODE


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(main(int(words[0]), int(words[1]), int(words[2]), float(words[3]), *map(int, words[4:])))
