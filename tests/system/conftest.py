"""Fixtures of the system tests: a directory to work in, and a place for the trace beside it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace"
