"""Recorded once more into the same place: what is taken from the recording before, and what had better not be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import diffkeeper
from diffkeeper.model import Fidelity
from tests.filesystems import mounted

from . import harness

MIB = 1 << 20


def test_files_that_did_not_change_are_not_read_again(tmp_path: Path) -> None:
    """Recorded over the trace of before, they come from there; what changed meanwhile is read; each moment is right."""
    with mounted("ext4", tmp_path) as point:
        for number in range(20):
            (point / f"file{number}").write_bytes(os.urandom(100_000))
        with open(point / "sparse", "wb") as sparse:
            sparse.truncate(4 << 20)
            sparse.seek(3 << 20)
            sparse.write(b"data")
        os.link(point / "file1", point / "hard")
        os.setxattr(point / "file2", "user.note", b"text")
        start, trace = harness.truth(point), tmp_path / "trace"
        change = ["sh", "-c", "echo more >> file3; mv file4 moved; touch file5"]
        record = [sys.executable, "-m", "tests.system.no_margin", "record", "--force", "-o", str(trace), "--", *change]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        subprocess.run(record, cwd=point, env=environment, check=True)
        harness.assert_same(harness.recorded(trace, "start"), start)
        harness.assert_faithful(trace, point)
        (point / "moved").rename(point / "file4")
        (point / "file6").write_bytes(b"by somebody else")
        start = harness.truth(point)
        for _ in range(2):  # the third takes from the second what that took from the first
            subprocess.run(record, cwd=point, env=environment, check=True)
            harness.assert_same(harness.recorded(trace, "start"), start)
            facts = harness.assert_faithful(trace, point)
            assert "not read again" in str(facts["notes"])
            assert not (trace / "earlier").exists()
            (point / "moved").rename(point / "file4")
            start = harness.truth(point)
        assert harness.run("check", trace).returncode == 0


def test_files_that_may_have_changed_are_read_again(workspace: Path, trace: Path) -> None:
    """Whether their bytes changed, their holes, their attributes, or nothing: each moment is right."""
    for number in range(20):
        (workspace / f"file{number}").write_bytes(os.urandom(100_000))
    for name in ("large", "other"):
        (workspace / name).write_bytes(os.urandom(3 * MIB + 5))
    with open(workspace / "sparse", "wb") as sparse:
        sparse.truncate(8 * MIB)
        sparse.seek(6 * MIB)
        sparse.write(b"data")
    (workspace / "empty").touch()
    for path in (workspace / "file1", workspace / "other", workspace / "sparse"):
        os.setxattr(path, "user.note", b"before")
    harness.record(trace, ["sh", "-c", "echo more >> file3"], cwd=workspace)
    for name in ("file4", "other"):
        with open(workspace / name, "r+b") as file:
            file.write(b"by somebody else")
    with open(workspace / "sparse", "r+b") as file:
        file.seek(3 * MIB)
        file.write(b"\0" * 8)
    os.utime(workspace / "large", (1, 1))
    os.setxattr(workspace / "file1", "user.note", b"after")
    (workspace / "file5").rename(workspace / "file6")
    for _ in range(2):
        start = harness.truth(workspace)
        harness.record(trace, ["true"], cwd=workspace, options=["--force"])
        harness.assert_same(harness.recorded(trace, "start"), start)
        harness.assert_faithful(trace, workspace)
        assert harness.run("check", trace).returncode == 0


def test_after_a_recorder_that_was_killed(workspace: Path, trace: Path) -> None:
    """What was not indexed then has no content there, and is read."""
    for number in range(2_000):
        (workspace / f"file{number}").write_bytes(os.urandom(10_000))
    recorder = subprocess.Popen(
        [sys.executable, "-m", "diffkeeper", "record", "-o", trace, "--", "sh", "-c", "echo $$ > begun; exec sleep 60"],
        cwd=workspace, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    harness.wait_for(lambda: (workspace / "begun").exists() and (workspace / "begun").read_text())
    command = int((workspace / "begun").read_text())
    children = Path(f"/proc/{recorder.pid}/task/{recorder.pid}/children").read_text().split()
    for pid in (recorder.pid, *(int(child) for child in children if int(child) != command)):
        os.kill(pid, signal.SIGKILL)
    recorder.wait()
    os.kill(command, signal.SIGTERM)
    start = harness.truth(workspace)
    assert harness.record(trace, ["true"], cwd=workspace, options=["--force"]).returncode == 0
    harness.assert_same(harness.recorded(trace, "start"), start)
    harness.assert_faithful(trace, workspace)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """Nobody knows what is in it, which the trace says; recording it once more does not make that bytes."""
    trace, image = tmp_path / "trace", tmp_path / "image"
    with mounted("ext4", tmp_path, "64M") as point:
        (point / "file").write_bytes(os.urandom(32 * MIB))
        (point / "small").write_bytes(b"whole")
        os.sync()
        with open(image, "r+b") as file:
            file.truncate(24 * MIB)
        with open(point / "file", "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for options in ([], ["--force"]):
            result = harness.record(trace, ["true"], cwd=point, options=options)
            assert result.returncode == 0, result.stderr
            assert f"not readable: {point / 'file'}" in harness.info(trace)["notes"]
            with diffkeeper.open(trace) as opened:
                end = opened.at("end")
                assert (end / "file").attrs().fidelity == Fidelity.UNKNOWN
                assert (end / "small").read_bytes() == b"whole"
