"""Which path leads to a place in a filesystem, by a table of mounts."""

from __future__ import annotations

import pytest

from diffkeeper.errors import TraceDamagedError
from diffkeeper.mounts import Mount, Mounts, unpack

TABLE = (
    Mount(1, b"/", b"/", b"ext4"),
    Mount(1, b"/srv/data", b"/mnt", b"ext4"),
    Mount(2, b"/", b"/srv/data/inner", b"xfs"),
    Mount(3, b"/@home", b"/home", b"btrfs"),
)


@pytest.mark.parametrize(("device", "inside", "path"), [
    (1, b"/etc/passwd", b"/etc/passwd"),
    (1, b"/", b"/"),
    (1, b"/srv/data/f", b"/srv/data/f"),
    (1, b"/srv/data/inner/f", b"/mnt/inner/f"),  # covered where it is
    (1, b"/mnt/f", None),  # covered, and nowhere else
    (2, b"/", b"/srv/data/inner"),
    (3, b"/@home/ann", b"/home/ann"),
    (3, b"/@homes/ann", None),
    (4, b"/", None),
])  # fmt: skip
def test_the_path_that_can_be_seen(device: int, inside: bytes, path: bytes | None) -> None:
    """Where a filesystem's directory is mounted, and nothing else over it."""
    assert Mounts(TABLE, [b"/srv"]).path(device, inside) == path


def test_of_several_paths_the_one_below_a_root() -> None:
    """The one that is recorded counts."""
    assert Mounts(TABLE, [b"/mnt"]).path(1, b"/srv/data/f") == b"/mnt/f"


@pytest.mark.parametrize(("root", "has"), [
    (b"/srv", True), (b"/srv/data/sub", True), (b"/mnt", True), (b"/home", False), (b"/etc", False), (b"/", True),
])  # fmt: skip
def test_what_has_another_path(root: bytes, has: bool) -> None:
    """A root has aliases where some of it is mounted a second time."""
    assert Mounts(TABLE, [root]).has_aliases() is has


def test_a_table_comes_back() -> None:
    """As the journal has it, and back."""
    assert tuple(unpack(Mounts(TABLE, []).packed())) == TABLE
    assert unpack(b"") == []


def test_the_kind_of_filesystem() -> None:
    """That of the mount which a path is below, the innermost one."""
    mounts = Mounts(TABLE, [])
    assert [mounts.kind(path) for path in (b"/etc", b"/srv/data/inner/f", b"/home", b"/homes")] == [
        b"ext4", b"xfs", b"btrfs", b"ext4",
    ]  # fmt: skip
    assert Mounts([], []).kind(b"/") == b""


@pytest.mark.parametrize("payload", [
    b"1\0/\0/\0", b"1\0/\0/\0xfs\0x", b"x\0/\0/\0xfs\0", b"1\0a\0/\0xfs\0", b"99999999999\0/\0/\0xfs\0",
])  # fmt: skip
def test_a_damaged_table(payload: bytes) -> None:
    """One error, whatever is in it."""
    with pytest.raises(TraceDamagedError):
        unpack(payload)
