"""Files that are written through memory: each moment a program makes sure of has the bytes that were there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import diffkeeper
from diffkeeper.model import Op
from tests.system import harness

PRELUDE = """
import ctypes, json, mmap, os, signal, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open('file', os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 50_000)
told = {}
def mark(name):
    told[name] = open('file', 'rb').read().hex()
    try: os.open('/.diffkeeper/mark/' + name, 0)
    except OSError: pass
def child(act, reap=True):
    pid = os.fork()
    if not pid:
        act(); os._exit(0)
    os.waitpid(pid, 0)
"""

WAYS = """
m = mmap.mmap(fd, 50_000)
m[5000:5004] = b'sync'; m.flush(); mark('msync')
m[9000:9004] = b'none'; mark('mark')
m[100:103] = b'fsy'; os.fsync(fd); mark('fsync')
os.pwrite(fd, b'by write', 20_000); m[20_001:20_003] = b'MM'; mark('mixed')
m[1:3] = b'un'; m.close(); mark('munmap')
def killed():
    m = mmap.mmap(fd, 50_000); m[100:103] = b'DDD'; os.kill(os.getpid(), 9)
child(killed); mark('kill')
m = mmap.mmap(fd, 50_000)
def leaves():
    m[200:203] = b'EEE'
child(leaves); mark('exit-of-fork')
def executes():
    m[300:303] = b'FFF'; os.execvp('true', ['true'])
