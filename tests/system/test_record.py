"""Recording real commands: what is recorded is what is there, and the command never notices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import diffkeeper
from diffkeeper.model import Op
from diffkeeper.wire import LATEST
from tests.filesystems import mounted
from tests.system import harness

EVERY_CALL = """
import os, ctypes, struct
libc = ctypes.CDLL(None, use_errno=True)
def call(result):
    assert result == 0, os.strerror(ctypes.get_errno())
here = os.open('.', os.O_RDONLY)
fd = os.open('plain', os.O_CREAT | os.O_RDWR, 0o644)
os.write(fd, b'hello world\\n'); os.pwrite(fd, b'HE', 0); os.writev(fd, [b'one ', b'', b'two ', b'three\\n'])
os.pwritev(fd, [b'ab', b'cd'], 3); os.write(fd, os.urandom(1_000_000)); os.ftruncate(fd, 900_000)
os.fchmod(fd, 0o640); os.fchown(fd, 12, 34); os.utime(fd, ns=(1, 1_000_000_007))
append = os.open('plain', os.O_WRONLY | os.O_APPEND)
os.write(append, b'appended'); os.pwrite(append, b'also appended', 3)
os.truncate('plain', 800_000)
with open('again', 'w') as file: file.write('first')
with open('again', 'w') as file: file.write('second')
os.close(os.open('empty', os.O_CREAT | os.O_EXCL | os.O_WRONLY))
os.mkdir('dir'); os.mkdir('sub', dir_fd=here); os.mkdir('dir/deep', 0o700); os.rmdir('sub')
os.symlink('plain', 'sym'); os.symlink('../plain', 'deep-sym', dir_fd=here); os.link('plain', 'hard')
os.link('again', 'dir/hard-again', src_dir_fd=here, dst_dir_fd=here)
os.mkfifo('fifo', 0o600); os.mkfifo('dir/fifo')
os.rename('again', 'renamed'); os.rename('empty', 'dir/empty', src_dir_fd=here, dst_dir_fd=here)
with open('old', 'w') as file: file.write('old')
with open('new', 'w') as file: file.write('new')
os.rename('new', 'old')
for name in ('left', 'right'):
    with open(name, 'w') as file: file.write(name)
call(libc.renameat2(-100, b'left', -100, b'right', 2))
assert libc.renameat2(-100, b'left', -100, b'right', 1) == -1
os.mkdir('tree'); os.mkdir('tree/a'); open('tree/a/leaf', 'w').close(); os.rename('tree', 'moved')
os.chmod('renamed', 0o4755); os.chown('renamed', 1, 2); os.lchown('sym', 5, 6)
os.utime('dir', ns=(5, 6)); os.utime('sym', ns=(7, 8), follow_symlinks=False)
os.chmod('fifo', 0o622, dir_fd=here); os.chown('dir', 3, 4, dir_fd=here)
os.unlink('hard'); os.unlink('fifo', dir_fd=here)
with open('gone', 'w') as file:
    file.write('unlinked while open'); os.unlink('gone'); file.write('still written')
os.chdir('moved/a')
with open('../up', 'w') as file: file.write('from below')
with open('leaf', 'a') as file: file.write('leaf')
os.close(os.open(b'\\xff\\nname', os.O_CREAT | os.O_WRONLY))
os.close(os.open('n' * 255, os.O_CREAT | os.O_WRONLY))
"""


def test_every_call_of_the_recorded_families_is_recorded_exactly(workspace: Path, trace: Path) -> None:
    """The last moment equals the directory, attribute by attribute, with nothing lost and nothing healed."""
    (workspace / "before").write_bytes(os.urandom(3000))
    result = harness.record(trace, [sys.executable, "-c", EVERY_CALL], cwd=workspace)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, workspace)


def test_moments_are_what_was_there_when_the_mark_was_set(workspace: Path, trace: Path) -> None:
    """Each marked moment equals the copy that the workload itself kept aside at that time."""
    aside = trace.parent / "aside"
    aside.mkdir()
    script = f"""
