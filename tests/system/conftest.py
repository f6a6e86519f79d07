"""Fixtures of the system tests: a directory to work in, a filesystem of each kind, and a place for the trace."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

SIZE = "400M"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace"


def mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


@pytest.fixture(params=["ext4", "xfs", "btrfs", "tmpfs", "overlay"])
def filesystem(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A fresh filesystem of each kind, mounted; overlayfs with something in its lower layer."""
    point = tmp_path / "mounted"
    point.mkdir()
    mounted = [point]
    if request.param == "overlay":
        layers = tmp_path / "layers"
        layers.mkdir()
        mount("-t", "tmpfs", "none", layers)
        mounted.append(layers)
        for name in ("lower/low/sub", "upper", "work"):
            (layers / name).mkdir(parents=True)
        (layers / "lower/low/file").write_text("from below\n")
        (layers / "lower/low/sub/other").write_text("from below, too\n")
        paths = f"lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work"
        mount("-t", "overlay", "-o", paths, "none", point)
    elif request.param == "tmpfs":
        mount("-t", "tmpfs", "none", point)
    else:
        image = tmp_path / "image"
        subprocess.run(["truncate", "-s", SIZE, image], check=True)
        subprocess.run([f"mkfs.{request.param}", "-q", image], check=True, capture_output=True)
        mount("-o", "loop", image, point)
    yield point
    for path in mounted:
        subprocess.run(["umount", path], check=True)
