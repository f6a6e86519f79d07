"""Fresh filesystems to try things on: ext4, xfs and btrfs on loop devices, tmpfs, overlayfs."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

KINDS = ("ext4", "xfs", "btrfs", "tmpfs", "overlay")
FULL = {"full-ext4": "2500K", "full-tmpfs": "1500k"}
"""Filesystems with so little room that what is done ends half-way, or not at all, for want of it."""

COUNT_LINKS = ("here", "ext4", "xfs", "tmpfs", *FULL)
"""Where a directory's link count says how many are in it."""

LEAVE_OUT = {"xfs": ("whiteouts",), **dict.fromkeys(FULL, ("mapped",))}
"""Groups that are known to go wrong: in a directory with a default ACL a whiteout gets one, but not on XFS. And a
store to memory that finds no room on the disk is a signal, which ends who does it."""

SIZE = "400M"


def _mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


@contextlib.contextmanager
def fresh(kind: str, place: Path) -> Iterator[Path]:
    """A new filesystem of a kind, mounted below `place`. "here" is a directory of the filesystem that is there."""
    point = place / "mounted"
    point.mkdir()
    if kind == "here":
        yield point
        return
    mounted = [point]
    if kind == "overlay":
        layers = place / "layers"
        layers.mkdir()
        _mount("-t", "tmpfs", "none", layers)
        mounted.append(layers)
        for name in ("lower", "upper", "work"):
            (layers / name).mkdir()
        paths = f"lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work"
        _mount("-t", "overlay", "-o", paths, "none", point)
    elif kind.endswith("tmpfs"):
        _mount("-t", "tmpfs", "-o", f"size={FULL.get(kind, SIZE)}", "none", point)
    else:
        image = place / "image"
        subprocess.run(["truncate", "-s", FULL.get(kind, SIZE), image], check=True)
        subprocess.run([f"mkfs.{kind.removeprefix('full-')}", "-q", image], check=True, capture_output=True)
        _mount("-o", "loop", image, point)
    try:
        yield point
    finally:
        for path in mounted:
            subprocess.run(["umount", path], check=True)
