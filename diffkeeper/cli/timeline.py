"""`diffkeeper timeline`: what happened, one event a line.

Owns the columns for people; JSON objects for programs are `diffkeeper.eventlines`. Which events
there are, and how a moment is spelt, is the trace's. Lines go out as they are read, the first at once.
"""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffkeeper.cli.opening import open_with_bar
from diffkeeper.cli.options import MOMENT, OPS, FilterSpecs, examples, filter_option, trace_argument
from diffkeeper.cli.ui import use_colour
from diffkeeper.errors import PluginError
from diffkeeper.eventlines import FIDELITIES, LABELS, JsonLines, LineForm
from diffkeeper.filtering import Spec, event_filters
from diffkeeper.model import FROM_OUTSIDE, Event, Fidelity, Op
from diffkeeper.wording import human_size, printable

if TYPE_CHECKING:
    from diffkeeper.trace import Trace

FIRST_BATCH, LAST_BATCH = 16, 4096
"""Lines per write(2): few at first so that something is seen at once, many later for speed."""

COLOURS = {
    Op.CREATE: "green", Op.MKDIR: "green", Op.MKNOD: "green", Op.SYMLINK: "green", Op.LINK: "green",
    Op.WRITE: "yellow", Op.TRUNCATE: "yellow", Op.RENAME: "cyan", Op.EXCHANGE: "cyan",
    Op.UNLINK: "magenta", Op.RMDIR: "magenta", Op.MARK: "bright_blue", Op.GAP: "red", Op.HEAL: "red",
    Op.FORK: "bright_black", Op.EXEC: "bright_black", Op.EXIT: "bright_black",
}  # fmt: skip
LOUD = frozenset((Op.GAP, Op.HEAL))
"""Operations whose whole line is coloured: what the recorder missed or got wrong."""

NARROWEST, WIDEST = 24, 72


@click.command(epilog=examples(
    "diffkeeper timeline --path '*.json' --since 2m14s",
    "diffkeeper timeline --op rename,unlink trace",
    "diffkeeper timeline --json | jq 'select(.pid == 812)'",
))
@trace_argument
@click.option("--since", type=MOMENT, help="Begin with this moment.")
@click.option("--until", type=MOMENT, help="Stop after this moment.")
@click.option("--path", metavar="GLOB", help="Only paths like this; a pattern without / means the name.")
@click.option("--op", "ops", type=OPS, metavar="OP", multiple=True, help="Only this operation; may be repeated.")
@click.option("--pid", type=int, metavar="N", help="Only what this process did.")
@filter_option
@click.option("--all", "unfiltered", is_flag=True, help="Also the events that the recording's own filters would hide.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def timeline(
    trace: Path,
    since: str | None,
    until: str | None,
    path: str | None,
    ops: tuple[frozenset[Op], ...],
    pid: int | None,
    filters: FilterSpecs,
    unfiltered: bool,
    as_json: bool,
) -> None:
    """List what happened, in order.

    Each line has a moment to paste into other commands or behind the @ of a mount, the operation,
    the path, the size where there is one, and who did it. Paths are relative to the recorded
    directory, absolute outside it.
    """
    with open_with_bar(trace) as opened:
        wanted = frozenset[Op]().union(*ops) or None
        hiding = () if unfiltered else recorded_filters(opened)
        specs = (*hiding, *filters)
        if as_json and not (path or wanted or pid is not None or specs):
            first = opened.covered(since)[0] if since else 1
            last = opened.covered(until)[1] if until else opened.reader.last_seq
            lines = JsonLines(opened).lines(first, last)
        else:
            form: LineForm = JsonLines(opened) if as_json else Columns(opened)
            events = opened.events(since=since, until=until, path=path, op=wanted, pid=pid, filters=specs)
            lines = map(form.line, events)
        for batch in batches(lines):
            sys.stdout.write("".join(batch))
            sys.stdout.flush()


def recorded_filters(trace: Trace) -> Sequence[Spec]:
    """What the recording's own filters hide; without one of them nothing, as the trace has it all."""
    try:
        return event_filters(trace)
    except PluginError as error:
        click.echo(f"note: shown is also what filters of the recording would hide: {printable(str(error))}", err=True)
        return ()


def batches(lines: Iterable[str]) -> Iterator[list[str]]:
    """Lines in growing bunches."""
    limit, rest = FIRST_BATCH, iter(lines)
    while batch := list(itertools.islice(rest, limit)):
        yield batch
        limit = min(limit * 2, LAST_BATCH)


class Columns(LineForm):
    """Aligned columns. The path's column grows as longer paths come, up to what the line can hold."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace)
        columns = shutil.get_terminal_size((120, 24)).columns
        self._widest = max(NARROWEST, min(WIDEST, columns - 50))
        self._width = NARROWEST
        self._paint = painters() if use_colour(sys.stdout) else {}
        self._shown: dict[bytes, str] = {}

    def line(self, event: Event) -> str:
        op = event.op
        what = self.what(event)
        if event.path and op not in LOUD and self._width < len(what) <= self._widest:
            self._width = len(what)
        label = f"{LABELS[op]:<11}"
        paint = self._paint.get(op)
        if paint and op not in LOUD:
            label = paint(label)
        who = f"{printable(self.comm(event))}[{event.pid}]" if event.pid else ""
        line = f"{self.stamp(event):>12}  {label} {what:<{self._width}}  {amount(event):<16}  {who}".rstrip()
        return (paint(line) if paint and op in LOUD else line) + "\n"

    def what(self, event: Event) -> str:
        """The path or paths, or for an event without one, what it was about."""
        op = event.op
        path = self._path(event.path) if event.path else ""
        if op == Op.SYMLINK:
            return f"{path} → {printable(event.to or b'')}"
        if event.to is not None:
            return f"{path} {'↔' if op == Op.EXCHANGE else '→'} {self._path(event.to)}"
        if op == Op.GAP:
            missed = f"{event.count} events missed" if event.count else "events missed"
            return f"{missed}: {printable(event.detail)}" + (f" ({path})" if path else "")
        if op == Op.HEAL:
            outside = event.detail.startswith(FROM_OUTSIDE)
            what = printable(event.detail.removeprefix(FROM_OUTSIDE))
            told = "changed from outside" if outside else "was recorded wrong"
            return f"{path}: {told}{what and f' ({what})'}, put right at the end"
        if event.detail:
            detail = printable(event.detail)
            return f"{path}  {detail}" if path else detail
        return path

    def _path(self, path: bytes) -> str:
        shown = self._shown.get(path)
        if shown is None:
            if len(self._shown) >= 100_000:
                self._shown.clear()
            shown = self._shown[path] = printable(self.display(path))
        return shown


def amount(event: Event) -> str:
    """The size column: `+17 B @4096` for a write, `=0 B` for a new size; how far to trust it, if not fully."""
    text = ""
    if event.size is not None and event.op == Op.WRITE:
        text = f"+{human_size(event.size)} @{event.offset or 0}"
    elif event.size is not None:
        text = f"={human_size(event.size)}"
    if event.fidelity is not Fidelity.EXACT and event.op not in LOUD:
        text = f"{text} ({FIDELITIES[event.fidelity]})".lstrip()
    return text


def painters() -> dict[Op, Callable[[str], str]]:
    """For each operation, what puts its colour around a text."""

    def painter(colour: str, bold: bool) -> Callable[[str], str]:
        before, after = click.style("|", fg=colour, bold=bold or None).split("|")
        return lambda text: f"{before}{text}{after}"

    return {op: painter(colour, op in LOUD) for op, colour in COLOURS.items()}
