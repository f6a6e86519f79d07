"""`diffkeeper export`: copy a moment, or what happened, out of a trace.

Owns the command line only; running an exporter is `diffkeeper.exporting`, formats are plugins.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import click

from diffkeeper import exporting, plugins
from diffkeeper.cli import process
from diffkeeper.cli.opening import open_with_bar
from diffkeeper.cli.options import KEY_VALUE, MOMENT, FilterSpecs, examples, filter_option, trace_argument
from diffkeeper.cli.ui import is_terminal, open_ui
from diffkeeper.errors import TraceDamagedError
from diffkeeper.wording import human_size, printable

DEFAULT_FORMAT = "dir"


@click.command(epilog=examples(
    "diffkeeper export --time 2m14s --out evidence",
    "diffkeeper export --time end --out - --format tar | tar -t",
    "diffkeeper export --out history --format git",
))
@trace_argument
@click.option("--time", "when", type=MOMENT, help="The moment to copy, for formats that hold a moment.")
@click.option("--since", type=MOMENT, help="Begin with this moment, for formats that hold events.  [default: start]")
@click.option("--until", type=MOMENT, help="Stop after this moment, for formats that hold events.  [default: end]")
@click.option("--out", required=True, metavar="DEST", help="Where to; must not exist. - is standard output.")
@click.option(
    "--format", "name", metavar="NAME",
    help="An exporter, see 'diffkeeper plugins'.  [default: what DEST ends in, such as .tar; else dir]",
)
@click.option("--path", "paths", metavar="GLOB", multiple=True, help="Only what matches; may be repeated.")
@filter_option
@click.option("--resume", is_flag=True, help="Keep what was made when this is stopped; go on from there (dir).")
@click.option("--opt", "options", type=KEY_VALUE, multiple=True, help="An option of the exporter; may be repeated.")
@click.pass_context
def export(
    ctx: click.Context,
    trace: Path,
    when: str | None,
    since: str | None,
    until: str | None,
    out: str,
    name: str | None,
    paths: tuple[str, ...],
    filters: FilterSpecs,
    resume: bool,
    options: tuple[tuple[str, str], ...],
) -> None:
    """Copy a moment, or what happened, out of a trace.

    Formats are of two kinds: dir, tar and tar.zst hold the files of one moment (--time); ndjson,
    git, html, perfetto and parquet hold events (--since, --until; all of them by default).

    DEST appears only when it is whole. Owners are kept when root exports; set-id bits and device
    nodes only if asked for (dir: --opt suid=true, --opt devices=true).

    GLOB: * also stands for /; without any / it means a name at any depth; a directory that matches
    brings all that is in it.
    """
    name = name or guess_format(out)
    exporter = plugins.exporter(name, joined(options))
    if exporter.of_range and when is not None:
        raise click.UsageError(f"{name} holds events, not one moment: give --since and --until instead of --time")
    if not exporter.of_range and (since is not None or until is not None):
        raise click.UsageError(f"{name} holds one moment, not events: give --time instead of --since and --until")
    if not exporter.of_range and when is None:
        raise click.UsageError("Missing option '--time'")
    destination = _standard_output() if out == "-" else Path(out)
    process.unwind_on_signals()  # what was made so far is removed
    with open_with_bar(trace) as opened:
        moment = opened.moment(when or until or "end")
        first = opened.covered(since)[0] if since is not None else 1
        if first > moment.seq + 1:
            raise click.UsageError(f"--since {since} is later than --until {moment.name}")
        chosen = tuple(os.fsencode(path) for path in paths)
        selection = exporting.Selection(moment, chosen, first, filters)
        result = exporting.export(exporter, opened, selection, destination, open_ui(), resume=resume)
    span = f"@{since or 'start'} to @{moment.name}" if exporter.of_range else f"@{moment.name}"
    summary = f"{result.entries} {exporter.unit}, {human_size(result.size)} of {span} exported to {printable(out)}"
    click.echo(summary, err=out == "-")
    for note in result.notes:
        click.echo(f"note: {printable(note)}", err=True)
    for lost in result.damaged:
        click.echo(f"LEFT OUT: {printable(lost)}", err=True)
    if result.damaged:
        ctx.exit(TraceDamagedError.exit_code)


def guess_format(out: str) -> str:
    """The exporter whose name the destination ends in, after a dot; the longest one; else dir."""
    matching = [name for name in plugins.names("exporter") if out.endswith("." + name)]
    return max(matching, key=len, default=DEFAULT_FORMAT)


def joined(options: Iterable[tuple[str, str]]) -> dict[str, str]:
    """As a mapping; an option given several times is a list, written with commas."""
    found: dict[str, str] = {}
    for key, value in options:
        found[key] = f"{found[key]},{value}" if key in found else value
    return found


def _standard_output() -> BinaryIO:
    if is_terminal(sys.stdout):
        raise click.UsageError("--out - would write to the terminal; redirect it or give a path")
    return sys.stdout.buffer
