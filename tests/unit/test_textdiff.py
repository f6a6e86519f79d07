"""Unified diffs of bytes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffkeeper.textdiff import DIFFERING_LIMIT, unified

texts = st.lists(st.sampled_from([b"a", b"b", b"\xff", b"long line", b"\r", b""]), max_size=30).map(b"\n".join)


@given(old=texts, new=texts)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_git_applies_what_it_writes(tmp_path: Path, old: bytes, new: bytes) -> None:
    """A unified diff, given a header, turns the old content into the new one."""
    hunks = unified(old, new)
    assert hunks is not None
    assert bool(hunks) == (old != new)
    (tmp_path / "file").write_bytes(old)
    if hunks:
        subprocess.run(
            ["git", "apply", "--unidiff-zero", "--whitespace=nowarn", "-"],
            input=b"\n".join((b"--- a/file", b"+++ b/file", *hunks, b"")),
            cwd=tmp_path,
            check=True,
        )
    assert (tmp_path / "file").read_bytes() == new


def test_an_appended_log_is_compared_quickly_and_numbered_from_the_start() -> None:
    """What is common at the beginning is passed over, and line numbers stay right."""
    log = b"".join(b"line %d\n" % number for number in range(100_000))
    assert unified(log, log + b"one more\n") == [
        b"@@ -99998,3 +99998,4 @@", b" line 99997", b" line 99998", b" line 99999", b"+one more",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\0binary", b"text"),
        (b"text", b"bin\0ary"),
        (b"a\n" * DIFFERING_LIMIT, b"b\n"),
        (b"x" * (17 << 20), b""),
    ],
)
def test_what_is_not_compared_by_lines(old: bytes, new: bytes) -> None:
    """Binary, very long and wholly different contents give None."""
    assert unified(old, new) is None
