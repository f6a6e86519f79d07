"""Processes that come to be in odd ways, and buffers that are not there, or not any more, when a write returns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import diffkeeper
from diffkeeper.model import Fidelity, Op
from tests.system import harness

PRELUDE = """
import ctypes, mmap, os, signal, struct, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.write.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
def done(value):
    if value < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return value
"""


def run(trace: Path, workspace: Path, script: str) -> None:
    result = harness.record(trace, [sys.executable, "-c", PRELUDE + script], cwd=workspace)
    assert result.returncode == 0, result.stderr


def writers(trace: Path) -> Iterator[tuple[str, str]]:
    """The name of each file that was written, and the command of the process that wrote it, as the timeline says."""
    for row in map(json.loads, harness.run("timeline", trace, "--json").stdout.splitlines()):
        if row["op"] == "write":
            yield row["path"], row["comm"]


def test_a_debugger_that_pokes_into_a_mapped_file(workspace: Path, trace: Path) -> None:
    """What ptrace(2) stores into another process's mapping is in the moments after it, and the end is right."""
    script = """
fd = os.open('file', os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 50_000)
m = mmap.mmap(fd, 50_000)
address = ctypes.addressof(ctypes.c_char.from_buffer(m))
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long
ready, go_on = os.pipe()
pid = os.fork()
if not pid:
    os.read(ready, 1)
    os._exit(0)
ATTACH, POKEDATA, DETACH = 16, 5, 17
done(libc.ptrace(ATTACH, pid, None, None))
assert os.WIFSTOPPED(os.waitpid(pid, 0)[1])
done(libc.ptrace(POKEDATA, pid, address + 8000, int.from_bytes(b'poketext', 'little')))
done(libc.ptrace(DETACH, pid, None, None))
os.write(go_on, b'x')
assert os.waitpid(pid, 0)[1] == 0
os.close(os.open('after', os.O_CREAT))
"""
    run(trace, workspace, script)
    with diffkeeper.open(trace) as opened:
        after = next(event for event in opened.events(path="after") if event.op is Op.CREATE)
        assert (opened.at(f"e{after.seq}") / "file").read_bytes()[8000:8008] == b"poketext"
    harness.assert_faithful(trace, workspace)


def test_processes_made_by_vfork_and_clone3(workspace: Path, trace: Path) -> None:
    """What a child of vfork(2), of clone3(2), and of clone3 with its parent's files and directory does is recorded."""
    script = """
os.posix_spawn('/bin/sh', ['sh', '-c', 'echo spawned > spawned'], os.environ)  # vfork, in the C library
os.wait()
CLONE3, CLONE_FILES, CLONE_FS = 435, 0x400, 0x200
for flags in (0, CLONE_FILES | CLONE_FS):
    arguments = struct.pack('8Q', flags, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    pid = done(libc.syscall(CLONE3, arguments, len(arguments)))
    if not pid:
        fd = os.open(f'cloned-{flags}', os.O_CREAT | os.O_WRONLY)
        os.write(fd, b'cloned')
        os.mkdir(f'dir-{flags}')
        os.chdir(f'dir-{flags}')
        os._exit(fd)
    fd = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if flags:
        os.write(fd, b', and written by the parent')
        open('there', 'w').write('where the child went')
"""
    run(trace, workspace, script)
    assert (workspace / "cloned-1536").read_bytes() == b"cloned, and written by the parent"
    assert (workspace / "dir-1536/there").exists()
    harness.assert_faithful(trace, workspace)
    assert ("spawned", "sh") in set(writers(trace))


