"""What of a file is read: all but its holes, and those of them that are none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from diffkeeper.record.contents import CONTENT_PIECE, data_ranges

PAGE = 4096


def read(path: Path, at: int = 0) -> bytes:
    """What the ranges are of; the rest is zeroes."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        content = bytearray(size)
        for start, length in data_ranges(file.fileno(), size, at):
            content[start : start + length] = os.pread(file.fileno(), length, start)
    return bytes(content)


def sparse(path: Path) -> bytes:
    """Data, a small hole, data, a large hole, and data up to a last hole."""
    with path.open("wb") as file:
        for at in (0, 10 * PAGE, 11 * PAGE + 4 * CONTENT_PIECE):
            os.pwrite(file.fileno(), b"x" * 5000, at)
        os.truncate(path, 11 * PAGE + 5 * CONTENT_PIECE)
    return path.read_bytes()


def test_all_that_is_no_hole(tmp_path: Path) -> None:
    """The ranges hold every byte that is not zero, and none of a large hole."""
    content = sparse(tmp_path / "file")
    assert read(tmp_path / "file") == content
    with (tmp_path / "file").open("rb") as file:
        assert sum(length for _, length in data_ranges(file.fileno(), len(content))) < CONTENT_PIECE


@pytest.mark.parametrize("last", [False, True])
def test_a_hole_that_is_none(last: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the filesystem tells of a hole, small or up to the end, though there are bytes: they are read."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        os.pwrite(file.fileno(), os.urandom(20 * PAGE), 0)
    seek = os.lseek

    def untrue(fd: int, at: int, how: int) -> int:
        if how == os.SEEK_HOLE:
            return min(seek(fd, at, how), 5 * PAGE if at < 5 * PAGE else 20 * PAGE)
        if how == os.SEEK_DATA and at >= 5 * PAGE:
            if last:
                raise OSError(errno.ENXIO, "no data")
            return max(at, 9 * PAGE)
        return seek(fd, at, how)

    monkeypatch.setattr(os, "lseek", untrue)
    assert read(path) == path.read_bytes()
    assert read(path, 6 * PAGE)[6 * PAGE :] == path.read_bytes()[6 * PAGE :]


def test_nothing_of_an_empty_file(tmp_path: Path) -> None:
    """No ranges, nor behind the end."""
    (tmp_path / "file").touch()
    with (tmp_path / "file").open("rb") as file:
        assert list(data_ranges(file.fileno(), 0)) == []
        assert list(data_ranges(file.fileno(), 10, 10)) == []
