"""Core dumps: files that no call of the program makes, but the kernel, when it crashes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import diffkeeper
from diffkeeper.model import Op
from tests.system import harness

PATTERN = Path("/proc/sys/kernel/core_pattern")

CRASH = """
import os, resource, signal, sys, threading
resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
def crash():
    if not (pid := os.fork()):
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        os.abort()
    status = os.waitpid(pid, 0)[1]
    assert os.WCOREDUMP(status), status
"""


@pytest.fixture(autouse=True)
def pattern() -> Iterator[None]:
    """Core files come to the working directory, by the name of core."""
    before = PATTERN.read_text()
    PATTERN.write_text("core")
    yield
    PATTERN.write_text(before)


def crash(script: str, directory: Path, trace: Path, *options: str) -> None:
    result = harness.record(trace, [sys.executable, "-c", CRASH + script], cwd=directory, options=options)
    assert result.returncode == 0, result.stderr


def test_a_core_dump_on_every_filesystem(filesystem: Path, trace: Path) -> None:
    """It is in the trace from the moment of the crash on, told of the process that crashed, and nothing is lost."""
    crash("crash(); os.mkdir('after')", filesystem, trace)
    harness.assert_faithful(trace, filesystem)
    with diffkeeper.open(trace) as opened:
        events = list(opened.events())
        made = next(event for event in events if event.op is Op.CREATE and event.path.endswith(b"/core"))
        after = next(event for event in events if event.op is Op.MKDIR)
        assert made.pid != after.pid
        assert (opened.at(f"e{after.seq}") / "core").read_bytes() == (filesystem / "core").read_bytes()


def test_a_core_dump_of_a_small_program(filesystem: Path, trace: Path) -> None:
    """One that is written within a tick of the clock, too."""
    (filesystem / "sub").mkdir()
    script = "cd sub; ulimit -c unlimited; sh -c 'kill -ABRT $$'; test $? = 134"
    result = harness.record(trace, ["sh", "-c", script], cwd=filesystem)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, filesystem)


def test_core_dumps_over_one_another(workspace: Path, trace: Path) -> None:
    """A second dump takes the place of the first, and of one from before the command: each moment has its own."""
    (workspace / "core").write_bytes(b"of another program" * 1_000_000)
    crash("crash(); os.link('core', 'first'); crash(); os.mkdir('sub'); os.chdir('sub'); crash()", workspace, trace)
    harness.assert_faithful(trace, workspace)
    with diffkeeper.open(trace) as opened:
        assert (opened.at("start") / "core").read_bytes() == b"of another program" * 1_000_000


def test_a_core_dump_by_an_absolute_path(workspace: Path, filesystem: Path, trace: Path) -> None:
    """Into a directory on another filesystem than the one that the program works in, named after the process."""
    PATTERN.write_text(f"{workspace}/core-of-%e-%p")
    (filesystem / "file").write_bytes(b"not this one")
    script = "os.utime('file')\ncrash()\nos.utime('file')"
    command = [sys.executable, "-c", CRASH + script]
    result = harness.record(trace, command, cwd=filesystem, options=("--root", workspace, "--root", filesystem))
    assert result.returncode == 0, result.stderr
    assert len(list(workspace.iterdir())) == 1
    facts = harness.info(trace)
    assert not facts["lost"] and not facts["verified"]["mismatches"]
    with diffkeeper.open(trace) as opened:
        made = [event for event in opened.events() if event.op is Op.CREATE]
        assert [event.path for event in made] == [os.fsencode(path) for path in workspace.iterdir()]


def test_a_program_of_many_threads_that_crashes(workspace: Path, trace: Path) -> None:
    """Whichever thread it is that dumps."""
    script = """
if not (pid := os.fork()):
    def write():
        while open(f'own-{threading.get_ident()}', 'a').write('x'):
            pass
    for number in range(8):
        threading.Thread(target=write).start()
    while len(os.listdir()) < 8:
        pass
    os.abort()
assert os.WCOREDUMP(os.waitpid(pid, 0)[1])
"""
    crash(script, workspace, trace)
    harness.assert_faithful(trace, workspace)


def test_a_core_dump_that_is_left_out(workspace: Path, trace: Path) -> None:
    """A filter is asked about it, as about any other file."""
    crash("crash(); os.mkdir('after')", workspace, trace, "--filter", "gitignore:patterns=core")
    with diffkeeper.open(trace) as opened:
        assert not opened.session.lost
        assert not (opened.at("end") / "core").exists()


def test_a_core_dump_that_is_not_seen(workspace: Path, trace: Path) -> None:
    """Where the kernel does not tell what it changes, a core dump is a loss, and put right at the end."""
    older = "from diffkeeper.record import kernel as k; k.OPTIONAL_TRACEPOINTS = (); import diffkeeper.cli; "
    recorder = [sys.executable, "-c", older + "diffkeeper.cli.main()", "record", "-o", str(trace), "--"]
    subprocess.run([*recorder, sys.executable, "-c", CRASH + "crash()"], check=True, cwd=workspace)
    with diffkeeper.open(trace) as opened:
        assert opened.session.lost == {"core dump": 1}
    harness.assert_same(harness.recorded(trace, "end"), harness.truth(workspace))


def test_a_core_dump_that_a_program_takes(workspace: Path, trace: Path) -> None:
    """Where the kernel hands it to a program, no file is made, and nothing is missing."""
    PATTERN.write_text("|/bin/true")
    crash("crash()", workspace, trace)
    harness.assert_faithful(trace, workspace)