def test_more_processes_than_can_be_followed(workspace: Path, trace: Path) -> None:
    """A process that finds no room among those that are followed is a loss; what it did is put right at the end."""
    script = "import os\nos.system('echo not seen > file')\nopen('own', 'w').write('seen')"
    words = [sys.executable, "-m", "tests.system.many_processes", str(trace), sys.executable, "-c", script]
    subprocess.run(words, check=True, cwd=workspace, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    with diffkeeper.open(trace) as opened:
        assert opened.session.lost == {"process not followed": 1}
        assert opened.session.mismatches == 1
        assert (opened.at("end") / "file").read_bytes() == b"not seen\n"
    harness.assert_same(harness.recorded(trace, "end"), harness.truth(workspace))


def test_a_number_that_a_second_process_gets(workspace: Path, trace: Path) -> None:
    """Of two processes with one pid each write is told of its own, and so is who the process was at each moment."""
    script = """
CLONE3 = 435
SET = next(pid for pid in range(32_000, 30_000, -1) if not os.path.exists(f'/proc/{pid}'))
def spawn(name):
    number = ctypes.c_int(SET)
    pointer = ctypes.cast(ctypes.pointer(number), ctypes.c_void_p).value
    arguments = struct.pack('10Q', 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, pointer, 1)
    pid = done(libc.syscall(CLONE3, arguments, len(arguments)))
    if not pid:
        os.execv('/bin/' + name, [name, '-c', f'echo {name} > by-{name}'])
    assert pid == SET and os.waitpid(pid, 0)[1] == 0
spawn('dash')
spawn('bash')
"""
    run(trace, workspace, script)
    harness.assert_faithful(trace, workspace)
    assert set(writers(trace)) == {("by-dash", "dash"), ("by-bash", "bash")}
    with diffkeeper.open(trace) as opened:
        writes = [event for event in opened.events() if event.op is Op.WRITE]
        assert len({event.pid for event in writes}) == 1


BUFFERS = {
    "never touched": "memory(6000)",
    "of a file that is not in memory": "of_file(6000)",
    "paged out": "paged_out(6000)",
    "over two mappings": "over_two(6000)",
}
MEMORY = """
PROT, PRIVATE, ANONYMOUS, FIXED = 3, 2, 32, 16
def memory(size):
    return done(libc.mmap(None, size, PROT, PRIVATE | ANONYMOUS, -1, 0))
def of_file(size):
    source = os.open('source', os.O_RDWR | os.O_CREAT)
    os.write(source, bytes(range(256)) * 40)
    os.fsync(source)
    os.posix_fadvise(source, 0, 0, os.POSIX_FADV_DONTNEED)
    return done(libc.mmap(None, size, PROT, PRIVATE, source, 0))
def paged_out(size):
    here = of_file(size)
    ctypes.memset(here, 65, 3000)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.madvise(here, 8192, 21)  # MADV_PAGEOUT
    return here
def over_two(size):
    here = memory(8192)
    source = of_file(4096)
    done(libc.mmap(here + 4096, 4096, PROT, PRIVATE | FIXED, os.open('source', os.O_RDONLY), 0))
    return here
"""


@pytest.mark.parametrize("kind", BUFFERS)
def test_buffers_whose_pages_are_not_in_memory(kind: str, workspace: Path, trace: Path) -> None:
    """The bytes are recorded exactly, all the same."""
    script = MEMORY + f"""
here = {BUFFERS[kind]}
fd = os.open('file', os.O_RDWR | os.O_CREAT)
assert libc.write(fd, here, 6000) == 6000
os.pwrite(fd, b'later', 100)
"""
    run(trace, workspace, script)
    harness.assert_faithful(trace, workspace)
    with diffkeeper.open(trace) as opened:
        first, second = (event for event in opened.events(path="file") if event.op is Op.WRITE)
        before = (opened.at(f"e{first.seq}") / "file").read_bytes()
        after = (workspace / "file").read_bytes()
        assert before[:100] + b"later" + before[105:] == after
        assert (first.fidelity, second.fidelity) == (Fidelity.EXACT, Fidelity.EXACT)


def test_a_buffer_that_is_unmapped_while_it_is_written(workspace: Path, trace: Path) -> None:
    """The file is read instead of the buffer, and no moment has other bytes than those that were written."""
    script = MEMORY + """
SIZE, TIMES = 1 << 20, 100
turns = [memory(SIZE) for _ in range(TIMES)]
began = [0] * TIMES
def unmap():
    for number, here in enumerate(turns):
        while not began[number]:
            pass
        libc.munmap(here, SIZE)
thread = threading.Thread(target=unmap)
thread.start()
sys.setswitchinterval(1e-6)
fd = os.open('file', os.O_RDWR | os.O_CREAT)
for number, here in enumerate(turns):
    ctypes.memset(here, 65 + number % 26, SIZE)
    began[number] = 1
    libc.write(fd, here, SIZE)
thread.join()
"""
    run(trace, workspace, script)
    facts = harness.assert_faithful(trace, workspace)
    assert "held writers" in str(facts["notes"])  # for a file to be read


def test_a_buffer_that_another_thread_changes(workspace: Path, trace: Path) -> None:
    """Which of its bytes reached the file cannot be known at the call; at the end the file is as it is."""
    script = MEMORY + """
SIZE = 1 << 20
here = memory(SIZE)
going = True
def change():
    number = 0
    while going:
        number += 1
        ctypes.memset(here, number % 256, SIZE)
thread = threading.Thread(target=change)
thread.start()
fd = os.open('file', os.O_RDWR | os.O_CREAT)
for _ in range(30):
    assert libc.write(fd, here, SIZE) == SIZE
going = False
thread.join()
"""
    run(trace, workspace, script)
    harness.assert_same(harness.recorded(trace, "end"), harness.truth(workspace))
    assert harness.info(trace)["lost"] == 0
