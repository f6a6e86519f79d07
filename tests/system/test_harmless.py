"""Being recorded harms nobody: the command has its streams, signals and exit code, and outlives its recorder."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import diffkeeper
from tests.system import harness


@pytest.mark.parametrize(
    ("command", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 143), ("kill -9 $$", 137)]
)
def test_the_exit_code_is_the_commands(workspace: Path, trace: Path, command: str, code: int) -> None:
    """As a shell would report it: its own, or 128+N when signal N killed it; the trace says the same."""
    assert harness.record(trace, ["sh", "-c", command], cwd=workspace).returncode == code
    assert harness.info(trace)["exit_code"] == code


def test_standard_streams_are_the_commands_own(workspace: Path, trace: Path) -> None:
    """Input reaches the command, output comes back untouched; our own words are on stderr only."""
    result = harness.record(trace, ["sh", "-c", "cat; echo oops >&2"], cwd=workspace, input="through\n")
    assert result.stdout == "through\n"
    assert "oops" in result.stderr
    assert "diffkeeper timeline" in result.stderr


INHERITED = """
import os, resource, signal, sys
limits = [resource.getrlimit(number) for number in range(16)]
told = ("SigBlk", "SigIgn", "SigCgt", "Umask", "Cap", "NoNewPrivs", "Seccomp")
signals = [line for line in open("/proc/self/status") if line.startswith(told)]
fds = sorted(os.listdir("/proc/self/fd"))
print(sorted(os.environ.items()), limits, signals, fds, os.nice(0), os.getcwd(), os.sched_getscheduler(0))
"""


def test_the_command_inherits_what_it_would_without_us(workspace: Path, trace: Path) -> None:
    """Environment, limits, signals, umask, open files, priority: as if it had been started by our own caller."""
    words = [sys.executable, "-c", INHERITED]
    bare = subprocess.run(words, cwd=workspace, capture_output=True, text=True, check=True).stdout
    assert bare
    assert harness.record(trace, words, cwd=workspace).stdout == bare


LIMITS = {"AS": 128 << 20, "CPU": 1, "DATA": 64 << 20, "FSIZE": 1 << 20, "MEMLOCK": 0, "NOFILE": 16, "NPROC": 1}
TOO_LITTLE = ("AS", "CPU", "DATA", "NOFILE")
MAY_RAISE = bool(int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16) >> 24 & 1)


def limited(name: str, hard: bool, *words: str) -> list[str]:
    """Run `words` with a limit."""
    which, least = f"resource.RLIMIT_{name}", LIMITS[name]
    most = least if hard else f"resource.getrlimit({which})[1]"
    script = f"import os, resource, sys; resource.setrlimit({which}, ({least}, {most}))"
    return [sys.executable, "-c", f"{script}; os.execvp(sys.argv[1], sys.argv[1:])", *words]


@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
@pytest.mark.parametrize("name", LIMITS)
def test_limits_are_the_commands(name: str, hard: bool, workspace: Path, trace: Path) -> None:
    """The command finds each as given; none ends a recorder, or it is not begun where it may not be raised."""
    script = "grep Max /proc/self/limits; for i in 1 2 3; do head -c 900000 /dev/zero > f$i; done"
    words = [*harness.DIFFKEEPER, "record", "-o", str(trace), "--", "sh", "-c", script]
    recorded = subprocess.run(limited(name, hard, *words), cwd=workspace, capture_output=True, text=True, check=False)
    if hard and name in TOO_LITTLE and not MAY_RAISE:
        assert (recorded.returncode, len(recorded.stderr.splitlines())) == (77, 1), recorded.stderr
        assert "ulimit" in recorded.stderr
        assert not trace.exists()
        return
    assert recorded.returncode == 0, recorded.stderr
    if hard and name == "FSIZE" and not MAY_RAISE:
        assert "File too large" in recorded.stderr
        assert "incomplete" in recorded.stderr
    else:
        harness.assert_faithful(trace, workspace)
    bare = limited(name, hard, "grep", "Max", "/proc/self/limits")
    assert subprocess.run(bare, capture_output=True, text=True, check=True).stdout == recorded.stdout


@contextmanager
def little_memory(size: int) -> Iterator[Path]:
    """A control group that may have so many bytes."""
    top = Path("/sys/fs/cgroup/memory")
    limit = "memory.limit_in_bytes"
    if not top.is_dir():
        top, limit = Path("/sys/fs/cgroup"), "memory.max"
        if "memory" not in (top / "cgroup.subtree_control").read_text():
            pytest.skip("no control group for memory can be made here")
    group = top / f"diffkeeper-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / limit).write_text(str(size))
        yield group
    finally:
        harness.wait_for(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def test_a_container_with_little_memory(workspace: Path, trace: Path) -> None:
    """A command that takes half of it, and does much: neither it nor the recorder is killed, and nothing is lost."""
    script = "memory = b'x' * (80 << 20)\nfor n in range(30000):\n open('a', 'w').close(); os.rename('a', f'b{n % 9}')"
    script = f"import os\n{script}\nwith open('c', 'wb', 0) as file:\n for n in range(30000): file.write(b'y' * 4000)"
    with little_memory(160 << 20) as group:
        joins = f'echo $$ > {group}/cgroup.procs; exec "$@"'
        words = [*harness.DIFFKEEPER, "record", "-o", str(trace), "--", sys.executable, "-c", script]
        result = subprocess.run(["sh", "-c", joins, "sh", *words], cwd=workspace, stderr=subprocess.PIPE, check=False)
        assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, workspace)
    assert any("as memory is short" in note for note in harness.info(trace)["notes"])


@pytest.mark.parametrize("where", ["full disk", "nobody reads", "hung up"])
def test_nowhere_to_say_anything(where: str, workspace: Path, trace: Path) -> None:
    """The exit code is the command's, also where our own words find no way out."""
    for number in range(5_000):  # enough for a bar on a terminal
        (workspace / f"f{number}").touch()
    heard, said = pty.openpty() if where == "hung up" else os.pipe()
    if where == "full disk":
        os.close(said)
        said = os.open("/dev/full", os.O_WRONLY)
    wait = "while test ! -e ../go-on; do sleep 0.01; done"
    script = f"echo x > begun; {wait}; for i in $(seq 2000); do : > g$i; done"
    words = [*harness.DIFFKEEPER, "record", "-o", str(trace), "--", "sh", "-c", script]
    with subprocess.Popen(words, cwd=workspace, stderr=said) as recorder:
        os.close(said)
        harness.wait_for((workspace / "begun").exists)
        os.close(heard)
        (workspace.parent / "go-on").touch()
        assert recorder.wait(60) == 0
    harness.assert_faithful(trace, workspace)


