"""Fixtures of the system tests: a directory to work in, a filesystem of each kind, and a place for the trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.filesystems import KINDS, mounted


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace"


@pytest.fixture(params=KINDS)
def filesystem(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A fresh filesystem of each kind, mounted; overlayfs with something in its lower layer."""
    with mounted(request.param, tmp_path) as point:
        yield point
