"""`diffkeeper umount`: the end of a mount.

Owns only the command; the work is in `diffkeeper.view.mount`.
"""

from __future__ import annotations

from pathlib import Path

import click

from diffkeeper.cli.options import examples
from diffkeeper.view import mount as mounts


@click.command(epilog=examples("diffkeeper umount /mnt/trace"))
@click.argument("mountpoint", type=click.Path(path_type=Path, readable=False))
def umount(mountpoint: Path) -> None:
    """Unmount a mounted trace.

    Returns when nothing is mounted there any more. Also takes away a mount whose process was
    killed.
    """
    mounts.umount(mountpoint)
