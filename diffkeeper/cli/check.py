"""`diffkeeper check`: verify a trace.

Owns how problems are shown; finding them is `Trace.problems`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from diffkeeper.cli.opening import open_with_bar
from diffkeeper.cli.options import examples, trace_argument
from diffkeeper.cli.ui import use_colour
from diffkeeper.wording import printable


@click.command(epilog=examples("diffkeeper check trace"))
@trace_argument
@click.pass_context
def check(ctx: click.Context, trace: Path) -> None:
    """Verify every blob, chain and invariant of a trace.

    Reads all that is stored: each blob is rebuilt through its chain of patches and compared with
    its digest. Prints a line for each problem, and exits with 1 if there are any.
    """
    count = 0
    with open_with_bar(trace) as opened:
        for problem in opened.problems():
            count += 1
            line = printable(problem)
            click.echo(click.style(line, fg="red") if use_colour(sys.stdout) else line)
        events = opened.session.events
    if count:
        click.echo(f"{printable(str(trace))}: {count} problem{'s' if count > 1 else ''}")
        ctx.exit(1)
    click.echo(f"{printable(str(trace))}: {events} events, no problems")
