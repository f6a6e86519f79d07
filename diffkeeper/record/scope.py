"""What a recording looks at: its roots, the filesystems it leaves alone, the paths it needs to know beforehand.

Reads mountinfo and stats paths; records nothing itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import UsageError

PSEUDO_FILESYSTEMS = frozenset({
    "autofs", "bdev", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "cpuset", "debugfs", "devpts", "devtmpfs",
    "efivarfs", "fuse.diffkeeper", "fusectl", "hugetlbfs", "mqueue", "nsfs", "pipefs", "proc", "pstore", "rpc_pipefs",
    "securityfs", "selinuxfs", "smackfs", "sockfs", "sysfs", "tracefs",
})  # fmt: skip

_OCTAL = re.compile(rb"\\([0-7]{3})")


def mounts() -> Iterator[tuple[int, bytes, str]]:
    """(device number as the kernel keeps it, mountpoint, filesystem type) of each mount we see."""
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields, _, tail = line.partition(b" - ")
        _, _, numbers, _, point = fields.split(b" ")[:5]
        major, minor = map(int, numbers.split(b":"))
        yield major << 20 | minor, unescaped(point), tail.split(b" ")[0].decode()


def unescaped(path: bytes) -> bytes:
    """A path as mountinfo spells it."""
    return _OCTAL.sub(lambda match: bytes((int(match[1], 8),)), path)


def pseudo_devices() -> set[int]:
    """Kernel device numbers of filesystems that hold no files of anybody's."""
    return {device for device, _, kind in mounts() if kind in PSEUDO_FILESYSTEMS} | set(_unmounted_devices())


def _unmounted_devices() -> Iterator[int]:
    """Pipes without a name, and memory that is shared without one, lie on filesystems that are not mounted anywhere."""
    for ends in os.pipe(), (os.memfd_create("diffkeeper"),):
        try:
            device = os.fstat(ends[0]).st_dev
        finally:
            for end in ends:
                os.close(end)
        yield os.major(device) << 20 | os.minor(device)


def pseudo_mountpoints() -> set[bytes]:
    return {path for _, path, kind in mounts() if kind in PSEUDO_FILESYSTEMS}


def subvolume_devices() -> dict[int, int]:
    """Device number that stat() gives in a subvolume of btrfs, and the one the kernel keeps, in stat()'s form.

    Only of subvolumes that are mounted: of others nobody says what they lie on.
    """
    result = dict[int, int]()
    for device, point, kind in mounts():
        if kind == "btrfs":
            with suppress(OSError):
                result[os.stat(point).st_dev] = os.makedev(device >> 20, device & 0xFFFFF)
    return result


def resolve_roots(roots: Sequence[Path]) -> tuple[bytes, ...]:
    """Absolute, resolved, sorted; a root inside another is dropped. UsageError for what is no directory."""
    found: list[bytes] = []
    for path in sorted({os.fsencode(os.path.realpath(root)) for root in roots or [Path.cwd()]}):
        if not os.path.isdir(path):
            raise UsageError(f"root {os.fsdecode(path)} is not a directory: --root takes directories")
        if not any(is_inside(path, other) for other in found):
            found.append(path)
    return tuple(found)


def is_inside(path: bytes, directory: bytes) -> bool:
    """Whether `path` is `directory` or below it; both absolute and resolved."""
    return directory in (path, b"/") or path.startswith(directory + b"/")


def symlinks_around(roots: Iterable[bytes]) -> Iterator[bytes]:
    """Symlinks outside the roots that paths commonly lead through: in /, /var, and above HOME and TMPDIR.

    Inside the roots the baseline knows every symlink. Outside, a path string that leads through one
    can only be understood when we know it.
    """
    known = tuple(roots)
    seen: set[bytes] = set()
    for directory in (b"/", b"/var", b"/usr"):
        try:
            with os.scandir(directory) as entries:
                seen.update(entry.path for entry in entries if entry.is_symlink())
        except OSError:
            continue
    for variable in (b"HOME", b"TMPDIR", b"PWD"):
        path = os.environb.get(variable, b"")
        while path.startswith(b"/") and path != b"/":
            if os.path.islink(path):
                seen.add(path)
            path = os.path.dirname(path)
    yield from sorted(path for path in seen if not any(is_inside(path, root) for root in known))
