"""Filesystems that people use and not every kernel has: `python -m tests.kernels` runs this on one that does.

Needs what makes them: `apt install dosfstools exfatprogs ntfs-3g f2fs-tools`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.filesystems import FURTHER, mounted
from tests.system import harness
from tests.system.test_served import CHANGES, OTHER_CASE, held

FAT = ("vfat", "exfat")
"""These have no links and no attributes."""
LINKS = ("os.link(", "os.symlink(", "os.setxattr(", "os.unlink('d/e')")
RELEASE = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))
TOLD = {"times"}
"""What may be wrong: before Linux 6.13, that of a call during which the clock ticked."""
OLD_NTFS = {"mode"}
"""What ntfs3 of Linux 6.1 has otherwise than it told, and what is put right at the end."""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace"


@pytest.fixture(params=FURTHER)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def filesystem(kind: str, tmp_path: Path) -> Iterator[Path]:
    with mounted(kind, tmp_path) as point:
        yield point


def test_names_and_bytes_are_exact(kind: str, filesystem: Path, trace: Path, tmp_path: Path) -> None:
    """At every moment, as on any other filesystem."""
    lines = [line for line in CHANGES.splitlines(keepends=True) if kind not in FAT or not line.startswith(LINKS)]
    copy = tmp_path / "copy"
    result = harness.record(trace, [sys.executable, "-c", "".join(lines), copy], cwd=filesystem)
    assert result.returncode == 0, result.stderr
    harness.assert_same(harness.recorded(trace, "end"), harness.truth(filesystem))
    facts = harness.info(trace)
    assert not facts["lost"]
    assert set(facts["verified"]["wrong"]) <= TOLD | (OLD_NTFS if kind == "ntfs" and RELEASE < (6, 12) else set())
    if kind not in FAT:  # of which a copy has other attributes
        middle = harness.recorded(trace, "middle")
        if RELEASE < (6, 6):  # the copy is on tmpfs, which had no attributes of users before
            middle = {path: replace(entry, xattrs=()) for path, entry in middle.items()}
        assert held(middle) == held(harness.truth(copy))


@pytest.mark.parametrize("kind", ["vfat", "exfat", "casefold"])
def test_names_in_another_case(kind: str, filesystem: Path, trace: Path) -> None:
    """The last moment has each file once, by the name that it has there."""
    result = harness.record(trace, [sys.executable, "-c", OTHER_CASE], cwd=filesystem)
    assert result.returncode == 0, result.stderr
    assert sorted(harness.truth(filesystem)) == [".", "foo2", "foo2/baz", "q", "q/r"]
    harness.assert_same(harness.recorded(trace, "end"), harness.truth(filesystem))
    assert not harness.info(trace)["lost"]