import os, shutil, subprocess, diffkeeper
for step in range(6):
    with open('log', 'a') as file: file.write(f'step {{step}}\\n' * 50)
    with open('state', 'w') as file: file.write('x' * (1000 - step))
    if step % 2: os.rename('state', f'state.{{step}}')
    os.makedirs(f'd/{{step}}')
    if step == 4: shutil.rmtree('d/1')
    subprocess.run(['cp', '-a', '.', f'{aside}/{{step}}'], check=True)
    diffkeeper.mark(f'step-{{step}}')
"""
    result = harness.record(trace, [sys.executable, "-c", script], cwd=workspace)
    assert result.returncode == 0, result.stderr
    for step in range(6):
        harness.assert_same(harness.recorded(trace, f"step-{step}"), harness.truth(aside / str(step)))
    harness.assert_faithful(trace, workspace)


def test_the_baseline_is_the_start(workspace: Path, trace: Path) -> None:
    """@start is the directory as it was before the command, also where the command changed everything."""
    (workspace / "d/e").mkdir(parents=True)
    (workspace / "d/f").write_text("before")
    (workspace / "big").write_bytes(os.urandom(5 << 20))
    os.link(workspace / "d/f", workspace / "link")
    (workspace / "sym").symlink_to("d/f")
    os.utime(workspace / "d", ns=(1, 123_456_789))
    before = harness.truth(workspace)
    result = harness.record(trace, ["sh", "-c", "rm -r d sym; echo new > big; echo more >> link"], cwd=workspace)
    assert result.returncode == 0, result.stderr
    harness.assert_same(harness.recorded(trace, "start"), before)
    harness.assert_faithful(trace, workspace)


def test_writes_outside_the_root_are_recorded_as_outside(workspace: Path, trace: Path, tmp_path: Path) -> None:
    """A file elsewhere shows in the timeline as an absolute path, and in no moment's tree."""
    elsewhere = tmp_path / "elsewhere.txt"
    result = harness.record(trace, ["sh", "-c", f"echo hi > {elsewhere}; echo in > inside"], cwd=workspace)
    assert result.returncode == 0
    with diffkeeper.open(trace) as opened:
        outside = [event for event in opened.events() if event.path == os.fsencode(elsewhere)]
        assert {event.op for event in outside} == {Op.CREATE, Op.WRITE}
        assert all(event.outside for event in outside)
        assert [path.name for path in opened.at("end").iterdir()] == ["inside"]


def test_a_trace_inside_the_root_is_not_part_of_it(workspace: Path) -> None:
    """The default place of the trace, under the root: it is in no moment and in no event."""
    result = harness.run("record", "--", "sh", "-c", "echo x > file; ls -R > listing", cwd=workspace)
    assert result.returncode == 0, result.stderr
    trace = workspace / "diffkeeper-trace"
    harness.assert_faithful(trace, workspace, leave_out=[trace])
    with diffkeeper.open(trace) as opened:
        assert not [event for event in opened.events() if b"diffkeeper-trace" in event.path]


