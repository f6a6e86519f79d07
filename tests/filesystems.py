"""A fresh filesystem of each kind that people use, mounted for as long as it is needed.

Owns making, mounting and unmounting; knows nothing of recordings.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PATIENCE = 30
KINDS = ("ext4", "xfs", "btrfs", "tmpfs", "overlay")
FURTHER = ("vfat", "exfat", "ntfs", "f2fs", "casefold")
"""Which not every kernel has. The last one is an ext4 whose root takes upper and lower case for the same."""
SIZE = "400M"
_NTFS = ("-t", "ntfs3" if "ntfs3" in Path("/proc/filesystems").read_text() else "ntfs")
"""Which driver, as kernels have one or the other; else mount(8) would take the one that is a program."""
_MADE_BY = {
    "vfat": ("mkfs.vfat",), "exfat": ("mkfs.exfat",), "ntfs": ("mkfs.ntfs", "--force", "--quick"),
    "casefold": ("mkfs.ext4", "-q", "-O", "casefold"),
}  # fmt: skip


@contextmanager
def mounted(kind: str, place: Path, size: str = SIZE) -> Iterator[Path]:
    """The mount point, below the existing directory `place`. `size` as truncate(1) takes it.

    overlayfs lies over a tmpfs, with `low/file` and `low/sub/other` in its lower layer.
    """
    point = place / "mounted"
    point.mkdir()
    with ExitStack() as undo:
        if kind == "overlay":
            layers = place / "layers"
            layers.mkdir()
            _mount(undo, layers, "-t", "tmpfs", "none")
            for name in ("lower/low/sub", "upper", "work"):
                (layers / name).mkdir(parents=True)
            (layers / "lower/low/file").write_text("from below\n")
            (layers / "lower/low/sub/other").write_text("from below, too\n")
            paths = f"lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work"
            _mount(undo, point, "-t", "overlay", "-o", paths, "none")
        elif kind == "tmpfs":
            _mount(undo, point, "-t", "tmpfs", "-o", f"size={size}", "none")
        else:
            image = place / "image"
            subprocess.run(["truncate", "-s", size, image], check=True)
            undo.callback(image.unlink)
            subprocess.run([*_MADE_BY.get(kind, (f"mkfs.{kind}", "-q")), image], check=True, capture_output=True)
            _mount(undo, point, "-o", "loop", *(_NTFS if kind == "ntfs" else ()), image)
            if kind == "casefold":
                (point / "lost+found").rmdir()
                subprocess.run(["chattr", "+F", point], check=True)
        yield point


def _mount(undo: ExitStack, point: Path, *words: object) -> None:
    subprocess.run(["mount", *map(str, words), str(point)], check=True)
    undo.callback(unmount, point)


def unmount(point: Path) -> None:
    """What a program started may be on its way out still, and holds on to the filesystem until it is."""
    deadline = time.monotonic() + PATIENCE
    while subprocess.run(["umount", point], check=False, capture_output=True).returncode:
        if time.monotonic() > deadline:
            subprocess.run(["umount", point], check=True)
        time.sleep(0.1)
