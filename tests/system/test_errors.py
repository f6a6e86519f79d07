"""Bad input and bad luck: one line that says what is wrong and what to do, an exit code of its own, nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.system import harness


def assert_refused(result: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """The exit code, one line on stderr that has these words, no traceback."""
    assert result.returncode == code, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("diffkeeper: ")
    for word in words:
        assert word in lines[0]


def record_in_namespace(preparation: str, workspace: Path, trace: Path) -> subprocess.CompletedProcess[str]:
    """`diffkeeper record` where a mount namespace of its own lacks something, with nothing cached."""
    empty = trace.parent / "empty"
    empty.mkdir()
    script = f'mount --bind {empty} /var/cache && {preparation} && exec "$@"'
    command = [*harness.DIFFKEEPER, "record", "-o", str(trace), "--", "touch", "ran"]
    Path("/var/cache").mkdir(exist_ok=True)
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script.replace("$empty", str(empty)), "sh", *command],
        cwd=workspace, check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.fixture
def recorded(workspace: Path, trace: Path) -> Path:
    """A small trace of `echo 1 > file`, `echo 2 > file`."""
    result = harness.record(trace, ["sh", "-c", "echo 1 > file; sleep 0.01; echo 2 > file"], cwd=workspace)
    assert result.returncode == 0, result.stderr
    return trace


def test_a_kernel_without_btf(workspace: Path, trace: Path) -> None:
    """81, and the command was not run: nothing is left behind."""
    result = record_in_namespace("mount --bind /dev/null /sys/kernel/btf/vmlinux", workspace, trace)
    assert_refused(result, 81, "BTF")
    assert not (workspace / "ran").exists()
    assert not trace.exists()


def test_a_machine_without_bcc(workspace: Path, trace: Path) -> None:
    """82, with the package to install."""
    hide = "for d in /usr/lib/python3/dist-packages; do mount --bind $empty $d; done"
    assert_refused(record_in_namespace(hide, workspace, trace), 82, "bcc", "apt install python3-bpfcc")
    assert not (workspace / "ran").exists()
    assert not trace.exists()


def test_an_old_kernel(workspace: Path, trace: Path) -> None:
    """80: a kernel that says it is a 2.6 has no BPF ring buffer."""
    command = ["setarch", "--uname-2.6", *harness.DIFFKEEPER, "record", "-o", str(trace), "--", "true"]
    result = subprocess.run(command, cwd=workspace, check=False, capture_output=True, text=True, timeout=60)
    assert_refused(result, 80, "5.8")
    assert not trace.exists()


def test_a_machine_without_fuse(recorded: Path, tmp_path: Path) -> None:
    """83 when /dev/fuse is not there."""
    point = tmp_path / "point"
    point.mkdir()
    command = [*harness.DIFFKEEPER, "mount", str(recorded), str(point)]
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev && exec "$@"', "sh", *command],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert_refused(result, 83, "fuse")


READERS: list[Sequence[str]] = [
    ("info",),
    ("timeline",),
    ("check",),
    ("diff", "TRACE", "start", "end"),
    ("export", "TRACE", "--time", "end", "--out", "OUT"),
    ("mount", "TRACE", "OUT"),
]


def read(words: Sequence[str], trace: Path, out: Path) -> subprocess.CompletedProcess[str]:
    words = words if "TRACE" in words else (*words, "TRACE")
    return harness.run(*[{"TRACE": str(trace), "OUT": str(out)}.get(word, word) for word in words])


@pytest.mark.parametrize("words", READERS)
def test_a_trace_that_is_missing(words: Sequence[str], tmp_path: Path) -> None:
    """85 from every command that reads one."""
    (tmp_path / "out").mkdir()
    assert_refused(read(words, tmp_path / "nowhere", tmp_path / "out"), 85, "nowhere")


@pytest.mark.parametrize("words", READERS)
def test_something_that_is_no_trace(words: Sequence[str], tmp_path: Path) -> None:
    """86 for a directory, and a file, of anybody's."""
    (tmp_path / "out").mkdir()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_text("meow")
    assert_refused(read(words, tmp_path / "photos", tmp_path / "out"), 86, "not a trace")
    assert_refused(read(words, tmp_path / "photos/cat.jpg", tmp_path / "out"), 86, "not a trace")
    assert (tmp_path / "photos/cat.jpg").read_text() == "meow"


