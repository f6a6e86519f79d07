"""Traces that lie below the roots of a recording: left out, so that none holds all that were made before it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from . import harness

NOISE = 1_000_000


def size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def test_one_trace_beside_the_other(workspace: Path) -> None:
    """Recorded again and again to another name, the last is not larger than the first; `info` says what it lacks."""
    with open("/dev/urandom", "rb") as noise:
        (workspace / "data").write_bytes(noise.read(NOISE))
    for number in range(5):
        harness.record(workspace / f"trace-{number}", ["sh", "-c", f"echo {number} > count"], cwd=workspace)
    traces = [workspace / f"trace-{number}" for number in range(5)]
    assert size_of(traces[4]) < size_of(traces[0]) + NOISE / 2
    facts = harness.assert_faithful(traces[4], workspace, leave_out=traces)
    assert facts["traces"] == [str(trace) for trace in traces[:4]]
    told = harness.run("info", traces[4]).stdout
    assert f"left out      other traces: {traces[0]}, {traces[1]}" in told
    for moment in ("start", "end"):
        assert not any("trace" in path for path in harness.recorded(traces[4], moment))


def test_what_is_done_to_another_trace(workspace: Path, trace: Path) -> None:
    """Is no concern of the recording: looked at, finished, repacked, removed, it is in no event."""
    other = workspace / "other"
    harness.record(other, ["sh", "-c", "echo x > file"], cwd=workspace)
    words = " ".join(harness.DIFFKEEPER)
    script = f"{words} timeline other; {words} repack other; cp file copy; rm -r other"
    facts = harness.record(trace, ["sh", "-c", script], cwd=workspace)
    assert facts.returncode == 0, facts.stderr
    harness.assert_faithful(trace, workspace)
    timeline = harness.run("timeline", trace, "--path", f"{other}/*").stdout
    assert timeline == ""


def test_one_that_is_made_meanwhile(workspace: Path, trace: Path) -> None:
    """By the command it is a file like others. By somebody else it is left out, like those that were there before."""
    words = " ".join(harness.DIFFKEEPER)
    script = f"{words} record -o nested -- touch file; touch ../begun; while ! rm ../ended; do sleep 0.01; done"
    outer = [*harness.DIFFKEEPER, "record", "-o", str(trace), "--", "sh", "-c", script]
    recorder = subprocess.Popen(outer, cwd=workspace, stderr=subprocess.DEVNULL)
    harness.wait_for((workspace.parent / "begun").exists)
    shutil.copytree(workspace / "nested", workspace / "theirs")
    (workspace.parent / "ended").touch()
    assert recorder.wait() == 0
    end = harness.recorded(trace, "end")
    assert "nested/index.lmdb" in end
    assert not any(path.startswith("theirs") for path in end)


@pytest.mark.parametrize("facts", ["", "{}", "[]", "nonsense", '{"format": "x"}'])
def test_what_only_looks_like_one(workspace: Path, trace: Path, facts: str) -> None:
    """Is recorded as everything else."""
    (workspace / "site").mkdir()
    (workspace / "site/session.json").write_text(facts)
    harness.record(trace, ["sh", "-c", "echo x > file"], cwd=workspace)
    harness.assert_faithful(trace, workspace)
    assert "site/session.json" in harness.recorded(trace, "start")


def test_a_root_that_is_a_trace(workspace: Path, trace: Path) -> None:
    """Is what is to be recorded: whoever names it means it."""
    other = workspace / "other"
    harness.record(other, ["true"], cwd=workspace)
    harness.record(trace, ["sh", "-c", "echo x > file"], cwd=other)
    harness.assert_faithful(trace, other)
    assert "index.lmdb" in harness.recorded(trace, "start")


def test_a_trace_that_is_mounted_below_the_root(workspace: Path, trace: Path) -> None:
    """What a mount shows are moments and no files: the directory it is mounted on is recorded as empty."""
    other, point = workspace.parent / "other", workspace / "point"
    point.mkdir()
    elsewhere = workspace.parent / "elsewhere"
    elsewhere.mkdir()
    harness.record(other, ["sh", "-c", "echo x > file"], cwd=elsewhere)
    assert harness.run("mount", other, point).returncode == 0
    try:
        result = harness.record(trace, ["sh", "-c", "cat point/@end/file > copy"], cwd=workspace)
    finally:
        harness.run("umount", point)
    assert result.returncode == 0, result.stderr
    assert not [path for path in harness.recorded(trace, "start") if path.startswith("point/")]
    assert (workspace / "copy").read_text() == "x\n"
