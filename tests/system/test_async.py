"""What io_uring and Linux AIO change: in every moment, and in the right one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import diffkeeper
from tests.system import harness

SOURCE = Path(__file__).parent / "async_writer.c"


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that does every kind of request once."""
    program = tmp_path_factory.mktemp("bin") / "async_writer"
    subprocess.run(["gcc", "-Wall", "-Werror", "-o", program, SOURCE, "-luring", "-laio"], check=True)
    return program


def check_marks(trace: Path) -> int:
    """At each mark the file is what the program read then, which it wrote to a copy. Says how many marks there are."""
    with diffkeeper.open(trace) as opened:
        marks = opened.marks()
        for mark in marks:
            moment = opened.at(mark.name)
            assert (moment / "file").read_bytes() == (moment / f"at-{mark.name}").read_bytes(), mark.name
        return len(marks)


@pytest.mark.parametrize("ring", ["plain", "deferred", "poll"])
def test_every_kind_of_request(ring: str, writer: Path, workspace: Path, trace: Path) -> None:
    """Writes, vectors, fixed buffers, splices, opens, names, attributes: however a ring is driven, no mark is wrong."""
    result = harness.record(trace, [writer, ring], cwd=workspace)
    assert result.returncode == 0, result.stderr
    assert check_marks(trace) == 20
    harness.assert_faithful(trace, workspace)


def test_requests_on_every_filesystem(writer: Path, filesystem: Path, trace: Path) -> None:
    """The same with the plainest ring, wherever the files are."""
    result = harness.record(trace, [writer, "plain"], cwd=filesystem)
    assert result.returncode == 0, result.stderr
    assert check_marks(trace) in (18, 20)  # before Linux 6.6 tmpfs has no attributes
    harness.assert_faithful(trace, filesystem)


def test_aio_on_every_filesystem(writer: Path, filesystem: Path, trace: Path) -> None:
    """io_submit of single writes, of several at once, vectors, appends, and past the page cache."""
    result = harness.record(trace, [writer, "aio"], cwd=filesystem)
    assert result.returncode == 0, result.stderr
    assert check_marks(trace) >= 4
    harness.assert_faithful(trace, filesystem)


AIO = """
import ctypes, mmap, os, struct
libc = ctypes.CDLL(None, use_errno=True)
IOCB, VECTOR = struct.Struct('<QIiHhIQQqQII'), struct.Struct('<QQ')
def at(buffer): return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
context = ctypes.c_ulong()
assert libc.syscall(206, 32, ctypes.byref(context)) == 0  # io_setup
fd = os.open('file', os.O_CREAT | os.O_RDWR)
pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
assert libc.mprotect(ctypes.c_void_p(at(pages) + mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
data = [bytearray(os.urandom(700)) for _ in range(30)]
blocks = []
for number in range(15):
    # Two buffers each; of the last one the vectors end where the memory does.
    vectors = VECTOR.pack(at(data[2 * number]), 700) + VECTOR.pack(at(data[2 * number + 1]), 500)
    place = mmap.PAGESIZE - len(vectors) * (15 - number)
    pages[place : place + len(vectors)] = vectors
    blocks.append(bytearray(IOCB.pack(0, 0, 0, 8, 0, fd, at(pages) + place, 2, 1200 * number, 0, 0, 0)))
pointers = (ctypes.c_void_p * len(blocks))(*map(at, blocks))
assert libc.syscall(209, context, ctypes.c_long(len(blocks)), pointers) == 15  # io_submit
events = ctypes.create_string_buffer(32 * 32)
assert libc.syscall(208, context, ctypes.c_long(15), ctypes.c_long(32), events, None) == 15  # io_getevents
"""


def test_aio_of_many_vectors(workspace: Path, trace: Path) -> None:
    """A submission of 15 writes from several buffers is followed, also where nothing can be read behind the vectors."""
    result = harness.record(trace, [sys.executable, "-c", AIO], cwd=workspace)
    assert result.returncode == 0, result.stderr
    assert len((workspace / "file").read_bytes()) == 15 * 1200
    harness.assert_faithful(trace, workspace)


MANY_FILES = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
IOCB, count = struct.Struct('<QIiHhIQQqQII'), int(sys.argv[1])
def at(buffer): return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
context = ctypes.c_ulong()
assert libc.syscall(206, 64, ctypes.byref(context)) == 0  # io_setup
data = [bytearray(os.urandom(700)) for _ in range(count)]
files = [os.open(f'f{number}', os.O_WRONLY) for number in range(count)]
blocks = [bytearray(IOCB.pack(0, 0, 0, 1, 0, fd, at(each), 700, 0, 0, 0, 0)) for fd, each in zip(files, data)]
pointers = (ctypes.c_void_p * count)(*map(at, blocks))
assert libc.syscall(209, context, ctypes.c_long(count), pointers) == count  # io_submit
events = ctypes.create_string_buffer(32 * 64)
assert libc.syscall(208, context, ctypes.c_long(count), ctypes.c_long(64), events, None) == count  # io_getevents
"""


@pytest.mark.parametrize(("count", "followed"), [(12, True), (40, False)])
def test_aio_to_files_not_used_before(count: int, followed: bool, workspace: Path, trace: Path) -> None:
    """Of a submission to many new files, what could not be followed is told as a loss, and put right at the end."""
    for number in range(count):
        (workspace / f"f{number}").write_bytes(b"before" * 200)
    result = harness.record(trace, [sys.executable, "-c", MANY_FILES, str(count)], cwd=workspace)
    assert result.returncode == 0, result.stderr
    with diffkeeper.open(trace) as opened:
        assert bool(opened.session.lost) is not followed
        assert bool(opened.session.mismatches) is not followed
    if followed:
        harness.assert_faithful(trace, workspace)
    else:
        harness.assert_same(harness.recorded(trace, "end"), harness.truth(workspace))


def test_writes_that_overtake_each_other(filesystem: Path, trace: Path) -> None:
    """Of overlapping io_uring writes that are under way at once, the one that the file has is the one recorded."""
    job = ["--ioengine=io_uring", "--rw=randwrite", "--size=2m", "--bsrange=512-64k", "--blockalign=512", "--iodepth=8"]
    order = ["--random_generator=lfsr", "--norandommap=0", "--numjobs=2", "--randseed=1", "--output=/dev/null"]
    result = harness.record(trace, ["fio", "--name=job", *job, *order], cwd=filesystem)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, filesystem)
