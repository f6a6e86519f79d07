"""Who would notice that a process is held: its parent, its debugger, and the kernel where its group is orphaned."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system import harness

PRELUDE = """
import ctypes, os, select, signal, subprocess, time
libc = ctypes.CDLL(None, use_errno=True)
def begin(*words):
    pid = os.fork()
    if not pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvp(words[0], words)
    return pid
"""
ASKS = """
child = begin('cp', 'from', 'to')
status = os.waitpid(child, os.WUNTRACED)[1]
assert os.WIFEXITED(status), hex(status)
"""
READS_SIGCHLD = """
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
child = begin('cp', 'from', 'to')
told = signal.sigwaitinfo({signal.SIGCHLD})
assert told.si_code == 1, told  # CLD_EXITED
os.waitpid(child, 0)
"""
HANDLES_SIGCHLD = """
told = []
def handle(number, frame):
    told.append(os.waitpid(-1, os.WNOHANG | os.WUNTRACED))
signal.signal(signal.SIGCHLD, handle)
begin('cp', 'from', 'to')
while not told:
    signal.pause()
assert os.WIFEXITED(told[0][1]), told
"""
HANDLES_LATE = "os.waitpid(begin('true'), 0)" + HANDLES_SIGCHLD  # as sudo, for PAM
DEBUGS = """
TRACEME, CONT = 0, 7
child = os.fork()
if not child:
    assert libc.ptrace(TRACEME, 0, None, None) == 0
    os.execvp('cp', ['cp', 'from', 'to'])
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
told = []
while os.WIFSTOPPED(status := os.waitpid(child, 0)[1]):
    told.append(os.WSTOPSIG(status))
    assert libc.ptrace(CONT, child, None, None) == 0
assert told == [signal.SIGTRAP], told  # at exec
"""
WAITS = "subprocess.run(['sh', '-c', 'sleep 0.1; exec cp from to'], check=True)"
READS_A_PIPE = """
child = subprocess.Popen(['sh', '-c', 'sleep 0.1; exec cp from to'], stdout=subprocess.PIPE)
assert child.stdout.read() == b''
assert child.wait() == 0
"""
IN_THE_BACKGROUND = "assert os.system('(sleep 0.1; exec cp from to) & wait') == 0"
HAS_WAITED = """
signal.signal(signal.SIGCHLD, lambda number, frame: None)
subprocess.run(['true'])
child = begin('cp', 'from', 'to')
time.sleep(0.5)
os.waitpid(child, 0)
"""


def copied(words: list[str], workspace: Path, trace: Path) -> None:
    """Record a command that copies `from` to `to`, which is over soon, and well."""
    (workspace / "from").write_bytes(os.urandom(1_000_000))
    result = harness.record(trace, words, cwd=workspace, stdin=-3, timeout=60)
    assert result.returncode == 0, result.stderr
    assert (workspace / "to").read_bytes() == (workspace / "from").read_bytes()
    harness.assert_same(harness.recorded(trace, "end"), harness.truth(workspace))
    facts = harness.info(trace)
    assert not facts["lost"]
    assert not facts["verified"]["mismatches"]


@pytest.mark.parametrize(
    "words",
    [
        ["sudo", "cp", "from", "to"],
        ["su", "-s", "/bin/sh", "root", "-c", "exec cp from to"],
        ["runuser", "-u", "root", "--", "cp", "from", "to"],
        ["script", "-qec", "cp from to", "/dev/null"],
        ["script", "-qec", "sudo cp from to", "/dev/null"],
        ["timeout", "50", "cp", "from", "to"],
    ],
    ids=lambda words: words[0],
)
def test_programs_that_run_others(words: list[str], workspace: Path, trace: Path) -> None:
    """Some of these stop themselves when the process that they run is stopped, and would never be continued."""
    copied(words, workspace, trace)


@pytest.mark.parametrize("script", [ASKS, READS_SIGCHLD, HANDLES_SIGCHLD, HANDLES_LATE, DEBUGS])
def test_who_would_notice(script: str, workspace: Path, trace: Path) -> None:
    """A parent that asks for stops, or is told of them, sees none; nor does a debugger. The file is read meanwhile."""
    copied([sys.executable, "-c", PRELUDE + script], workspace, trace)
    facts = harness.info(trace)
    assert facts["fidelity"].get("reread")


@pytest.mark.parametrize("script", [WAITS, READS_A_PIPE, IN_THE_BACKGROUND, HAS_WAITED])
def test_who_would_not_notice(script: str, workspace: Path, trace: Path) -> None:
    """Of a parent that waits for the end of its children, the children are held, and what they copy is exact."""
    copied([sys.executable, "-c", PRELUDE + script], workspace, trace)
    facts = harness.info(trace)
    assert not facts["fidelity"].get("reread")
    assert any("held writers" in note for note in facts["notes"])


LEFT_BEHIND = """
set -m
(cp from to; cp to copy; touch finished) &
until [ "$(stat -c %s to)" = 200000000 ]; do :; done 2> /dev/null
"""


def test_a_shell_that_ends_before_its_job(workspace: Path, trace: Path) -> None:
    """A process group that a shell has made for a job is an orphan when the shell has ended. Were one of its processes
    stopped then, the kernel would send all of them SIGHUP."""
    (workspace / "from").write_bytes(bytes(200_000_000))
    result = harness.record(trace, ["bash", "-c", LEFT_BEHIND], cwd=workspace, options=["--wait-tree"])
    assert result.returncode == 0, result.stderr
    assert (workspace / "finished").exists()
    harness.assert_same(harness.recorded(trace, "end"), harness.truth(workspace))


SHELL = """
import os, subprocess, sys, time
signs, dies, *words = sys.argv[1:]
recorder = subprocess.Popen(words, process_group=0)
while not os.path.exists(signs + '/held'):
    time.sleep(0.001)
