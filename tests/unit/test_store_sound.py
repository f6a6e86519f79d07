"""An index that was found sound is not looked at again, unless it could be another by now."""

from __future__ import annotations

import os
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

import diffkeeper
from diffkeeper import cache
from diffkeeper.errors import TraceDamagedError
from diffkeeper.store import pages, sound
from diffkeeper.store.files import DATA_FILE
from tests.builder import TraceBuilder


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trace, and a cache of its own; what is asked for runs as if this process had just begun."""
    monkeypatch.setattr(cache, "directory", lambda: tmp_path / "cache")
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"file": b"content"})
    builder.begin()
    builder.end()
    return builder.build()


def is_looked_at(trace: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether opening a trace looks at its pages, in a process that knows nothing yet."""
    check = Mock(wraps=pages.check)
    with monkeypatch.context() as patch:
        patch.setattr(sound, "_here", set())
        patch.setattr(pages, "check", check)
        diffkeeper.open(trace).close()
    return bool(check.called)


def let_it_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 2 * sound.SETTLED)


def test_a_sound_index_is_looked_at_once(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whatever process; and again when it was touched."""
    let_it_settle(monkeypatch)
    assert is_looked_at(trace, monkeypatch)
    assert not is_looked_at(trace, monkeypatch)
    os.utime(trace / DATA_FILE)
    assert is_looked_at(trace, monkeypatch)


def test_an_index_just_written_is_not_kept(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could be written to once more without its times being changed."""
    assert is_looked_at(trace, monkeypatch)
    assert is_looked_at(trace, monkeypatch)


def test_nothing_is_kept_of_the_files_of_others(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They could write to it through a mapping."""
    let_it_settle(monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert is_looked_at(trace, monkeypatch)
    assert is_looked_at(trace, monkeypatch)


def test_a_damaged_index_is_not_taken_for_the_sound_one(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not where it has the size and the mtime of before."""
    let_it_settle(monkeypatch)
    assert is_looked_at(trace, monkeypatch)
    index = trace / DATA_FILE
    before, data = index.stat(), bytearray(index.read_bytes())
    data[2 * 4096 :] = bytes(len(data) - 2 * 4096)
    index.write_bytes(data)
    os.utime(index, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(TraceDamagedError):
        is_looked_at(trace, monkeypatch)


def test_only_the_last_are_kept(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many indexes are looked at, the cache is small; without a place for it nothing fails."""
    let_it_settle(monkeypatch)
    for number in range(sound.KEPT + 10):
        sound.remember((number, 0, 0, 0, 0, 0), os.geteuid())
    monkeypatch.setattr(sound, "_here", set())
    assert not sound.is_known((9, 0, 0, 0, 0, 0), os.geteuid())
    assert sound.is_known((10, 0, 0, 0, 0, 0), os.geteuid())
    monkeypatch.setattr(cache, "directory", lambda: trace / DATA_FILE / "no directory")
    assert is_looked_at(trace, monkeypatch)
