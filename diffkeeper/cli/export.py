"""`diffkeeper export`: copy a moment out of a trace.

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
from diffkeeper.cli.opening import open_with_bar
from diffkeeper.cli.options import KEY_VALUE, MOMENT, trace_argument
from diffkeeper.cli.ui import human_size, is_terminal, open_ui, printable
from diffkeeper.errors import TraceDamagedError

DEFAULT_FORMAT = "dir"


@click.command()
@trace_argument
@click.option("--time", "when", type=MOMENT, required=True, help="The moment to copy.")
@click.option("--out", required=True, metavar="DEST", help="Where to; must not exist. - is standard output.")
@click.option(
    "--format", "name", metavar="NAME",
    help="An exporter, see 'diffkeeper plugins'.  [default: what DEST ends in, such as .tar; else dir]",
)
@click.option("--path", "paths", metavar="GLOB", multiple=True, help="Only what matches; may be repeated.")
@click.option("--opt", "options", type=KEY_VALUE, multiple=True, help="An option of the exporter; may be repeated.")
@click.pass_context
def export(
    ctx: click.Context,
    trace: Path,
    when: str,
    out: str,
    name: str | None,
    paths: tuple[str, ...],
    options: tuple[tuple[str, str], ...],
) -> None:
    """Copy a moment out of a trace.

    DEST appears only when it is whole. Owners are kept when root exports; set-id bits and device
    nodes only if asked for (dir: --opt suid=true, --opt devices=true).

    GLOB: * also stands for /; without any / it means a name at any depth; a directory that matches
    brings all that is in it.
    """
    exporter = plugins.exporter(name or guess_format(out), joined(options))
    destination = _standard_output() if out == "-" else Path(out)
    with open_with_bar(trace) as opened:
        moment = opened.moment(when)
        selection = exporting.Selection(moment, tuple(os.fsencode(path) for path in paths))
        result = exporting.export(exporter, opened, selection, destination, open_ui())
    summary = f"{result.entries} entries, {human_size(result.size)} of @{moment.name} exported to {printable(out)}"
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
