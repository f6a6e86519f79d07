"""What a process number and a time mean where the recorder is: in a container they are not the kernel's own.

The kernel half is told which pid namespace we are in, and speaks of processes by the numbers that they have there
(bpf/numbers.h); of times it knows the kernel's alone.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from ..errors import NotPermittedError

INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""PROC_PID_INIT_INO of the kernel's include/linux/proc_ns.h."""

_NS = 10**9


def pid_namespace() -> int:
    """The inode number of the one that we, and the command, are in."""
    return os.stat("/proc/self/ns/pid").st_ino


def check_proc() -> None:
    """NotPermittedError where /proc is not there, or shows other processes under our numbers."""
    shown = None
    with suppress(OSError):
        shown = os.readlink("/proc/self")
    if shown is None:
        raise NotPermittedError("/proc is not mounted, where a recorder looks for processes: mount -t proc proc /proc")
    if shown != str(os.getpid()):
        raise NotPermittedError(
            "/proc is that of another pid namespace: mount this one's (mount -t proc proc /proc; unshare --mount-proc)"
        )


def _clock_offset() -> int:
    """Nanoseconds by which our clock since the boot is ahead of the kernel's own: that of the time namespace."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/timens_offsets").read_text().splitlines():
            clock, seconds, nanoseconds = line.split()
            if clock in ("boottime", "7"):
                return int(seconds) * _NS + int(nanoseconds)
    return 0  # Linux 5.5 and older have none


_AHEAD = _clock_offset()


def kernel_time() -> int:
    """As bpf_ktime_get_boot_ns(): what records have for their time, in ns. It goes on while a machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - _AHEAD
