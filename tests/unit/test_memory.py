"""What memory there is, by the control groups that we are in, and how large a ring is for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffkeeper.record import memory

MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 22 0:28 / {top} rw,relatime - tmpfs tmpfs rw,mode=755
"""
SECOND = "35 31 0:32 {root} {top} rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
FIRST = """\
32 31 0:29 / {top}/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 {root} {top}/memory rw,relatime - cgroup cgroup rw,memory
"""


def group(directory: Path, name: str, limit: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(limit + "\n")


def test_the_least_limit_of_all_groups_above_counts(tmp_path: Path) -> None:
    """Of our group and of each that it is in; "max" is none."""
    group(tmp_path / "a/b", "memory.max", "max")
    group(tmp_path / "a", "memory.max", "268435456")
    group(tmp_path, "memory.max", "536870912")
    mounts = (MOUNTS + SECOND).format(top=tmp_path, root="/")
    assert sorted(memory.limits("0::/a/b\n", mounts)) == [268435456, 536870912]


def test_groups_of_the_first_version_have_a_mount_for_memory(tmp_path: Path) -> None:
    """Limits of other controllers, and the second version's mount beside them, do not count."""
    group(tmp_path / "memory/job", "memory.limit_in_bytes", "134217728")
    group(tmp_path / "memory", "memory.limit_in_bytes", "9223372036854771712")
    group(tmp_path / "cpu,cpuacct/job", "memory.limit_in_bytes", "1")
    groups = "9:name=systemd:/\n5:cpu,cpuacct:/job\n4:memory:/job\n0::/\n"
    mounts = (MOUNTS + FIRST).format(top=tmp_path, root="/")
    assert list(memory.limits(groups, mounts)) == [134217728, 9223372036854771712]


@pytest.mark.parametrize(
    ("path", "root"),
    [
        pytest.param("/", "/", id="with a namespace of its own"),
        pytest.param("/docker/123", "/docker/123", id="its own group is all that is mounted"),
        pytest.param("/docker/123", "/../..", id="mounted from elsewhere"),
        pytest.param("/docker/123", "/", id="named as outside, where it is not"),
    ],
)
def test_a_container_sees_its_own_group_at_the_top(tmp_path: Path, path: str, root: str) -> None:
    """Whatever its path is said to be."""
    group(tmp_path, "memory.max", "104857600")
    assert list(memory.limits(f"0::{path}\n", (MOUNTS + SECOND).format(top=tmp_path, root=root))) == [104857600]


def test_a_machine_without_control_groups(tmp_path: Path) -> None:
    """Has none of their limits."""
    assert not list(memory.limits("", MOUNTS.format(top=tmp_path)))
    assert not list(memory.limits("0::/\n", (MOUNTS + SECOND).format(top=tmp_path, root="/")))


def test_what_there_is_here() -> None:
    """Is no more than the machine has, and enough for these tests."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    assert 64 << 20 < memory.limit() <= int(lines[0].split()[1]) << 10


@given(st.integers(1, 1 << 45))
def test_a_ring_takes_a_small_part(total: int) -> None:
    """A power of two, no more than a sixteenth of the memory but for the least, and the next one would be too much."""
    size = memory.ring_bytes(total)
    assert size & (size - 1) == 0
    assert memory.LEAST_RING <= size <= memory.MOST_RING
    assert size == memory.LEAST_RING or size * 16 <= total
    assert size == memory.MOST_RING or size * 2 * 16 > total
