"""What somebody else changes under the roots while a command is recorded: the last moment has it, and it is said."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import diffkeeper
from diffkeeper.model import FROM_OUTSIDE

from . import harness

COMMAND = "echo mine >> touched/mine; touch ../begun; while [ ! -e ../ended ]; do sleep 0.01; done"

CHANGES: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "nothing": (lambda top: None, set()),
    "a new file": (lambda top: (top / "quiet/new").write_bytes(b"new"), {"quiet", "quiet/new"}),
    "beside one of ours": (lambda top: (top / "touched/new").write_bytes(b"new"), {"touched", "touched/new"}),
    "removed beside one of ours": (lambda top: (top / "touched/file").unlink(), {"touched", "touched/file"}),
    "written in place": (lambda top: (top / "quiet/file").write_bytes(b"other"), {"quiet/file"}),
    "of the same size": (lambda top: (top / "quiet/file").write_bytes(b"elif"), {"quiet/file"}),
    "written, and its time given back": (
        lambda top: rewrite(top / "quiet/file"), {"quiet/file"},
    ),
    "replaced by a rename": (
        lambda top: ((top / "quiet/new").write_bytes(b"xyz"), (top / "quiet/new").rename(top / "quiet/file")),
        {"quiet", "quiet/file"},
    ),
    "removed": (lambda top: (top / "quiet/file").unlink(), {"quiet", "quiet/file"}),
    "its mode": (lambda top: (top / "quiet/file").chmod(0o600), {"quiet/file"}),
    "the mode of a root": (lambda top: top.chmod(0o700), {"."}),
    "a tree": (lambda top: (top / "tree/deep").mkdir(parents=True), {".", "tree", "tree/deep"}),
    "a tree that is gone": (
        lambda top: subprocess.run(["rm", "-r", top / "quiet"], check=True),
        {".", "quiet"},
    ),
}  # fmt: skip


def rewrite(path: Path) -> None:
    status = path.stat()
    path.write_bytes(b"elif")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def later_than(path: Path, signal: Path) -> bool:
    """Whether there is a signal, and the kernel's clock has ticked since a path was changed."""
    if signal.exists():
        os.utime(signal)
        return signal.stat().st_mtime_ns > path.stat().st_mtime_ns
    return False


def meanwhile(workspace: Path, trace: Path, change: Callable[[Path], object], *options: str) -> Any:
    """Record while this process changes something; what `info` says."""
    for name in ("quiet", "touched"):
        (workspace / name).mkdir(exist_ok=True)
        (workspace / name / "file").write_bytes(b"file")
    words = [*harness.DIFFKEEPER, "record", "-o", str(trace), *options, "--", "sh", "-c", COMMAND]
    recorder = subprocess.Popen(words, cwd=workspace, stderr=subprocess.PIPE, text=True)
    harness.wait_for(lambda: later_than(workspace / "touched", workspace.parent / "begun"))
    change(workspace)
    (workspace.parent / "ended").touch()
    _, said = recorder.communicate()
    assert recorder.returncode == 0, said
    return harness.info(trace)


def outside(trace: Path, root: Path) -> set[str]:
    """The paths that are told to have been changed from outside."""
    with diffkeeper.open(trace) as opened:
        return {
            os.path.relpath(os.fsdecode(event.path), root)
            for event in opened.events(op="heal") if event.detail.startswith(FROM_OUTSIDE)
        }  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_changed_from_outside(workspace: Path, trace: Path, what: str) -> None:
    """Whatever it is: the last moment is the directory, and each path that was changed is told, and none besides."""
    change, paths = CHANGES[what]
    facts = meanwhile(workspace, trace, change)
    harness.assert_same(harness.recorded(trace, "end"), harness.truth(workspace))
    assert outside(trace, workspace) == paths
    assert facts["verified"]["others"] == facts["verified"]["mismatches"]
    assert facts["lost"] == 0


def test_in_place_of_what_was_there(workspace: Path, trace: Path) -> None:
    """Moments until the end have what was there before; the last one has what is there, with the bytes."""
    meanwhile(workspace, trace, lambda top: (top / "quiet/file").write_bytes(b"other"))
    with diffkeeper.open(trace) as opened:
        heal = next(iter(opened.events(op="heal")))
        assert (opened.at(heal.seq - 1) / "quiet/file").read_bytes() == b"file"
        assert (opened.at("end") / "quiet/file").read_bytes() == b"other"
    timeline = harness.run("timeline", trace).stdout
    assert "quiet/file: changed from outside (times, content), put right at the end" in timeline
    assert "1 of these were changed from outside" in harness.run("info", trace).stdout


def test_what_a_filter_leaves_out(workspace: Path, trace: Path) -> None:
    """It is left out also where somebody else changes it, be it new or not."""
    (workspace / "build").mkdir()
    for name in ("build/object", "a.tmp"):
        (workspace / name).write_bytes(b"before")

    def change(top: Path) -> None:
        for name in ("build/object", "build/new", "a.tmp"):
            (top / name).write_bytes(b"changed")

    facts = meanwhile(workspace, trace, change, "--filter", "glob:exclude=build/,*.tmp")
    assert facts["verified"]["mismatches"] == 0


def test_a_filesystem_that_is_mounted_meanwhile(workspace: Path, trace: Path) -> None:
    """By others, it is none of what is recorded: the place has at the end what it had before."""

    def change(top: Path) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "none", top / "quiet"], check=True)
        (top / "quiet/elsewhere").write_bytes(b"elsewhere")

    try:
        facts = meanwhile(workspace, trace, change)
    finally:
        subprocess.run(["umount", workspace / "quiet"], check=True)
    assert facts["verified"]["mismatches"] == 0
    harness.assert_same(harness.recorded(trace, "end"), harness.truth(workspace))


def test_from_one_root_to_another(tmp_path: Path, workspace: Path, trace: Path) -> None:
    """Moved by others, a file is gone from where it was, and told with its bytes where it is."""
    other = tmp_path / "other"
    other.mkdir()
    facts = meanwhile(
        workspace, trace, lambda top: (top / "quiet/file").rename(other / "moved"), "--root", ".", "--root", str(other)
    )
    assert outside(trace, workspace) == {"quiet", "quiet/file", "../other", "../other/moved"}
    assert facts["verified"]["others"] == facts["verified"]["mismatches"] == 4
    with diffkeeper.open(trace) as opened:
        assert (opened.at("end") / str(other / "moved")).read_bytes() == b"file"


def test_what_was_lost_is_not_blamed_on_others(workspace: Path, trace: Path) -> None:
    """Where something was lost, nobody can say who it was."""
    (workspace / "quiet").mkdir()
    program = "import os; f = os.open('quiet/lost', os.O_RDWR | os.O_CREAT); os.write(f, bytes(100_000_000))"
    harness.small_ring(1 << 16, program, workspace, trace).wait()
    assert harness.info(trace)["verified"]["others"] == 0
