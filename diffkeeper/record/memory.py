"""How much memory there is: what the machine has, or less where a control group holds us, as containers do.

Owns finding that out (cgroups(7)) and how large a ring is for it. Kernel memory counts as ours there: with a ring that
is too large for a small container somebody in it is killed, and it may be the command.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

LEAST_RING, MOST_RING = 4 << 20, 64 << 20
SHARE = 16
"""The ring takes no more than one part of so many, of all the memory there is."""

_LIMITS = {"cgroup2": "memory.max", "cgroup": "memory.limit_in_bytes"}
"""Type of filesystem -> file with a group's limit. The first has all controllers, the second one or a few a mount."""


def limit() -> int:
    """Bytes that may be taken at most."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError):
        groups, mounts = (Path("/proc/self", name).read_text(errors="replace") for name in ("cgroup", "mountinfo"))
        return min([machine, *limits(groups, mounts)])
    return machine


def ring_bytes(memory: int) -> int:
    """Size of a ring, a power of two. `memory`: bytes."""
    part = max(memory // SHARE, LEAST_RING)
    return min(MOST_RING, 1 << part.bit_length() - 1)


def limits(groups: str, mounts: str) -> Iterator[int]:
    """Of the groups that we are in, and those above. `groups`, `mounts`: /proc/PID/cgroup and /proc/PID/mountinfo."""
    paths = {}
    for line in groups.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            paths["cgroup2"] = path
        elif "memory" in controllers.split(","):
            paths["cgroup"] = path
    for line in mounts.splitlines():
        fields, _, tail = line.partition(" - ")
        root, point = fields.split(" ")[3:5]
        kind, _, options = tail.split(" ")[:3]
        if kind in paths and (kind == "cgroup2" or "memory" in options.split(",")):
            yield from _upwards(Path(point), _below(paths[kind], root), _LIMITS[kind])


def _below(path: str, root: str) -> PurePosixPath:
    """Where a group is below a mount that shows `root`; in a container that may be nowhere: then it is the top."""
    with suppress(ValueError):
        return PurePosixPath(path).relative_to(root)
    return PurePosixPath()


def _upwards(point: Path, group: PurePosixPath, name: str) -> Iterator[int]:
    for each in (group, *group.parents):
        with suppress(OSError, ValueError):  # no such group here, or "max"
            yield int((point / each / name).read_text())