def test_several_roots(tmp_path: Path, trace: Path) -> None:
    """Each root's tree is complete, at its absolute path."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "before").write_text(name)
    result = harness.record(
        trace, ["sh", "-c", "echo a > one/a; mv one/before two/moved"], cwd=tmp_path,
        options=["--root", tmp_path / "one", "--root", tmp_path / "two"],
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    with diffkeeper.open(trace) as opened:
        end = opened.at("end")
        inside = str(tmp_path).lstrip("/")
        assert (end / inside / "two/moved").read_text() == "one"
        assert not (end / inside / "one/before").exists()
        assert (end / inside / "one/a").read_text() == "a\n"
    assert harness.info(trace)["verified"]["mismatches"] == 0


def test_a_command_that_writes_nothing(workspace: Path, trace: Path) -> None:
    """No change is a trace like any other: start equals end."""
    assert harness.record(trace, ["true"], cwd=workspace).returncode == 0
    facts = harness.assert_faithful(trace, workspace)
    assert facts["duration"] >= 0


def test_a_root_that_is_deleted_meanwhile(tmp_path: Path, trace: Path) -> None:
    """The root itself goes away under the command: its exit code stands, and the earlier moments too."""
    root = tmp_path / "doomed"
    root.mkdir()
    (root / "file").write_text("was here")
    result = harness.record(trace, ["sh", "-c", f"rm -rf {root}; exit 5"], cwd=root)
    assert result.returncode == 5, result.stderr
    with diffkeeper.open(trace) as opened:
        assert (opened.at("start") / "file").read_text() == "was here"


def test_eight_processes_in_one_directory(workspace: Path, trace: Path) -> None:
    """100,000 events from eight processes at once, appending to one file and renaming in one directory: none lost."""
    script = """
import os, sys
log = os.open('log', os.O_CREAT | os.O_WRONLY | os.O_APPEND)
children = []
for worker in range(8):
    pid = os.fork()
    if not pid:
        mine = os.open('log', os.O_WRONLY | os.O_APPEND)
        for number in range(3200):
            os.write(mine, b'%d:%d\\n' % (worker, number))
            fd = os.open(f'new.{worker}.{number}', os.O_CREAT | os.O_WRONLY); os.write(fd, b'%d' % number); os.close(fd)
            os.rename(f'new.{worker}.{number}', f'done.{worker}.{number % 50}')
        os._exit(0)
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
"""
    result = harness.record(trace, [sys.executable, "-c", script], cwd=workspace)
    assert result.returncode == 0, result.stderr
    facts = harness.assert_faithful(trace, workspace)
    assert facts["events"] >= 100_000


SIZES = """
import os
fd = os.open('sizes', os.O_CREAT | os.O_WRONLY)
for size in (1, 64, 511, 512, 513, 4096, 262144, 262145, 1000003):
    os.write(fd, os.urandom(size))
    os.writev(fd, [os.urandom(size), b'', os.urandom(3)])
"""


def test_writes_of_all_sizes(workspace: Path, trace: Path) -> None:
    """Small ones, large ones and vectors of both go different ways into the ring; none loses a byte."""
    result = harness.record(trace, [sys.executable, "-c", SIZES], cwd=workspace)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, workspace)


def test_processes_are_recorded(workspace: Path, trace: Path) -> None:
    """Each event names the process that did it, and the process table knows its parent, arguments and end."""
    assert (
        harness.record(trace, ["sh", "-c", "touch a; /bin/echo hi > b; (exit 3); true"], cwd=workspace).returncode == 0
    )
    lines = harness.run("timeline", trace, "--json").stdout.splitlines()
    created = {row["path"]: row["comm"] for row in map(json.loads, lines) if row["op"] == "create"}
    assert created == {"a": "touch", "b": "sh"}
    with diffkeeper.open(trace) as opened:
        processes = opened.processes().values()
        touch = next(process for process in processes if process.comm == "touch")
        assert touch.argv == ("touch", "a")
        assert touch.status == 0
        assert 3 << 8 in {process.status for process in processes}
        assert all(process.end is not None for process in processes)


def test_a_filter_leaves_paths_out(workspace: Path, trace: Path) -> None:
    """What a filter rejects is in no moment and no event, before and after; what is moved in from there is."""
    (workspace / "node_modules/deep").mkdir(parents=True)
    (workspace / "node_modules/deep/old.js").write_text("old")
    (workspace / "kept").write_text("kept")
    script = """
