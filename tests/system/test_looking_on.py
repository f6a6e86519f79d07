"""Looking at a trace that is still being recorded: it says so, and is as it was then."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import diffkeeper
from diffkeeper.errors import TraceExistsError
from diffkeeper.trace import Trace

from . import harness

SCRIPT = """
echo begun > state
while ! [ -e ../enough ]; do
    echo a line >> log
    echo another > state.new; mv state.new state
    sleep 0.02
done
"""


@pytest.fixture
def recorder(workspace: Path, trace: Path) -> Iterator[subprocess.Popen[str]]:
    """A recording that goes on until it may end, or the test is over."""
    words = [*harness.DIFFKEEPER, "record", "-o", str(trace), "--", "sh", "-c", SCRIPT]
    with subprocess.Popen(words, cwd=workspace, stderr=subprocess.PIPE, text=True) as process:
        try:
            harness.wait_for(lambda: (trace / "index.lmdb").exists() and _events(trace) > 20)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)


def _events(trace: Path) -> int:
    found = harness.run("info", "--json", trace)
    return int(json.loads(found.stdout)["events"]) if found.returncode == 0 else 0


def _goes_on(trace: Path, more: int) -> int:
    """Until there are more events; returns how many there were."""
    before = _events(trace)
    harness.wait_for(lambda: _events(trace) > before + more)
    return before


def _ended(recorder: subprocess.Popen[str], workspace: Path) -> None:
    (workspace.parent / "enough").touch()
    assert recorder.wait(60) == 0


def test_it_says_so(recorder: subprocess.Popen[str], workspace: Path, trace: Path) -> None:
    """Nobody is told that it was cut off; and when it has ended, nothing of this is said any more."""
    told = harness.run("info", trace).stdout
    assert "still being recorded" in told
    assert "cut off" not in told
    facts = json.loads(harness.run("info", "--json", trace).stdout)
    assert (facts["recording"], facts["complete"], facts["duration"]) == (True, False, None)
    for name, *rest in (["timeline"], ["diff", "start", "end"]):
        said = harness.run(name, trace, *rest)
        assert f"{trace} is still being recorded: this is how it is after " in said.stderr
        assert "log" in said.stdout
    _ended(recorder, workspace)
    facts = harness.info(trace)
    assert (facts["recording"], facts["complete"]) == (False, True)
    assert harness.run("timeline", trace).stderr == ""
    harness.assert_faithful(trace, workspace)


def test_a_mount_is_of_one_time(recorder: subprocess.Popen[str], workspace: Path, trace: Path, tmp_path: Path) -> None:
    """It shows what there was when it was mounted, whatever is recorded meanwhile; the next one shows more."""
    point = tmp_path / "point"
    point.mkdir()
    first = harness.run("mount", trace, point)
    assert (first.returncode, "still being recorded" in first.stderr) == (0, True), first.stderr
    try:
        assert "duration: still being recorded" in (point / ".diffkeeper/status").read_text()
        before = (point / "@end/log").read_bytes()
        events = _goes_on(trace, 300)
        assert (point / "@end/log").read_bytes() == before
        middle = (point / f"@e{events // 2}/log").read_bytes()
        assert before.startswith(middle)
        assert (workspace / "log").read_bytes().startswith(before)
    finally:
        harness.run("umount", point)
    _ended(recorder, workspace)
    with diffkeeper.open(trace) as opened:
        assert (opened.at("end") / "log").read_bytes() == (workspace / "log").read_bytes() != before
        assert (opened.at(f"e{events // 2}") / "log").read_bytes() == middle


def test_a_reader_that_stays(recorder: subprocess.Popen[str], workspace: Path, trace: Path) -> None:
    """What it knew of where things are is not believed after a commit: past moments stay as they were."""
    with diffkeeper.open(trace) as opened:
        assert opened.recording
        moments = range(1, opened.reader.last_seq + 1)
        before = [_log(opened, seq) for seq in moments]
        for _ in range(3):
            _goes_on(trace, 50)
            assert [_log(opened, seq) for seq in moments] == before
    _ended(recorder, workspace)


def _log(opened: Trace, seq: int) -> bytes | None:
    path = opened.at(f"e{seq}") / "log"
    return path.read_bytes() if path.exists() else None


def test_it_is_not_replaced(recorder: subprocess.Popen[str], workspace: Path, trace: Path) -> None:
    """Not even by force: who starts the same twice loses neither recording, and is told."""
    for words in (["--force"], []):
        refused = harness.run("record", *words, "-o", trace, "--", "touch", workspace / "second")
        assert refused.returncode == TraceExistsError.exit_code
        assert f"{trace} is still being recorded" in refused.stderr
        assert "-o" in refused.stderr
    assert not (workspace / "second").exists()
    _ended(recorder, workspace)
    harness.assert_faithful(trace, workspace)
    assert harness.record(trace, ["true"], options=["--force"], cwd=workspace).returncode == 0


def test_its_recorder_was_killed(recorder: subprocess.Popen[str], workspace: Path, trace: Path) -> None:
    """From then on nothing is being recorded: what the journal has is indexed by who looks, and said to be cut off."""
    recorder.kill()
    recorder.wait()
    told = harness.run("timeline", trace)
    assert "still being recorded" not in told.stderr
    facts = json.loads(harness.run("info", "--json", trace).stdout)
    assert (facts["recording"], facts["complete"]) == (False, False)
    assert "cut off" in harness.run("info", trace).stdout
    (workspace.parent / "enough").touch()