def test_standard_streams_that_are_closed(workspace: Path, trace: Path) -> None:
    """The command finds them closed as without us, and no file of the recording takes their place."""
    script = 'import os, sys; print(sys.argv[1:], os.listdir("/proc/self/fd"), file=open("said", "w")); sys.exit(3)'
    said = []
    for name, record in (("bare", ()), ("recorded", (*harness.DIFFKEEPER, "record", "-o", trace, "--"))):
        where = workspace if record else workspace.parent
        closing = 'exec "$@" <&- >&- 2>&-'
        words = ["sh", "-c", closing, "sh", *map(str, record), sys.executable, "-c", script, "word"]
        assert subprocess.run(words, cwd=where, check=False).returncode == 3, name
        said.append((where / "said").read_text())
    assert said[0] == said[1]
    harness.assert_faithful(trace, workspace)


def test_a_caller_that_waits_for_no_children(workspace: Path, trace: Path) -> None:
    """Where SIGCHLD is ignored nobody can wait for his children: we can, and the command finds it as it was."""
    words = [sys.executable, "-c", INHERITED + "sys.exit(3)"]

    def ignoring(*command: object) -> subprocess.CompletedProcess[str]:
        ignore = "import os, sys; from signal import *; signal(SIGCHLD, SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
        words = [sys.executable, "-c", ignore, *map(str, command)]
        return subprocess.run(words, cwd=workspace, capture_output=True, text=True, check=False)

    bare = ignoring(*words)
    recorded = ignoring(*harness.DIFFKEEPER, "record", "-o", trace, "--", *words)
    assert (recorded.returncode, recorded.stdout) == (3, bare.stdout), recorded.stderr
    harness.assert_faithful(trace, workspace)
    mounted = workspace.parent / "mounted"
    mounted.mkdir()
    done = ignoring(*harness.DIFFKEEPER, "mount", trace, mounted)
    assert done.returncode == 0, done.stderr
    assert "@end" in os.listdir(mounted)
    assert ignoring(*harness.DIFFKEEPER, "umount", mounted).returncode == 0


