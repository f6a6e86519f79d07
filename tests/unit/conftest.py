"""Fixtures of the unit tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builder import TraceBuilder


@pytest.fixture
def builder(tmp_path: Path) -> TraceBuilder:
    """A recording whose command has begun, on a root with the file `old` (5000 bytes) and the directory `dir`."""
    made = TraceBuilder(tmp_path / "trace")
    made.baseline({"old": b"12345" * 1000, "dir/": None})
    made.begin()
    return made
