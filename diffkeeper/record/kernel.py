"""The kernel half of a recording: our programs loaded and attached, and the maps that steer them.

Owns what the C parts in bpf/ mean to user space: their order, the `control` slots, requests, which
tracepoints. `diffkeeper.record.ring` reads the ring buffer this opens; nothing here knows of traces.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..errors import KernelTooOldError, NoBccError, NotPermittedError
from ..wire import INODE, Inode, kernel_path
from . import bpf, compiler, layout, syscalls

PARTS = (
    "event.h",
    "maps.h",
    "objects.h",
    "send.h",
    "stamps.h",
    "dispatch.c",
    "data.c",
    "names.c",
    "attributes.c",
    "files.c",
    "process.c",
    "touch.c",
)
HELPERS = ("bind_inode", "add_request")  # in the order of the HELPER_* numbers in bpf/maps.h
REQUIRED_TRACEPOINTS = ("sched_process_fork", "sched_process_exec", "sched_process_exit", "sys_exit")
OPTIONAL_TRACEPOINTS = ("inode_set_ctime_to_ts", "ctime_ns_xchg", "ctime_xchg_skip", "writeback_mark_inode_dirty")
BIND_DEPTH = 64
MINIMUM_KERNEL = (5, 8)
_RING_PLACEHOLDER = 999_983  # in the bytecode, where the ring's descriptor will be
_REQUEST_TAIL = struct.Struct("<QQQIiIIII")
_U32 = struct.Struct("<I")


class Control:
    """Slots of the `control` map, as enum dk_control in bpf/maps.h numbers them."""

    DISABLED, LOST, STOPS, STOPPED, COMPAT, UNREAD, UNSTOPPABLE, THRESHOLD = range(8)


class Request(NamedTuple):
    """struct dk_request: a range that user space is to read while its writer stands still."""

    tid: int
    inode: Inode
    time: int
    offset: int
    length: int
    pid: int
    fd: int
    stopped: bool
    sent: bool
    path: bytes  # of the file; empty: longer than a request holds


def sources() -> Path:
    """The directory of the C parts: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_bpf"
    return installed if installed.is_dir() else package.parent / "bpf"


def check_kernel() -> None:
    """Raise when this user or this kernel cannot record. Cheap: compiles nothing."""
    release = os.uname().release
    version = tuple(int(part) for part in release.split("-")[0].split(".")[:2])
    if version < MINIMUM_KERNEL:
        raise KernelTooOldError(f"kernel {release} is too old: recording needs Linux 5.8 or newer")
    if os.geteuid() != 0:
        raise NotPermittedError(
            "recording needs root: run it as 'sudo diffkeeper record ...' (the command runs as you)"
        )
    layout.load()


def _cpu_numbers() -> int:
    """One more than the highest CPU number, which with gaps is more than there are CPUs."""
    ranges = Path("/sys/devices/system/cpu/present").read_text().strip()
    return int(ranges.replace("-", ",").rpartition(",")[2]) + 1


def program_text() -> str:
    """The whole C program but for RING_FD: offsets and sizes as macros, then the parts in order."""
    defines = {**layout.load(), "NCPU": _cpu_numbers(), "BIND_DEPTH": BIND_DEPTH}
    text = [f"#define {name} {value}" for name, value in defines.items()]
    text += [(sources() / part).read_text() for part in PARTS]
    return "\n".join(text)


class Kernel:
    """The loaded programs. `ring_fd` and `control` stay valid until `close()`."""

    def __init__(self, ring_bytes: int) -> None:
        """Load; nothing is attached yet. `ring_bytes`: a power of two of pages. NoBccError when it cannot be."""
        ring = bpf.MapSpec("dk_events", bpf.MAP_RINGBUF, 0, 0, ring_bytes, 0, _RING_PLACEHOLDER)
        code = compiler.bytecode(program_text(), ring)
        self.notes: list[str] = []
        self._fds: list[int] = []
        self._maps: dict[str, bpf.Map] = {}
        try:
            by_placeholder = {}
            for spec in code.maps:
                self._maps[spec.name] = by_placeholder[spec.placeholder] = bpf.Map(spec)
            self._programs = {
                name: bpf.load_program(name, body, by_placeholder) for name, body in code.programs.items()
            }
        except OSError as error:
            raise NoBccError(f"this kernel does not take the recorder's programs: {error}") from error
        self._fds += self._programs.values()
        for slot, program in enumerate(HELPERS):
            self._maps["helpers"].put(_U32.pack(slot), _U32.pack(self._programs[program]))
        for program, numbers in syscalls.handlers().items():
            for number in numbers:
                self._maps["on_exit"].put(_U32.pack(number), _U32.pack(self._programs[program]))
        self.ring_fd = self._maps["dk_events"].fd
        self._control_map = mmap.mmap(self._maps["control"].fd, mmap.PAGESIZE)
        self.control = memoryview(self._control_map).cast("Q")
        self.control[Control.THRESHOLD] = ring_bytes // 2

    def attach(self) -> None:
        """Attach the tracepoints, sys_exit last. What this kernel does not have is noted in `notes`."""
        for name in (*OPTIONAL_TRACEPOINTS, *REQUIRED_TRACEPOINTS):
            try:
                self._fds.append(bpf.attach_raw_tracepoint(name, self._programs[name]))
            except OSError as error:
                if name in REQUIRED_TRACEPOINTS or error.errno != errno.ENOENT:
                    raise NoBccError(f"tracepoint {name} cannot be attached: {error.strerror}") from error
                self.notes.append(f"no tracepoint {name}")

    def close(self) -> None:
        """Detach and free everything."""
        self.control.release()
        self._control_map.close()
        for fd in self._fds:
            os.close(fd)
        for each in self._maps.values():
            each.close()

    # ---- maps ----

    def track(self, pid: int) -> None:
        self._maps["tracked"].put(_U32.pack(pid), b"\1")

    def tracked(self) -> list[int]:
        return [_U32.unpack(key)[0] for key in self._maps["tracked"]]

    def skip_devices(self, devices: Iterable[int]) -> None:
        """Leave files on these filesystems (kernel s_dev numbers) alone."""
        for device in devices:
            self._maps["skipped_devs"].put(_U32.pack(device), b"\1")

    def take_stopped(self) -> list[int]:
        """Processes that were stopped and not yet taken; they are the caller's to continue.

        Taken before they are continued: one that runs on while it is still listed would not be stopped again.
        """
        stopped = self._maps["stopped"]
        keys = list(stopped)
        for key in keys:
            stopped.delete(key)
        return [_U32.unpack(key)[0] for key in keys]

    def take_requests(self) -> list[Request]:
        requests = self._maps["requests"]
        found = []
        for key in list(requests):
            raw = requests.get(key)
            requests.delete(key)
            if raw is not None:
                inode = Inode(*INODE.unpack_from(raw))
                time, offset, length, pid, fd, stopped, sent, size, _ = _REQUEST_TAIL.unpack_from(raw, INODE.size)
                names = raw[INODE.size + _REQUEST_TAIL.size :][:size]
                path = kernel_path(names) if size else b""
                tid = _U32.unpack(key)[0]
                found.append(Request(tid, inode, time, offset, length, pid, fd, bool(stopped), bool(sent), path))
        return found
