"""`diffkeeper repack`: store a finished trace's patches anew.

Owns the command line and the table; the work is `diffkeeper.store.repack`.
"""

from __future__ import annotations

from pathlib import Path

import click

from diffkeeper.cli.options import PLUGIN_SPEC, examples, trace_argument
from diffkeeper.cli.ui import open_ui
from diffkeeper.wording import human_size, printable

WHOLE = {"raw": "stored whole", "zstd": "whole, compressed"}
"""What is stored without a differ; other names are those of differs."""


@click.command(epilog=examples(
    "diffkeeper repack --differ bsdiff4",
    "diffkeeper repack --differ zstd:level=19 trace",
))
@trace_argument
@click.option(
    "--differ", type=PLUGIN_SPEC, metavar="NAME[:k=v,...]", default="auto", show_default=True,
    help="As for record: auto, raw (no patches), or a differ plugin.",
)
def repack(trace: Path, differ: tuple[str, dict[str, str]]) -> None:
    """Store a trace's patches anew, with another differ.

    Makes it smaller, or quicker to read, or free of a differ that others do not have. Shows what it
    took before and after. All content is read and compared with its digests, twice.
    """
    from diffkeeper.store.differing import Choice
    from diffkeeper.store.repack import repack as repack_trace

    ui = open_ui()
    try:
        before, after, smaller = repack_trace(
            trace, Choice(*differ), lambda done, total: ui.progress("repacking", done, total)
        )
    finally:
        ui.finish()
    click.echo(f"{'':<24}{'before':>12}{'after':>12}")
    for kind in sorted({*before.kinds, *after.kinds}):
        words = WHOLE.get(kind) or f"patches by {kind}"
        click.echo(f"{printable(words):<24}{before.kinds[kind]:>12}{after.kinds[kind]:>12}")
    for label, one, other in (("content", before.stored, after.stored), ("index on disk", before.file, after.file)):
        click.echo(f"{label:<24}{human_size(one):>12}{human_size(other):>12}")
    click.echo(f"{'to read all content':<24}{before.seconds:>10.2f} s{after.seconds:>10.2f} s")
    if not smaller:
        click.echo("note: the index was not made smaller: it is open elsewhere, or the disk is full", err=True)
