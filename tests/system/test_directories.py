"""Directories that are deep, or by the time of a call others than they were."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import diffkeeper
from tests.system import harness


def test_a_tree_deeper_than_paths_are_long(workspace: Path, trace: Path) -> None:
    """Files below 4,096 bytes of path, there before and made by relative steps, are recorded and verified."""
    script = "import os\nfor n in range(20):\n    os.mkdir('d' * 250); os.chdir('d' * 250)\nopen('{}', 'w').write('{}')"
    subprocess.run([sys.executable, "-c", script.format("before", "was here")], cwd=workspace, check=True)
    deeper = "import os\nfor n in range(20):\n    os.chdir('d' * 250)\n"
    more = deeper + "open('before', 'a').write(' and more')\nopen('new', 'w')"
    result = harness.record(trace, [sys.executable, "-c", more], cwd=workspace)
    assert result.returncode == 0, result.stderr
    facts = harness.info(trace)
    assert (facts["lost"], facts["verified"]["mismatches"]) == (0, 0)
    with diffkeeper.open(trace) as opened:
        for moment, text in ("start", "was here"), ("end", "was here and more"):
            directory = opened.at(moment)
            for _ in range(20):
                directory /= "d" * 250
            assert (directory / "before").read_text() == text
        assert (directory / "new").read_text() == ""


def test_a_directory_that_is_another_one(tmp_path: Path, workspace: Path, trace: Path) -> None:
    """Where the trace has another directory than is there, all that is in it is compared and put right."""
    for name in ("one", "two"):
        (workspace / name / f"deep {name}").mkdir(parents=True)
        (workspace / name / f"deep {name}" / "file").write_text(name)
    script = """
import os, time
open('touched', 'w').close()
open('../ready', 'w').close()
while not os.path.exists('../go'): time.sleep(0.01)
os.chmod('one', 0o700)
"""
    words = [*harness.DIFFKEEPER, "record", "-o", str(trace), "--", sys.executable, "-c", script]
    recorder = subprocess.Popen(words, cwd=workspace)
    harness.wait_for((tmp_path / "ready").exists)
    (workspace / "one").rename(workspace / "three")  # by nobody who is recorded
    (workspace / "two").rename(workspace / "one")
    (tmp_path / "go").touch()
    assert recorder.wait(60) == 0
    end, real = harness.recorded(trace, "end"), harness.truth(workspace)
    assert {path for path in end if path.startswith("one")} == {path for path in real if path.startswith("one")}
    assert end["one/deep two/file"] == real["one/deep two/file"]


def test_a_directory_that_became_something_else(tmp_path: Path, workspace: Path, trace: Path) -> None:
    """What the trace has below a path goes with it, whether nothing or a symlink is there now."""
    for name in ("one", "two", "deep"):
        (workspace / name).mkdir()
    script = """
import os, time
for name in ('one', 'one.txt', 'two', 'two.txt'): open(f'{name}/file' if '.' not in name else name, 'w').close()
open('../ready', 'w').close()
while not os.path.exists('../go'): time.sleep(0.01)
"""
    words = [*harness.DIFFKEEPER, "record", "-o", str(trace), "--", sys.executable, "-c", script]
    recorder = subprocess.Popen(words, cwd=workspace)
    harness.wait_for((tmp_path / "ready").exists)
    subprocess.run("rm -r one two *.txt; ln -s deep two; echo other > deep/file", shell=True, cwd=workspace, check=True)
    (tmp_path / "go").touch()
    assert recorder.wait(60) == 0
    end = harness.recorded(trace, "end")
    assert {path for path in end if not path.startswith("deep")} == {".", "two"}
    assert end["two"] == harness.truth(workspace)["two"]