def test_the_command_keeps_the_terminal(workspace: Path, trace: Path) -> None:
    """On a terminal, the command sees a terminal on all three streams and stays in its foreground."""
    check = "import os,sys; sys.exit(0 if all(map(os.isatty,(0,1,2))) and os.tcgetpgrp(0)==os.getpgrp() else 9)"
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(workspace)
        os.execv(sys.executable, [*harness.DIFFKEEPER, "record", "-o", str(trace), "--", sys.executable, "-c", check])
    try:
        while os.read(terminal, 4096):
            pass
    except OSError:
        pass  # EIO: the other side is closed
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_reach_the_command(workspace: Path, trace: Path, number: signal.Signals) -> None:
    """A signal sent to the recorder is the command's to handle, and the trace is whole."""
    script = f"""
import signal, sys, time
def stop(*_):
    open('handled', 'w').write('yes')
    sys.exit(7)
signal.signal({int(number)}, stop)
open('ready', 'w').close()
while True: time.sleep(0.05)
"""
    recorder = subprocess.Popen(
        [*harness.DIFFKEEPER, "record", "-o", trace, "--", sys.executable, "-c", script],
        cwd=workspace, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    harness.wait_for((workspace / "ready").exists)
    recorder.send_signal(number)
    assert recorder.wait(60) == 7
    harness.assert_faithful(trace, workspace)


def test_a_command_that_daemonises(workspace: Path, trace: Path) -> None:
    """Recording ends with the command; what it left behind runs on, not stopped."""
    script = "import os,time\nif os.fork()==0:\n os.setsid()\n open('pid','w').write(str(os.getpid()))\n time.sleep(60)"
    result = harness.record(
        trace, ["sh", "-c", f'{sys.executable} -c "{script}" > /dev/null 2>&1 & sleep 0.5'], cwd=workspace
    )
    assert result.returncode == 0, result.stderr
    harness.wait_for(lambda: (workspace / "pid").exists() and (workspace / "pid").read_text() != "")
    pid = int((workspace / "pid").read_text())
    try:
        assert harness.process_state(pid) == "S"
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_shell_with_job_control_does_not_see_its_jobs_stopped(workspace: Path, trace: Path) -> None:
    """`cp` has no buffer to read and is held for that, except where a shell would take it for suspended."""
    script = "set -m; head -c 100000 /dev/urandom > a; for i in $(seq 100); do cp a b$i || exit 9; done"
    result = harness.record(trace, ["bash", "-c", script], cwd=workspace)
    assert result.returncode == 0, result.stderr
    harness.assert_same(harness.recorded(trace, "end"), harness.truth(workspace))
    facts = harness.info(trace)
    assert facts["fidelity"].get("reread", 0) > 50
    assert facts["verified"]["mismatches"] == 0


def test_a_tiny_ring_holds_the_writer_and_loses_nothing(workspace: Path, trace: Path) -> None:
    """With a ring far too small for the command's speed it is slowed down, and every byte is there."""
    script = """
import os
fd = os.open('out', os.O_CREAT | os.O_WRONLY)
for number in range(20000): os.write(fd, b'%08d' % number * 512)
"""
    assert harness.small_ring(1 << 20, script, workspace, trace).wait(300) == 0
    facts = harness.assert_faithful(trace, workspace)
    assert any(note.startswith("held writers") for note in facts["notes"])


def test_the_first_process_of_a_namespace_can_be_held(workspace: Path, trace: Path) -> None:
    """Pid 1 of a container ignores what its own processes send it, but stands still for us like any other."""
    script = """
import ctypes, os
assert ctypes.CDLL(None).unshare(0x20000000) == 0  # CLONE_NEWPID
pid = os.fork()
if not pid:
    assert os.getpid() == 1
    out = os.open('out', os.O_CREAT | os.O_RDWR)
    for number in range(20000): os.write(out, b'%08d' % number * 512)
    for number in range(50):
        file = os.open(f'copy{number}', os.O_CREAT | os.O_RDWR)
        os.copy_file_range(out, file, 65536, 0, 0)
        os.pwrite(file, b'later', 10)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""
    assert harness.small_ring(1 << 20, script, workspace, trace).wait(300) == 0
    facts = harness.assert_faithful(trace, workspace)
    assert any(note.startswith("held writers") for note in facts["notes"])
    assert facts["fidelity"]["exact"] >= 20_000 + 2 * 50
    assert sum(facts["fidelity"].values()) == facts["fidelity"]["exact"]


def test_killing_the_recorder_does_not_harm_the_command(workspace: Path, trace: Path) -> None:
    """kill -9 of the recorder: the command goes on and ends well, and the trace holds what was drained."""
    script = """
import os, time
for number in range(2000):
    with open('log', 'a') as file: file.write(f'{number}\\n' * 100)
    if number == 200: open('go', 'w').close()
    time.sleep(0.001)
open('finished', 'w').close()
"""
    recorder = subprocess.Popen(
        [*harness.DIFFKEEPER, "record", "-o", trace, "--", sys.executable, "-c", script],
        cwd=workspace, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    harness.wait_for((workspace / "go").exists)
    time.sleep(0.1)  # one more batch than the mark of 200
    recorder.kill()
    recorder.wait()
    harness.wait_for((workspace / "finished").exists)
    with diffkeeper.open(trace) as opened:
        text = (opened.at("end") / "log").read_text()
        assert (workspace / "log").read_text().startswith(text)
        assert text.count("\n") > 200 * 100
        assert opened.session.duration is None
        assert list(opened.problems()) == []


@pytest.mark.parametrize("after", [1, 7, 31, 63])
def test_a_killed_recorder_leaves_no_one_stopped(workspace: Path, trace: Path, after: int) -> None:
    """kill -9 while writers are held by a full ring: the guardian lets them go."""
    script = """
import os
fd = os.open('out', os.O_CREAT | os.O_WRONLY)
for number in range(50000): os.write(fd, b'x' * 4096)
open('finished', 'w').close()
"""
    recorder = harness.small_ring(1 << 19, script, workspace, trace)
    harness.wait_for(lambda: (workspace / "out").exists() and (workspace / "out").stat().st_size > after << 20)
    recorder.kill()
    recorder.wait()
    harness.wait_for((workspace / "finished").exists)


def test_a_full_disk_stops_the_recording_and_not_the_command(workspace: Path, tmp_path: Path) -> None:
    """The trace's filesystem fills up: the command runs on with its own exit code, and the trace says so."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", small], check=True)
    try:
        trace = small / "trace"
        script = """
import os, sys
fd = os.open('out', os.O_CREAT | os.O_WRONLY)
for _ in range(1000): os.write(fd, os.urandom(65536))
sys.exit(4)
"""
        result = harness.record(trace, [sys.executable, "-c", script], cwd=workspace)
        assert result.returncode == 4, result.stderr
        assert (workspace / "out").stat().st_size == 65536 * 1000
        assert "runs on" in result.stderr
        shutil.copytree(trace, tmp_path / "moved")  # where there is room to index the rest
        facts = harness.info(tmp_path / "moved")
        assert "disk full" in facts["lost_by_cause"]
        assert facts["events"] > 20
        assert harness.run("check", tmp_path / "moved").returncode == 0
    finally:
        subprocess.run(["umount", "-l", small], check=True)


@pytest.mark.parametrize(
    ("command", "code", "word"),
    [(["no-such-command-here"], 127, "not found"), (["./plain"], 126, "chmod"), (["./"], 126, "directory")],
)
def test_commands_that_cannot_start(workspace: Path, trace: Path, command: list[str], code: int, word: str) -> None:
    """127 and 126 as in a shell, one line, and no trace left behind."""
    (workspace / "plain").write_text("not a program")
    result = harness.record(trace, command, cwd=workspace)
    assert result.returncode == code
    assert word in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not trace.exists()


def test_an_existing_trace_is_kept(workspace: Path, trace: Path) -> None:
    """A second recording into the same place is refused, --force replaces it; what is no trace is never replaced."""
    assert harness.record(trace, ["sh", "-c", "echo 1 > one"], cwd=workspace).returncode == 0
    refused = harness.record(trace, ["sh", "-c", "echo 2 > two"], cwd=workspace)
    assert refused.returncode == 84
    assert "--force" in refused.stderr
    assert not (workspace / "two").exists()
    assert harness.info(trace)["exit_code"] == 0
    assert harness.record(trace, ["sh", "-c", "echo 2 > two"], cwd=workspace, options=["--force"]).returncode == 0
    with diffkeeper.open(trace) as opened:
        assert (opened.at("end") / "two").read_text() == "2\n"
    other = workspace / "precious"
    other.mkdir()
    (other / "data").write_text("x")
    assert harness.record(other, ["true"], cwd=workspace, options=["--force"]).returncode == 84
    assert (other / "data").read_text() == "x"


def test_without_root_recording_is_refused_in_one_line(workspace: Path, tmp_path: Path) -> None:
    """Not root: exit code 77 and what to type instead."""
    tmp_path.chmod(0o777)
    result = harness.record(tmp_path / "t", ["true"], cwd=workspace, as_user=65534)
    assert result.returncode == 77
    assert "sudo" in result.stderr


def test_under_sudo_the_command_and_the_trace_are_the_users(workspace: Path, tmp_path: Path) -> None:
    """With sudo's variables set, the command runs as that user and can read the trace afterwards."""
    workspace.chmod(0o777)
    trace = tmp_path / "trace"
    env = {**os.environ, "SUDO_UID": "65534", "SUDO_GID": "65534"}
    result = harness.record(trace, ["sh", "-c", "id -u > who; id -g >> who"], cwd=workspace, env=env)
    assert result.returncode == 0, result.stderr
    assert (workspace / "who").read_text().split() == ["65534", "65534"]
    owners = {path.stat().st_uid for path in [trace, *trace.rglob("*")]}
    assert owners == {65534}
    assert trace.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("pty", [False, True], ids=["", "use_pty"])
def test_sudo_keeps_nothing_from_the_command(pty: bool, workspace: Path, tmp_path: Path) -> None:
    """sudo gives root an environment, a umask and limits of its own; the command finds those of whoever called sudo."""
    workspace.chmod(0o777)
    sudoers = tmp_path / "sudoers"
    sudoers.write_text(f"Defaults env_reset, {'' if pty else '!'}use_pty\nnobody ALL=(ALL) NOPASSWD: ALL\n")
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        os.chmod(place, 0o755)
        tool = Path(place, "mine")
        tool.write_text("#!/bin/sh\nenv -0 > environment; : > made; ulimit -S -n > files\n")
        tool.chmod(0o755)
        theirs = {"PATH": f"{place}:/usr/bin:/bin", "FROM_CI": "yes", "HOME": "/somewhere", "EMPTY": ""}
        words = ["sudo", "GIVEN=too", *harness.DIFFKEEPER, "record", "-o", str(tmp_path / "trace"), "--", "mine"]
        shell = 'umask 002; ulimit -S -n 99; "$@"'
        setting = f'mount --bind {sudoers} /etc/sudoers && exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"'
        result = subprocess.run(
            ["unshare", "--mount", "sh", "-c", setting, "sh", "sh", "-c", shell, "sh", *words],
            cwd=workspace, env=theirs, check=False, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = dict(pair.split("=", 1) for pair in (workspace / "environment").read_text().split("\0") if pair)
    assert {name: found.get(name) for name in theirs} == theirs
    assert found["GIVEN"] == "too"
    assert (workspace / "files").read_text() == "99\n"
    assert not [name for name in found if name.startswith("SUDO_")]
    made = (workspace / "made").stat()
    assert (made.st_uid, made.st_mode & 0o777) == (65534, 0o664)


def test_what_outlives_the_command_is_recorded_when_asked(workspace: Path, trace: Path) -> None:
    """`--wait-tree` records a daemon to its end; the exit code is the command's."""
    script = "(while [ ! -e go ]; do sleep 0.01; done; echo late > late) >/dev/null 2>&1 & touch go; exit 3"
    result = harness.record(trace, ["sh", "-c", script], cwd=workspace, options=["--wait-tree"])
    assert result.returncode == 3, result.stderr
    harness.assert_faithful(trace, workspace)
    with diffkeeper.open(trace) as opened:
        assert (opened.at("end") / "late").read_text() == "late\n"


def test_waiting_for_what_outlives_the_command_ends_with_a_signal(workspace: Path, trace: Path) -> None:
    """With `--wait-tree` and a daemon that never ends, SIGTERM ends the recording; the daemon runs on."""
    script = "sleep 300 >/dev/null 2>&1 & echo $! > pid; exit 0"
    arguments = ["record", "--wait-tree", "-o", trace, "--", "sh", "-c", script]
    with subprocess.Popen(
        [*harness.DIFFKEEPER, *map(str, arguments)], cwd=workspace, stderr=subprocess.PIPE, text=True
    ) as recorder:
        assert recorder.stderr is not None
        assert "has ended" in recorder.stderr.readline()
        recorder.send_signal(signal.SIGTERM)
        assert recorder.wait(60) == 0
    daemon = int((workspace / "pid").read_text())
    os.kill(daemon, signal.SIGKILL)
    assert any(str(daemon) in note for note in harness.info(trace)["notes"])


def test_a_process_with_a_session_of_its_own_can_be_held(workspace: Path, trace: Path) -> None:
    """setsid(2) makes a process group of its own as well, but no job of a shell: what it copies is exact."""
    (workspace / "from").write_bytes(os.urandom(100_000))
    script = "for i in 1 2 3 4 5; do setsid --fork --wait cp from to$i; done"
    result = harness.record(trace, ["sh", "-c", script], cwd=workspace)
    assert result.returncode == 0, result.stderr
    facts = harness.assert_faithful(trace, workspace)
    assert facts["fidelity"]["reread"] == 0
    assert not any("could not be held" in note for note in facts["notes"])


def test_a_recorder_that_fails_while_it_holds_somebody(workspace: Path, trace: Path) -> None:
    """Whatever goes wrong in looking at a range, the writer that stood still for it goes on, and the trace says it."""
    (workspace / "from").write_bytes(bytes(100_000))
    code = """
import sys
from pathlib import Path
from diffkeeper.progress import Silent
from diffkeeper.record import reread, session
def fills(request, others):
    raise OverflowError("on purpose")
reread.fills = fills
sys.exit(session.record(sys.argv[2:], trace=Path(sys.argv[1]), roots=[], ui=Silent()))
"""
    command = [sys.executable, "-c", code, str(trace), "cp", "from", "to"]
    assert subprocess.run(command, cwd=workspace, check=False, timeout=30).returncode == 0
    assert (workspace / "to").read_bytes() == bytes(100_000)
    assert any("on purpose" in cause for cause in harness.info(trace)["lost_by_cause"])


def test_a_trace_in_a_git_repository(workspace: Path) -> None:
    """git does not see it, asked for what is new, told to add everything, or to remove what it does not know."""
    subprocess.run(["git", "init", "-q", workspace], check=True)
    trace = workspace / "diffkeeper-trace"
    script = "git status --porcelain; git add -A; git status --porcelain; git clean -fdq; echo x > file; exit 3"
    result = harness.record(trace, ["sh", "-c", script], cwd=workspace)
    assert (result.returncode, result.stdout) == (3, ""), result.stderr
    harness.assert_faithful(trace, workspace, leave_out=[trace])


def test_a_trace_that_the_command_removes(workspace: Path) -> None:
    """The command ends as it would alone; one line says that nothing is left, and what to do."""
    trace = workspace / "trace"
    result = harness.record(trace, ["sh", "-c", "rm -r trace; echo x > file; exit 3"], cwd=workspace)
    assert result.returncode == 3
    assert (workspace / "file").read_text() == "x\n"
    assert not trace.exists()
    last = result.stderr.strip().splitlines()[-1]
    assert last.endswith("trace was removed; record to another place with -o"), result.stderr