child(executes); mark('exec')
m.resize(90_000); m[80_000:80_004] = b'grew'; mark('mremap')
m.close()
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
at = libc.mmap(None, 8192, mmap.PROT_READ, mmap.MAP_SHARED, fd, 4096)
assert libc.mprotect(at, 8192, mmap.PROT_READ | mmap.PROT_WRITE) == 0
ctypes.memmove(at + 10, b'late', 4); mark('mprotect')
ctypes.memmove(at + 4106, b'over', 4)
libc.mmap(at, 8192, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10, -1, 0); mark('mapped-over')
m = mmap.mmap(fd, 50_000)
class Vector(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
def pokes():
    text = ctypes.create_string_buffer(b'poked')
    here = Vector(ctypes.addressof(text), 5)
    there = Vector(ctypes.addressof(ctypes.c_char.from_buffer(m)) + 400, 5)
    assert libc.process_vm_writev(os.getppid(), ctypes.byref(here), 1, ctypes.byref(there), 1, 0) == 5
    mark('poked'); sys.stdout.write(json.dumps({'poked': told['poked']}) + '\\n'); sys.stdout.flush()
child(pokes)
m[600:603] = b'end'; mark('last')
print(json.dumps(told))
"""


def run(trace: Path, work: Path, script: str, *options: str) -> dict[str, str]:
    """Record a script that prints what it saw at its marks."""
    result = harness.record(trace, [sys.executable, "-c", PRELUDE + script], cwd=work, options=options)
    assert result.returncode == 0, result.stderr
    told: dict[str, str] = {}
    for line in result.stdout.splitlines():
        told.update(json.loads(line))
    return told


def differing(trace: Path, told: dict[str, str]) -> list[str]:
    """Names of the marks at which the recorded file is not what the program read."""
    with diffkeeper.open(trace) as opened:
        return [name for name, text in told.items() if (opened.at(name) / "file").read_bytes() != bytes.fromhex(text)]


def test_every_way_to_be_sure_of_a_mapped_store(filesystem: Path, trace: Path) -> None:
    """After msync, fsync, munmap, a mark, exit, kill -9, exec, mremap, mprotect and a poke: no byte is wrong."""
    told = run(trace, filesystem, WAYS)
    assert len(told) == 13
    assert differing(trace, told) == []
    harness.assert_faithful(trace, filesystem)


def test_stores_are_seen_while_the_file_stays_mapped(workspace: Path, trace: Path) -> None:
    """Without any call, a store shows up after the interval, as bytes that were read later."""
    script = """
import time
m = mmap.mmap(fd, 50_000)
m[7000:7005] = b'quiet'
while not os.path.exists('seen'):
    time.sleep(0.01)
m[7000:7005] = b'after'
"""
    watcher = "sleep 1; touch seen; wait"  # ten intervals
    command = ["sh", "-c", f'"$0" -c "$1" & {watcher}', sys.executable, PRELUDE + script]
    result = harness.record(trace, command, cwd=workspace)
    assert result.returncode == 0, result.stderr
    with diffkeeper.open(trace) as opened:
        seen = next(event for event in opened.events(path="seen") if event.op is Op.CREATE)
        assert b"quiet" in (opened.at(f"e{seen.seq}") / "file").read_bytes()
    harness.assert_faithful(trace, workspace)


def test_nothing_is_looked_at_between_the_calls_when_told_so(workspace: Path, trace: Path) -> None:
    """`--mmap-interval off`: only what the program syncs is recorded, and its end."""
    script = """
m = mmap.mmap(fd, 50_000)
m[7000:7005] = b'quiet'
import time; time.sleep(0.4)
m[7000:7005] = b'later'
"""
    run(trace, workspace, script, "--mmap-interval", "off")
    with diffkeeper.open(trace) as opened:
        writes = [event for event in opened.events(path="file") if event.op is Op.WRITE]
        assert len(writes) == 1
        assert b"later" in (opened.at("end") / "file").read_bytes()


def test_who_writes_into_another_process(workspace: Path, trace: Path) -> None:
    """process_vm_writev(2) into a mapped file is there when the call has returned, not only at the next mark."""
    script = """
m = mmap.mmap(fd, 50_000)
class Vector(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
def pokes():
    text = ctypes.create_string_buffer(b'poked')
    here = Vector(ctypes.addressof(text), 5)
    there = Vector(ctypes.addressof(ctypes.c_char.from_buffer(m)) + 400, 5)
    assert libc.process_vm_writev(os.getppid(), ctypes.byref(here), 1, ctypes.byref(there), 1, 0) == 5
    os.close(os.open('after', os.O_CREAT))
child(pokes)
"""
    run(trace, workspace, script, "--mmap-interval", "off")
    with diffkeeper.open(trace) as opened:
        after = next(event for event in opened.events(path="after") if event.op is Op.CREATE)
        assert (opened.at(f"e{after.seq}") / "file").read_bytes()[400:405] == b"poked"


def test_more_mappings_than_are_told_apart(workspace: Path, trace: Path) -> None:
    """A hundred files mapped by one process at once are followed like one."""
    script = """
maps = []
for number in range(100):
    other = os.open(f'other-{number}', os.O_RDWR | os.O_CREAT); os.ftruncate(other, 4096 * 3)
    maps.append(mmap.mmap(other, 4096 * 3))
for number, each in enumerate(maps):
    each[number:number + 4] = b'many'; each.flush()
os.fsync(other); maps[3][8000:8004] = b'last'; maps.clear()
"""
    run(trace, workspace, script)
    harness.assert_faithful(trace, workspace)


UNHELD = """
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
def store(number):
    fd = os.open(f'f{number}', os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 4096)
    at = libc.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    assert libc.mprotect(at, 4096, mmap.PROT_READ | mmap.PROT_WRITE) == 0
    ctypes.memmove(at, b'stored', 6)
    assert libc.munmap(at, 4096) == 0
    mark(f'stored-{number}')
pid = os.fork()
if not pid:
    for number in range(50):
        store(number)
    os._exit(0)
assert os.waitpid(pid, os.WUNTRACED)[1] == 0
"""


def test_a_process_that_may_not_be_held(workspace: Path, trace: Path) -> None:
    """Its parent would see that. It may have unmapped a file before anybody looks: its stores are not lost."""
    result = harness.record(trace, [sys.executable, "-c", PRELUDE + UNHELD], cwd=workspace)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, workspace)
    with diffkeeper.open(trace) as opened:
        for number in range(50):
            moment = opened.at(f"stored-{number}")
            assert (moment / f"f{number}").read_bytes()[:6] == b"stored", number


def test_what_has_nothing_to_do_with_a_mapped_file_holds_nobody(workspace: Path, trace: Path) -> None:
    """A process with forty files mapped syncs another one, and unmaps other memory, without standing still for it."""
    script = PRELUDE + """
maps = []
for number in range(40):
    each = os.open(f'many{number}', os.O_RDWR | os.O_CREAT)
    os.ftruncate(each, 100)
    maps.append(mmap.mmap(each, 100))
for _ in range(200):
    os.write(fd, b'x'); os.fsync(fd)
    mmap.mmap(-1, 4096).close()
maps[7][:4] = b'told'; os.fsync(each); mark('done')
for each in maps: each.close()
json.dump(told, open('told', 'w'))
"""
    result = harness.record(trace, [sys.executable, "-c", script], cwd=workspace)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, workspace)
    held = next(int(note.split()[2]) for note in harness.info(trace)["notes"] if note.startswith("held writers"))
    assert 80 <= held < 120  # when they were mapped, and when they were unmapped


def test_a_mapped_file_outside_the_roots(tmp_path: Path, workspace: Path, trace: Path) -> None:
    """What is stored into a mapped file elsewhere is recorded, too."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"x" * 10_000)
    script = f"""
other = os.open({str(outside)!r}, os.O_RDWR)
m = mmap.mmap(other, 10_000); m[5000:5004] = b'here'; m.flush()
"""
    run(trace, workspace, script)
    with diffkeeper.open(trace) as opened:
        events = list(opened.events(path=str(outside)))
    assert [event.op for event in events] == [Op.WRITE]


def test_a_mapped_file_that_has_no_name(workspace: Path, trace: Path) -> None:
    """Mapped, closed and unlinked, by this program or a forked one: nothing is lost, and reading is no loss at all."""
    script = """
import tempfile
with tempfile.NamedTemporaryFile(dir='.') as temporary:
    temporary.write(b'x' * 5000); temporary.flush()
    m = mmap.mmap(temporary.fileno(), 0, access=mmap.ACCESS_READ)
m.close()
other = os.open('other', os.O_RDWR | os.O_CREAT); os.ftruncate(other, 9000)
m = mmap.mmap(other, 9000); os.unlink('other'); os.close(other)
m[100:104] = b'here'
child(lambda: m.__setitem__(200, 65)); m.flush()
"""
    run(trace, workspace, script)
    harness.assert_faithful(trace, workspace)


def test_many_pages_mapped_one_by_one_by_two_processes(workspace: Path, trace: Path) -> None:
    """Pages mapped, unmapped and mapped again over each other, by two processes at once: nothing is missed."""
    script = """
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
def work(name):
    fd = os.open(name, os.O_RDWR | os.O_CREAT); os.ftruncate(fd, 4096 * 16)
    for turn in range(8):
        at = libc.mmap(None, 4096 * 16, 3, mmap.MAP_SHARED, fd, 0)
        for page in range(16):
            ctypes.memset(at + 4096 * page + turn, 65 + turn, 3)
        for page in range(0, 16, 2):
            libc.munmap(at + 4096 * page, 4096)
            libc.mmap(at + 4096 * page, 4096, 3, mmap.MAP_SHARED | 0x10, fd, 4096 * page)
            ctypes.memset(at + 4096 * page + 100 + turn, 97 + turn, 3)
        libc.munmap(at, 4096 * 16)
pids = []
for name in ('left', 'right'):
    pid = os.fork()
    if not pid:
        work(name); os._exit(0)
    pids.append(pid)
for pid in pids: os.waitpid(pid, 0)
"""
    run(trace, workspace, script)
    harness.assert_faithful(trace, workspace)


def test_a_store_that_undoes_a_write(workspace: Path, trace: Path) -> None:
    """Written through memory, changed by calls, and stored through memory as it was before: each moment is right."""
    script = """
m = mmap.mmap(fd, 50_000)
def both(name, act):
    m[100:104] = b'AAAA'; m.flush(); act(); mark(name + '-call'); m[100:104] = b'AAAA'; mark(name + '-store')
both('pwrite', lambda: os.pwrite(fd, b'BBBB', 100))
both('writev', lambda: os.pwritev(fd, [b'BB', b'CC'], 100))
both('cut', lambda: (os.ftruncate(fd, 0), os.ftruncate(fd, 50_000)))
both('cut-by-path', lambda: (os.truncate('file', 0), os.truncate('file', 50_000)))
both('open', lambda: (os.close(os.open('file', os.O_WRONLY | os.O_TRUNC)), os.ftruncate(fd, 50_000)))
both('punch', lambda: libc.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(8192)))
print(json.dumps(told))
"""
    told = run(trace, workspace, script)
    assert len(told) == 12
    assert differing(trace, told) == []
    harness.assert_faithful(trace, workspace)


def test_a_store_after_a_call_whose_record_is_still_in_the_ring(workspace: Path, trace: Path, tmp_path: Path) -> None:
    """A page that a call cleared and a store filled again: the look that finds it comes after the call's record."""
    script = """
import ctypes, mmap, os, sys, time
signs = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open('file', os.O_CREAT | os.O_RDWR, 0o644)
os.write(fd, b'before' * 1000)
memory = mmap.mmap(fd, 6000)
memory[0:6] = b'mapped'
os.mknod(signs + '/ready')
while not os.path.exists(signs + '/go'): time.sleep(0.001)
assert libc.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(4096)) == 0
memory[0:6] = b'stored'
os.mknod(signs + '/stored')
time.sleep(0.3)
memory.close()
"""
    signs = tmp_path / "signs"
    signs.mkdir()
    words = [sys.executable, "-m", "tests.system.late_look", trace, signs, sys.executable, "-c", script, signs]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([str(word) for word in words], cwd=workspace, env=environment, check=True)
    harness.assert_faithful(trace, workspace)