@pytest.mark.parametrize("words", READERS)
def test_a_trace_of_a_newer_format(words: Sequence[str], recorded: Path, tmp_path: Path) -> None:
    """87, and nothing is touched."""
    facts = json.loads((recorded / "session.json").read_text())
    (recorded / "session.json").write_text(json.dumps({**facts, "format": 99}))
    (tmp_path / "out").mkdir()
    assert_refused(read(words, recorded, tmp_path / "out"), 87, "newer")


@pytest.mark.parametrize("words", READERS)
def test_a_damaged_trace(words: Sequence[str], recorded: Path, tmp_path: Path) -> None:
    """88 when the index is garbage from its first byte."""
    size = (recorded / "index.lmdb").stat().st_size
    (recorded / "index.lmdb").write_bytes(os.urandom(size))
    (tmp_path / "out").mkdir()
    assert_refused(read(words, recorded, tmp_path / "out"), 88, "damaged")


@pytest.mark.parametrize("moment", ["gestern", "2x", "e999999", "99h", "no-such-mark", "end-99h", "@", "e-1"])
def test_a_moment_that_is_misspelt_or_out_of_range(recorded: Path, tmp_path: Path, moment: str) -> None:
    """89 from export and diff, and nothing is written."""
    out = tmp_path / "out"
    assert_refused(harness.run("export", recorded, "--time", moment, "--out", out), 89)
    assert not out.exists()
    assert_refused(harness.run("diff", recorded, "start", moment), 89)


def test_mountpoints_that_will_not_do(recorded: Path, workspace: Path, tmp_path: Path) -> None:
    """90: missing, not a directory, not empty, inside the trace, over the root."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    for point in (tmp_path / "missing", tmp_path / "full/file", tmp_path / "full", recorded, workspace):
        assert_refused(harness.run("mount", recorded, point), 90, str(point))
    assert (tmp_path / "full/file").read_text() == "mine"


def test_a_busy_mountpoint(recorded: Path, tmp_path: Path) -> None:
    """90 for a second mount on the same directory; the first goes on."""
    point = tmp_path / "point"
    point.mkdir()
    assert harness.run("mount", recorded, point).returncode == 0
    try:
        assert_refused(harness.run("mount", recorded, point), 90)
        assert (point / "@end/file").read_text() == "2\n"
    finally:
        assert harness.run("umount", point).returncode == 0
    assert_refused(harness.run("umount", point), 90)


def test_an_export_destination_that_exists(recorded: Path, tmp_path: Path) -> None:
    """91, for a file and a directory; neither is touched."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out.tar").write_text("mine")
    assert_refused(harness.run("export", recorded, "--time", "end", "--out", tmp_path / "out"), 91, "out")
    assert_refused(harness.run("export", recorded, "--time", "end", "--out", tmp_path / "out.tar"), 91, "out.tar")
    assert list((tmp_path / "out").iterdir()) == []
    assert (tmp_path / "out.tar").read_text() == "mine"


def test_plugins_that_are_not_there(recorded: Path, workspace: Path, tmp_path: Path) -> None:
    """92 for an unknown exporter, filter or option; the command is not run."""
    out = tmp_path / "out"
    assert_refused(harness.run("export", recorded, "--time", "end", "--out", out, "--format", "papyrus"), 92, "papyrus")
    result = harness.record(tmp_path / "t", ["touch", "ran"], cwd=workspace, options=["--filter", "sieve"])
    assert_refused(result, 92, "sieve")
    result = harness.record(tmp_path / "t", ["touch", "ran"], cwd=workspace, options=["--filter", "glob:colour=red"])
    assert_refused(result, 92, "colour")
    assert not (workspace / "ran").exists()
    assert not (tmp_path / "t").exists()