mkdir -p build/sub; echo o > build/sub/x.o; echo j > node_modules/deep/new.js; echo k >> kept; echo o > y.o
mv build/sub/x.o rescued; echo lost > goes; mv goes z.o; cd node_modules && echo there > here.js
"""
    options = ["--filter", "glob:exclude=node_modules/,*.o"]
    result = harness.record(trace, ["sh", "-c", script], cwd=workspace, options=options)
    assert result.returncode == 0, result.stderr
    expected = {
        path: entry
        for path, entry in harness.truth(workspace).items()
        if not path.startswith("node_modules") and not path.endswith(".o")
    }
    harness.assert_same(harness.recorded(trace, "end"), expected)
    assert set(harness.recorded(trace, "start")) == {".", "kept"}
    with diffkeeper.open(trace) as opened:
        named = [event.path for event in opened.events()]
        assert not [path for path in named if b"node_modules" in path or path.endswith(b"y.o")]
    (told,) = harness.info(trace)["filters"]
    assert (told["name"], told["before"], told["hidden"], told["error"]) == ("glob", 1, 0, "")
    assert told["events"] >= 4, "new.js, here.js and y.o were made and written"
    assert "node_modules/" in told["examples"]


def test_the_projects_ignore_files_leave_paths_out(workspace: Path, trace: Path) -> None:
    """`gitignore` takes the patterns as they are before the command, for the baseline, all moments and the end."""
    (workspace / ".gitignore").write_text("*.log\n")
    (workspace / ".diffkeeperignore").write_text("/.git/\n/vendor/\n")
    (workspace / "vendor").mkdir()
    (workspace / "vendor/lib").write_text("old")
    script = "echo 1 > a.log; echo 2 > vendor/lib; mkdir .git; echo 3 > .git/HEAD; echo '*' > .gitignore; echo 4 > b"
    options = ["--filter", "gitignore", "--filter", "op:exclude=exec"]
    result = harness.record(trace, ["sh", "-c", script], cwd=workspace, options=options)
    assert result.returncode == 0, result.stderr
    assert set(harness.recorded(trace, "end")) == {".", ".gitignore", ".diffkeeperignore", "b"}
    facts = harness.info(trace)
    assert facts["verified"]["mismatches"] == 0
    git, op = facts["filters"]
    assert git["options"] == {"patterns": "/.git/\n/vendor/\n*.log"}
    assert (git["before"], git["error"], op["hidden"]) == (1, "", 2), "sh and mkdir"
    assert set(git["examples"]) == {"vendor/", "a.log", ".git/"}
    assert "exec" not in {line.split()[1] for line in harness.run("timeline", trace).stdout.splitlines()}


def test_a_file_of_terabytes_that_holds_little(workspace: Path, trace: Path) -> None:
    """Holes cost nothing: not when the file is recorded, not when it was there before, not when it is verified."""
    os.truncate(os.open(workspace / "before", os.O_CREAT | os.O_WRONLY), 8 << 40)
    script = "printf start > new; truncate -s 8T new; printf end >> new; printf middle | dd of=before bs=1 seek=4T"
    result = harness.record(trace, ["sh", "-c", script], cwd=workspace, timeout=30)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, workspace)


def test_what_is_reached_through_a_descriptors_path(workspace: Path, trace: Path) -> None:
    """chmod, utimes, truncate and setxattr of /proc/self/fd/N, as tar and C libraries do, change the file that N is."""
    (workspace / "dir").mkdir(mode=0o700)
    (workspace / "file").write_text("hello")
    script = """
import os
for name in ("dir", "file"):
    fd = os.open(name, os.O_PATH)
    for start in ("/proc/self/fd/", f"/proc/{os.getpid()}/fd/", "/dev/fd/", "/proc/self/fd/"):
        path = f"{start}{fd}"
        os.chmod(path, 0o751)
        os.utime(path, ns=(5, 6_000_000_007))
        os.setxattr(path, "user.colour", start.encode())
os.truncate(path, 2)
os.chdir("/proc/self/fd")
os.chmod(str(fd), 0o604)
"""
    result = harness.record(trace, [sys.executable, "-c", script], cwd=workspace)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, workspace)


def test_a_failed_write_right_after_the_file_was_cut(tmp_path: Path) -> None:
    """On tmpfs it leaves the file longer; its times do not change, as they were set a moment before."""
    script = """
