"""Changes by calls that are not followed: each is a loss that is told, and put right at the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import diffkeeper
from tests.filesystems import mounted
from tests.system import harness

PRELUDE = """
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
def done(value):
    if value < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return value
"""
NOT_FOLLOWED = "change by a call that is not followed"
GIVEN = "file given to the kernel (loop device, swap, accounting)"


def run(script: str, directory: Path, trace: Path) -> None:
    result = harness.record(trace, [sys.executable, "-c", PRELUDE + script], cwd=directory)
    assert result.returncode == 0, result.stderr


def assert_told(trace: Path, directory: Path, cause: str) -> None:
    """The loss is there by its cause, and the last moment is right."""
    with diffkeeper.open(trace) as opened:
        assert list(opened.session.lost) == [cause]
        assert opened.session.mismatches
    harness.assert_same(harness.recorded(trace, "end"), harness.truth(directory))


def test_an_open_by_handle_that_truncates(filesystem: Path, trace: Path) -> None:
    """open_by_handle_at(2) is followed like any other open."""
    (filesystem / "file").write_bytes(b"before" * 1000)
    script = """
handle, mount = ctypes.create_string_buffer(136), ctypes.c_int()
struct.pack_into('I', handle, 0, 128)
done(libc.name_to_handle_at(-100, b'file', handle, ctypes.byref(mount), 0))
fd = done(libc.open_by_handle_at(os.open('.', os.O_RDONLY), handle, os.O_WRONLY | os.O_TRUNC))
os.write(fd, b'after')
"""
    kind = subprocess.run(["stat", "-f", "-c", "%T", filesystem], capture_output=True, text=True, check=True).stdout
    if kind.strip() == "overlayfs":  # has no handles, unless it is asked for them
        with pytest.raises(AssertionError, match="Operation not supported"):
            run(script, filesystem, trace)
    else:
        run(script, filesystem, trace)
    harness.assert_faithful(trace, filesystem)


@pytest.mark.parametrize("before", ["", "os.write(fd, b'after')"])
@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_a_hole_that_is_made_in_mapped_memory(kind: str, before: str, tmp_path: Path, trace: Path) -> None:
    """madvise(MADV_REMOVE); also of the file that the call before has changed, which is followed."""
    script = f"""
fd = os.open('file', os.O_RDWR)
{before}
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
done(libc.madvise(libc.mmap(None, ctypes.c_size_t(65536), 3, 1, fd, ctypes.c_long(0)), 8192, 9))
"""
    with mounted(kind, tmp_path) as filesystem:
        (filesystem / "file").write_bytes(b"before" * 12000)
        run(script, filesystem, trace)
        assert_told(trace, filesystem, NOT_FOLLOWED)


def test_process_accounting(workspace: Path, trace: Path) -> None:
    """acct(2): the kernel writes to a file whenever a process ends, also to one that no call is about."""
    (workspace / "account").touch()
    script = "done(libc.acct(b'account'))\ntry: os.system('true; true')\nfinally: done(libc.acct(None))"
    run(script, workspace, trace)
    assert (workspace / "account").stat().st_size
    assert_told(trace, workspace, GIVEN)


def test_a_subvolume_of_btrfs(tmp_path: Path, trace: Path) -> None:
    """An ioctl that makes a directory."""
    with mounted("btrfs", tmp_path) as filesystem:
        result = harness.record(trace, ["btrfs", "-q", "subvolume", "create", "sub"], cwd=filesystem)
        assert result.returncode == 0, result.stderr
        assert (filesystem / "sub").is_dir()
        with diffkeeper.open(trace) as opened:
            assert list(opened.session.lost) == [NOT_FOLLOWED]


def test_a_subvolume_by_a_process_that_has_mapped_a_file(tmp_path: Path, trace: Path) -> None:
    """That what it stores there is not taken for the call's does not hide a directory."""
    script = """
import mmap
memory = mmap.mmap(os.open('file', os.O_RDWR), 4096)
open('/etc/passwd', 'rb').readinto(memory)  # a call that changes the file, by way of its memory
SUBVOL_CREATE = ctypes.c_ulong(0x5000940E)
done(libc.ioctl(os.open('.', os.O_RDONLY), SUBVOL_CREATE, struct.pack('q4088s', 0, b'sub')))
"""
    with mounted("btrfs", tmp_path) as filesystem:
        (filesystem / "file").write_bytes(bytes(4096))
        run(script, filesystem, trace)
        with diffkeeper.open(trace) as opened:
            assert list(opened.session.lost) == [NOT_FOLLOWED]
            assert (opened.at("end") / "file").read_bytes() == (filesystem / "file").read_bytes()


def test_a_call_that_reads_into_a_mapped_file(filesystem: Path, trace: Path) -> None:
    """read(2) changes the file then, and that is no loss."""
    (filesystem / "file").write_bytes(bytes(1 << 20))
    script = "import mmap\nopen('/dev/urandom', 'rb').readinto(mmap.mmap(os.open('file', os.O_RDWR), 1 << 20))"
    run(script, filesystem, trace)
    harness.assert_faithful(trace, filesystem)


def test_an_overlay_that_is_mounted(tmp_path: Path, trace: Path) -> None:
    """mount(2) of an overlay makes a directory of its own in the one it is given to work in."""
    with mounted("ext4", tmp_path) as filesystem:
        for name in ("lower", "upper", "work", "merged"):
            (filesystem / name).mkdir()
        options = "lowerdir=lower,upperdir=upper,workdir=work"
        script = f"mount -t overlay overlay -o {options} merged && umount merged"
        result = harness.record(trace, ["sh", "-c", script], cwd=filesystem)
        assert result.returncode == 0, result.stderr
        assert_told(trace, filesystem, NOT_FOLLOWED)


def test_a_loop_device(workspace: Path, trace: Path) -> None:
    """What is written to it reaches its file by a thread of the kernel. One that is only read from is no loss."""
    for name in ("image", "only-read"):
        with open(workspace / name, "wb") as image:
            image.truncate(1 << 20)
    script = """
read=$(losetup --read-only --show -f only-read)
loop=$(losetup --show -f image)
echo written through the device > $loop
losetup -d $loop $read
"""
    subprocess.run(["sync", "-f", workspace], check=True)
    result = harness.record(trace, ["sh", "-euc", script], cwd=workspace)
    assert result.returncode == 0, result.stderr
    assert (workspace / "image").read_bytes().startswith(b"written through")
    with diffkeeper.open(trace) as opened:
        assert opened.session.lost == {GIVEN: 1}
    harness.assert_same(harness.recorded(trace, "end"), harness.truth(workspace))
