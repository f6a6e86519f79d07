"""Which handler serves which system call, by number, for each machine we know.

The C side (bpf/*.c) names the same numbers where a handler must tell its calls apart.
"""

from __future__ import annotations

import platform

from ..errors import KernelTooOldError

_X86_64: dict[str, dict[str, int]] = {
    "on_write": {"write": 1, "pwrite64": 18},
    "on_writev": {"writev": 20, "pwritev": 296, "pwritev2": 328},
    "on_kernel_copy": {"sendfile": 40, "splice": 275, "copy_file_range": 326},
    "on_fallocate": {"fallocate": 285},
    "on_ioctl": {"ioctl": 16},
    "on_io_submit": {"io_submit": 209},
    "on_uring_setup": {"io_uring_setup": 425},
    "on_uring_enter": {"io_uring_enter": 426},
    "on_map": {"mmap": 9, "mprotect": 10, "munmap": 11, "mremap": 25, "msync": 26, "pkey_mprotect": 329},
    "on_sync": {
        "fsync": 74, "fdatasync": 75, "ptrace": 101, "sync": 162, "sync_file_range": 277, "syncfs": 306,
        "process_vm_writev": 311,
    },
    "on_open": {"open": 2, "creat": 85, "openat": 257, "open_by_handle_at": 304, "openat2": 437},
    "on_fd_attribute": {"ftruncate": 77, "fchmod": 91, "fchown": 93},
    "on_path_attribute": {
        "truncate": 76, "chmod": 90, "chown": 92, "lchown": 94, "utime": 132, "utimes": 235, "fchownat": 260,
        "futimesat": 261, "fchmodat": 268, "utimensat": 280, "fchmodat2": 452, "file_setattr": 469,
    },
    "on_xattr": {
        "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "removexattr": 197, "lremovexattr": 198,
        "fremovexattr": 199, "setxattrat": 463, "removexattrat": 466,
    },
    "on_name": {
        "rename": 82, "mkdir": 83, "rmdir": 84, "link": 86, "unlink": 87, "symlink": 88, "mknod": 133, "mkdirat": 258,
        "mknodat": 259, "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266, "renameat2": 316,
        "bind": 49,
    },
    "on_wait": {"wait4": 61, "waitid": 247},
    "on_given": {"acct": 163, "swapon": 167},
    "on_chroot": {"chroot": 161},
    "on_mount": {"pivot_root": 155, "mount": 165, "umount2": 166, "move_mount": 429},
}  # fmt: skip

PARTLY = frozenset({"on_mount", "on_wait"})
"""Handlers that do not tell of what their calls change, if anything: mounting an overlay makes directories, for one."""


def handlers() -> dict[str, list[int]]:
    """Handler program -> numbers of the calls it serves. KernelTooOldError on a machine we do not know."""
    machine = platform.machine()
    if machine != "x86_64":
        raise KernelTooOldError(f"recording on {machine} is not supported yet: only x86_64 is")
    return {program: list(calls.values()) for program, calls in _X86_64.items()}
