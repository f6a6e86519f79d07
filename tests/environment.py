"""What this machine lets the tests do: root, eBPF, FUSE, BTF, bcc.

Owns the probes. Each tries the real thing (loads a program, mounts a filesystem) and undoes it, as
what a machine claims about itself is not always so.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.machinery
import os
import platform
import shutil
import struct
import tempfile
from dataclasses import dataclass

DIST_PACKAGES = "/usr/lib/python3/dist-packages"
SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
BPF_PROG_LOAD, BPF_RAW_TRACEPOINT_OPEN = 5, 17
BPF_PROG_TYPE_RAW_TRACEPOINT = 17
RETURN_ZERO = struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Probe:
    """A facility, whether it works here, and what was seen or what is wrong."""

    name: str
    works: bool
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {'yes' if self.works else 'NO'} ({self.detail})"


def probe_all() -> list[Probe]:
    """Every facility, in the order to show them."""
    return [probe_root(), probe_kernel(), probe_btf(), probe_ebpf(), probe_bcc(), probe_fuse()]


def probe_root() -> Probe:
    return Probe("root", os.geteuid() == 0, f"uid {os.geteuid()}")


def probe_kernel() -> Probe:
    major, minor = (int(part) for part in platform.release().split("-")[0].split(".")[:2])
    return Probe("kernel 5.8+", (major, minor) >= (5, 8), f"{platform.release()} {platform.machine()}")


def probe_btf() -> Probe:
    path = "/sys/kernel/btf/vmlinux"
    try:
        return Probe("BTF", True, f"{path}, {os.stat(path).st_size} bytes")
    except OSError as error:
        return Probe("BTF", False, str(error))


def probe_ebpf() -> Probe:
    """Load the smallest program and attach it to raw tracepoint sys_exit."""
    code, licence = ctypes.create_string_buffer(RETURN_ZERO), ctypes.create_string_buffer(b"GPL")
    load = struct.pack(
        "<IIQQ", BPF_PROG_TYPE_RAW_TRACEPOINT, 2, ctypes.addressof(code), ctypes.addressof(licence)
    ) + bytes(48)
    program = _bpf(BPF_PROG_LOAD, load)
    if program < 0:
        return Probe("eBPF", False, f"loading a program: {os.strerror(-program)}")
    name = ctypes.create_string_buffer(b"sys_exit")
    link = _bpf(BPF_RAW_TRACEPOINT_OPEN, struct.pack("<QI4x", ctypes.addressof(name), program))
    os.close(program)
    if link < 0:
        return Probe("eBPF", False, f"attaching to sys_exit: {os.strerror(-link)}")
    os.close(link)
    return Probe("eBPF", True, "a program loads and attaches to sys_exit")


def _bpf(command: int, attributes: bytes) -> int:
    """bpf(2): a descriptor, or minus errno."""
    number = SYS_BPF.get(platform.machine())
    if number is None:
        return -38
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result: int = _libc.syscall(number, command, buffer, len(attributes))
    return result if result >= 0 else -ctypes.get_errno()


def probe_bcc() -> Probe:
    spec = importlib.machinery.PathFinder.find_spec("bcc", [DIST_PACKAGES])
    if spec is None:
        return Probe("bcc", False, f"python3-bpfcc is not in {DIST_PACKAGES}")
    try:
        ctypes.CDLL("libbcc.so.0")
    except OSError as error:
        return Probe("bcc", False, str(error))
    return Probe("bcc", True, str(spec.origin))


def probe_fuse() -> Probe:
    """Mount an empty FUSE filesystem and take it away; without root only look for the parts."""
    if not shutil.which("fusermount3"):
        return Probe("FUSE", False, "fusermount3 is missing")
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return Probe("FUSE", False, f"/dev/fuse: {error.strerror}")
    with contextlib.closing(os.fdopen(device, "r+b", buffering=0)), tempfile.TemporaryDirectory() as folder:
        if os.geteuid() != 0:
            return Probe("FUSE", True, "/dev/fuse opens; fusermount3 is there")
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
        if _libc.mount(b"probe", folder.encode(), b"fuse", 0, options) != 0:
            return Probe("FUSE", False, f"mount: {os.strerror(ctypes.get_errno())}")
        _libc.umount2(folder.encode(), MNT_DETACH)
    return Probe("FUSE", True, "a filesystem mounts")
