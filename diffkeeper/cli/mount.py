"""`diffkeeper mount`: every moment of a trace as a directory.

Owns only the command; checks, daemon and messages are in `diffkeeper.view.mount`.
"""

from __future__ import annotations

from pathlib import Path

import click

from diffkeeper.cli.opening import tell
from diffkeeper.cli.options import examples, split_trace, state_dir_option
from diffkeeper.cli.ui import open_ui
from diffkeeper.view import mount as mounts


@click.command(epilog=examples(
    "diffkeeper mount /mnt/trace",
    "diffkeeper mount trace /mnt/trace && diff -r /mnt/trace/@1s /mnt/trace/@end",
))
@click.argument("words", metavar="[TRACE] MOUNTPOINT", nargs=-1, type=click.Path(readable=False))
@state_dir_option
@click.option("-f", "--foreground", is_flag=True, help="Stay, and serve until interrupted; errors go to the terminal.")
def mount(words: tuple[str, ...], state_dir: Path | None, foreground: bool) -> None:
    """Mount a trace: every moment is a directory.

    In MOUNTPOINT, @2m14s is the recorded directory as it was then; so are @start, @end, @e1234 and
    the @NAME of each mark. Compare moments with diff -r, copy from them with cp -a; nothing can be
    changed. The hidden .diffkeeper/ holds the timeline, the history of each file, and what was
    seen outside the recorded directory.
    """
    trace, rest = split_trace(state_dir, words, ("MOUNTPOINT",), exact=True)
    ui = open_ui()
    try:
        mounts.mount(
            trace, Path(rest[0]), foreground=foreground, progress=lambda done, total: ui.progress("index", done, total),
            opened=lambda opened: tell(ui, opened),
        )  # fmt: skip
    finally:
        ui.finish()
