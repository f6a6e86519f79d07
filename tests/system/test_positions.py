"""File positions that several share: which bytes are where, when another may have moved them meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.system import harness


@pytest.mark.parametrize("flags", ["0", "os.O_APPEND"])
@pytest.mark.parametrize("workers", ["processes", "threads"])
def test_writers_that_share_a_file_position(workspace: Path, trace: Path, flags: str, workers: str) -> None:
    """Four writers on one descriptor, as in `make -j > log`: every byte is where it was written."""
    script = f"""
import os, threading
fd = os.open('log', os.O_CREAT | os.O_WRONLY | {flags})
def work(worker):
    for number in range(4000): os.write(fd, b'%d:%07d\\n' % (worker, number) * (1 + number % 3))
def wait_for(pid): assert os.waitpid(pid, 0)[1] == 0
def fork(worker):
    pid = os.fork()
    if not pid:
        work(worker)
        os._exit(0)
    return pid
if {workers == "processes"}:
    for pid in [fork(worker) for worker in range(4)]: wait_for(pid)
else:
    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""
    result = harness.record(trace, [sys.executable, "-c", script], cwd=workspace)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, workspace)


FIRST_WRITES = """
import os
for number in range(300):
    fd = os.open(f'log{number}', os.O_CREAT | os.O_WRONLY | (os.O_APPEND if number % 2 else 0))
    if number % 3: os.write(fd, b'head')
    go, begin = os.pipe()
    children = []
    for worker in range(4):
        children.append(os.fork())
        if not children[-1]:
            os.close(begin)
            os.read(go, 1)
            os.write(fd, b'%d' % worker * (1 + worker))
            os._exit(0)
    os.close(begin)
    for pid in children: assert os.waitpid(pid, 0)[1] == 0
    os.close(go); os.close(fd)
"""


def test_the_first_writers_that_share_a_file_position(workspace: Path, trace: Path) -> None:
    """What is written through a descriptor for the first time since it is shared may have been overtaken, too."""
    result = harness.record(trace, [sys.executable, "-c", FIRST_WRITES], cwd=workspace)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, workspace)


def test_a_shared_position_that_is_moved_back_meanwhile(workspace: Path, trace: Path) -> None:
    """Some seek while another writes through the same descriptor: what cannot be known is healed, nothing is lost."""
    (workspace / "race.c").write_text(r"""
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void)
{
	char block[3000] = "x";
	int fd = open("file", O_CREAT | O_RDWR, 0644);
	pid_t seeker = fork();
	if (!seeker)
		for (;;)
			lseek(fd, 0, SEEK_SET);
	for (int i = 0; i < 2000; i++)
		if (write(fd, block, sizeof(block)) != sizeof(block))
			return 1;
	kill(seeker, SIGKILL);
	wait(0);
	return 0;
}
""")
    subprocess.run(["cc", "-o", "race", "race.c"], cwd=workspace, check=True)
    result = harness.record(trace, ["./race"], cwd=workspace)
    assert result.returncode == 0, result.stderr
    facts = harness.info(trace)
    harness.assert_same(harness.recorded(trace, "end"), harness.truth(workspace))
    assert facts["lost"] == 0, facts["lost_by_cause"]
    assert facts["events"] > 2000


PLACES = """
import ctypes, os
RWF_APPEND, RWF_NOAPPEND = 0x10, 0x20
libc = ctypes.CDLL(None, use_errno=True)
class Vector(ctypes.Structure):
    _fields_ = [('base', ctypes.c_char_p), ('size', ctypes.c_size_t)]
def write(fd, data, offset, flags):
    place = ctypes.c_long(offset)
    if libc.syscall(328, fd, ctypes.byref(Vector(data, len(data))), ctypes.c_long(1), place, place, flags) != len(data):
        raise OSError(ctypes.get_errno(), 'pwritev2')
appends, plain = os.open('file', os.O_WRONLY | os.O_APPEND), os.open('file', os.O_WRONLY)
write(appends, b'A', 2, RWF_NOAPPEND)
write(appends, b'BB', 4, 0)
write(plain, b'CCC', 1, RWF_APPEND)
write(plain, b'DDDD', 5, 0)
os.lseek(appends, 3, 0)
write(appends, b'EE', -1, RWF_NOAPPEND)
os.write(appends, b'F')
"""


def test_whether_a_write_appends(filesystem: Path, trace: Path) -> None:
    """It depends on how the file was opened, and from Linux 6.9 on the call may say otherwise, either way."""
    (filesystem / "file").write_bytes(b"0123456789")
    result = harness.record(trace, [sys.executable, "-c", PLACES], cwd=filesystem)
    assert result.returncode == 0, result.stderr
    appended = b"01AEEDDDD9BBCCCF", b"01234DDDD9ABBCCCEEF"  # as it should be, and by overlayfs
    assert (filesystem / "file").read_bytes() in appended
    harness.assert_faithful(trace, filesystem)
