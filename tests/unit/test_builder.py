"""TraceBuilder is what other tests stand on: its model must do what a kernel does to files."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from tests.builder import TraceBuilder, to_bytes
from tests.unit.test_store_replay import OPERATIONS, Script


class OnDisk(TraceBuilder):
    """A builder whose root is a real directory, and that does every call there too."""

    def create(self, path: str | bytes, *given: Any, **named: Any) -> int:
        os.close(os.open(self.absolute(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        return super().create(path, *given, **named)

    def write(self, path: str | bytes, data: bytes, offset: int | None = None, *given: Any, **named: Any) -> int:
        fd = os.open(self.absolute(path), os.O_WRONLY)
        os.pwrite(fd, data, os.fstat(fd).st_size if offset is None else offset)
        os.close(fd)
        return super().write(path, data, offset, *given, **named)

    def open(self, path: str | bytes, at: float | None = None, trunc: bool = False) -> Any:
        os.close(os.open(self.absolute(path), os.O_WRONLY | (os.O_TRUNC if trunc else 0)))
        return super().open(path, at, trunc)

    def truncate(self, path: str | bytes, size: int, at: float | None = None) -> int:
        os.truncate(self.absolute(path), size)
        return super().truncate(path, size, at)

    def chmod(self, path: str | bytes, mode: int, at: float | None = None) -> int:
        os.chmod(self.absolute(path), mode)
        return super().chmod(path, mode, at)

    def mkdir(self, path: str | bytes, *given: Any, **named: Any) -> int:
        os.mkdir(self.absolute(path))
        return super().mkdir(path, *given, **named)

    def mkfifo(self, path: str | bytes, *given: Any, **named: Any) -> int:
        os.mkfifo(self.absolute(path))
        return super().mkfifo(path, *given, **named)

    def symlink(self, target: str | bytes, path: str | bytes, at: float | None = None) -> int:
        os.symlink(to_bytes(target), self.absolute(path))
        return super().symlink(target, path, at)

    def link(self, old: str | bytes, new: str | bytes, at: float | None = None) -> int:
        os.link(self.absolute(old), self.absolute(new), follow_symlinks=False)
        return super().link(old, new, at)

    def rename(self, old: str | bytes, new: str | bytes, flags: int = 0, at: float | None = None) -> int:
        os.rename(self.absolute(old), self.absolute(new))
        return super().rename(old, new, flags, at)

    def unlink(self, path: str | bytes, at: float | None = None) -> int:
        os.unlink(self.absolute(path))
        return super().unlink(path, at)

    def rmdir(self, path: str | bytes, at: float | None = None) -> int:
        os.rmdir(self.absolute(path))
        return super().rmdir(path, at)


def on_disk(path: bytes) -> dict[bytes, tuple[int, int, bytes]]:
    """Path -> (type, names of a file, bytes or target) of everything under a real directory."""
    about = os.lstat(path)
    kind = stat.S_IFMT(about.st_mode)
    content = os.readlink(path) if kind == stat.S_IFLNK else b""
    if kind == stat.S_IFREG:
        content = Path(os.fsdecode(path)).read_bytes()
    found = {path: (kind, 0 if kind == stat.S_IFDIR else about.st_nlink, content)}
    for name in os.listdir(path) if kind == stat.S_IFDIR else ():
        found.update(on_disk(path + b"/" + name))
    return found


def test_the_model_does_what_files_do(tmp_path: Path) -> None:
    """Names, types, links and bytes after each of some hundred calls are those of a real directory."""
    real = tmp_path / "real"
    real.mkdir()
    builder = OnDisk(tmp_path / "trace", (os.fsencode(real),))
    script = Script(builder)
    operations = [op for op in OPERATIONS if op not in ("exchange", "unlinked", "chown", "utime", "xattr")]
    for number in range(400):
        script.step(operations[number * 7 % len(operations)], number * 31, number * 17, number * 41 % 50)
        model = {
            path: (stat.S_IFMT(mode), 0 if stat.S_ISDIR(mode) else nlink, content)
            for path, (mode, _, _, nlink, _, content) in builder.tree().items()
        }
        assert on_disk(os.fsencode(real)) == model
    assert builder.seq > 200


def test_events_are_counted_as_the_store_counts(tmp_path: Path) -> None:
    """What each call returns is the number of its last event in the trace."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"f": b"1"})
    builder.begin()
    assert builder.create("g", b"2") == 2
    assert builder.write("f", b"3") == 3
    assert builder.mark("here", at=1.5) == 4
    assert builder.rewrite("f", b"4") == 6
    builder.end()
    assert builder.build() == tmp_path / "trace"
