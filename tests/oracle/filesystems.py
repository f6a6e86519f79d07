"""The filesystems to try things on, with those that have hardly any room, and what is known of each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.filesystems import KINDS, SIZE, mounted

__all__ = ["COUNT_LINKS", "FULL", "KINDS", "LEAVE_OUT", "fresh"]

FULL = {"full-ext4": "2500K", "full-tmpfs": "1500k"}
"""Filesystems with so little room that what is done ends half-way, or not at all, for want of it."""

COUNT_LINKS = ("here", "ext4", "xfs", "tmpfs", *FULL)
"""Where a directory's link count says how many are in it."""

LEAVE_OUT = {"xfs": ("whiteouts",), **dict.fromkeys(FULL, ("mapped",))}
"""Groups that are known to go wrong: in a directory with a default ACL a whiteout gets one, but not on XFS. And a
store to memory that finds no room on the disk is a signal, which ends who does it."""


@contextlib.contextmanager
def fresh(kind: str, place: Path) -> Iterator[Path]:
    """A new filesystem of a kind, mounted below `place`. "here" is a directory of the filesystem that is there."""
    if kind == "here":
        point = place / "mounted"
        point.mkdir()
        yield point
        return
    with mounted(kind.removeprefix("full-"), place, FULL.get(kind, SIZE)) as point:
        yield point