if dies == 'recorder':
    recorder.kill()
    recorder.wait()
    open(signs + '/go', 'w').close()
    time.sleep(60)
"""


@pytest.mark.parametrize("dies", ["shell", "recorder"])
def test_a_recording_that_is_a_job_itself(dies: str, tmp_path: Path, workspace: Path, trace: Path) -> None:
    """The shell from which it was begun ends, or the recorder is killed, while the command is held: that goes on."""
    signs = tmp_path / "signs"
    signs.mkdir()
    (workspace / "from").write_bytes(b"x" * 100_000)
    command = ["sh", "-c", "cp from to; echo well > finished"]
    words = [sys.executable, "-m", "tests.system.held", str(trace), str(signs), *command]
    shell = subprocess.Popen(
        [sys.executable, "-c", SHELL, signs, dies, *words], cwd=workspace, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    try:
        harness.wait_for((signs / "held").exists)
        if dies == "shell":
            assert shell.wait(60) == 0
            (signs / "go").touch()
        harness.wait_for((workspace / "finished").exists)
    finally:
        shell.kill()
        shell.wait()
    assert (workspace / "to").read_bytes() == b"x" * 100_000


def test_a_command_that_leaves_a_stopped_process(workspace: Path, trace: Path) -> None:
    """In a group that no shell looks after, as under most CI, the end of our own processes does not end all others."""
    leaves = "sleep 600 & kill -STOP $! && echo $! > left"
    words = [*harness.DIFFKEEPER, "record", "-o", str(trace), "--", "sh", "-c", leaves]
    script = 'trap "touch hung-up" HUP; "$@"; echo $? > code'
    build = ["sh", "-c", script, "sh", *words]
    subprocess.run(build, cwd=workspace, start_new_session=True, timeout=60, check=False)
    left = int((workspace / "left").read_text())
    try:
        assert harness.process_state(left) == "T"
        assert not (workspace / "hung-up").exists()
        assert (workspace / "code").read_text() == "0\n"
    finally:
        os.kill(left, signal.SIGKILL)