import ctypes, os
libc = ctypes.CDLL(None)
for number in range(300):
    fd = os.open(f'file{number}', os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(fd, b'before')
    os.close(fd)
    fd = os.open(f'file{number}', os.O_WRONLY | os.O_TRUNC)
    os.lseek(fd, 5, os.SEEK_SET)
    assert libc.write(fd, ctypes.c_void_p(8), 1) == -1
    os.close(fd)
"""
    with mounted("tmpfs", tmp_path) as point:
        result = harness.record(tmp_path / "trace", [sys.executable, "-c", script], cwd=point)
        assert result.returncode == 0, result.stderr
        harness.assert_faithful(tmp_path / "trace", point)


def test_a_rename_that_fails_tells_of_no_file(workspace: Path, trace: Path) -> None:
    """A file that the thread wrote to before, and somebody else changed since, has not changed again."""
    script = """
import ctypes, os
libc = ctypes.CDLL(None)
os.close(os.open('other', os.O_CREAT | os.O_WRONLY))
fd = os.open('file', os.O_CREAT | os.O_WRONLY, 0o644)
os.write(fd, b'written')
if not os.fork():
    os.setxattr('file', b'security.capability', bytes.fromhex('0100000200040000000000000000000000000000'))
    os._exit(0)
os.wait()
assert libc.renameat2(-100, b'other', -100, b'none/other', 4) == -1
"""
    result = harness.record(trace, [sys.executable, "-c", script], cwd=workspace)
    assert result.returncode == 0, result.stderr
    with diffkeeper.open(trace) as opened:
        told = [event.op.label for event in opened.events(path=os.fsencode(workspace / "file"))]
    assert told == ["create", "write", "setxattr"]


def test_a_fifo_that_is_written_to(tmp_path: Path, trace: Path) -> None:
    """The bytes go through it and are in no file; that its times change is recorded."""
    work = tmp_path / "work"
    work.mkdir()
    os.mkfifo(work / "fifo")
    script = """
import os, time
fd = os.open("fifo", os.O_RDWR)
for _ in range(3):
    time.sleep(0.02)  # the clock of files goes on
    os.write(fd, b"through")
    os.read(fd, 7)
"""
    result = harness.record(trace, [sys.executable, "-c", script], cwd=work)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, work)
    with diffkeeper.open(trace) as opened:
        assert [event.op.label for event in opened.events(path=os.fsencode(work / "fifo"))] == ["utime"] * 3


@pytest.mark.parametrize("there_before", [True, False])
def test_times_of_any_age(there_before: bool, tmp_path: Path, trace: Path) -> None:
    """What 64 bits of nanoseconds do not hold is the nearest that they do; nothing else suffers for it."""
    years = {"1601": -11644473600, "1700": -8500000000, "2250": 8900000000, "2300": 10413792000}
    script = "; ".join(f"echo {year} > f{year}; touch -d @{time} f{year}" for year, time in years.items())
    prepare, command = (script, "echo more > other") if there_before else ("true", script)
    with mounted("tmpfs", tmp_path) as where:  # other filesystems have none of 1601
        subprocess.run(["sh", "-c", f"echo x > other; {prepare}"], cwd=where, check=True)
        assert harness.record(trace, ["sh", "-c", command], cwd=where).returncode == 0
        assert harness.info(trace)["lost"] == 0
    with diffkeeper.open(trace) as opened:
        for moment in ("start", "end") if there_before else ("end",):
            for year, time in years.items():
                path = opened.at(moment) / f"f{year}"
                assert path.read_text() == f"{year}\n"
                assert path.stat().st_mtime_ns == min(max(time * 10**9, -LATEST), LATEST)
        assert (opened.at("start") / "other").read_text() == "x\n"
