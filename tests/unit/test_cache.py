"""The cache holds what is believed later: whole, and written by nobody else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from diffkeeper import cache


def test_only_its_owner_can_write_to_what_is_kept(tmp_path: Path) -> None:
    """Whatever the umask is: programs for the kernel lie there. Nothing else is left beside it."""
    before = os.umask(0)
    try:
        cache.write(tmp_path / "below" / "kept", b"one")
        cache.write(tmp_path / "below" / "kept", b"two")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "below").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "below" / "kept").stat().st_mode) == 0o600
    assert (tmp_path / "below" / "kept").read_bytes() == b"two"
    assert os.listdir(tmp_path / "below") == ["kept"]


def test_a_cache_without_a_place_costs_nothing_else(tmp_path: Path) -> None:
    """What cannot be kept is found out again."""
    (tmp_path / "file").touch()
    cache.write(tmp_path / "file" / "kept", b"lost")
