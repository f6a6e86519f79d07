"""`diffkeeper bisect`: run a command at one moment after the other, and name the event that made it fail.

Owns the command line, how the command is run and what its end means; the search is `diffkeeper.bisecting`.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffkeeper import exporting, plugins
from diffkeeper.bisecting import Found, Verdict, culprits, moments, search
from diffkeeper.cli import process
from diffkeeper.cli.opening import open_with_bar
from diffkeeper.cli.options import DEFAULT_TRACE, MOMENT, TRACE_PATH, FilterSpecs, examples, filter_option
from diffkeeper.cli.timeline import Columns
from diffkeeper.cli.ui import open_ui
from diffkeeper.errors import (
    CommandNotExecutableError,
    CommandNotFoundError,
    MomentError,
    MountpointError,
    NoFuseError,
)
from diffkeeper.eventlines import JsonLines
from diffkeeper.happenings import PER, Ends
from diffkeeper.partial import remove_tree
from diffkeeper.progress import Progress, Silent
from diffkeeper.view import mount as mounts
from diffkeeper.wording import printable

if TYPE_CHECKING:
    from diffkeeper.trace import Trace
    from diffkeeper.view.roots import Roots

CANNOT_TELL = 125
"""Exit code of a command that cannot say whether a moment is good; `git bisect run` has the same."""

SHOWN = 20
"""Events that are shown for people."""

Place = Callable[["Trace", int], Path]
"""Where the tree after an event is; it is there until the next is asked for."""


@click.command(context_settings={"allow_interspersed_args": False}, epilog=examples(
    "diffkeeper bisect -- python -m json.tool status.json",
    "diffkeeper bisect --good 2m --path '*.db' -- sqlite3 app.db 'select count(*) from users'",
    "diffkeeper bisect --copy -q -- make check",
))
@click.option(
    "--state-dir", "trace", type=TRACE_PATH, metavar="TRACE", default=DEFAULT_TRACE, show_default=True,
    help="The trace.",
)
@click.option("--good", type=MOMENT, default="start", show_default=True, help="A moment at which CMD succeeds.")
@click.option("--bad", type=MOMENT, default="end", show_default=True, help="A later moment at which it fails.")
@click.option("--path", "paths", metavar="GLOB", multiple=True, help="Only events of such paths; may be repeated.")
@filter_option
@click.option(
    "--per", type=click.Choice(PER), default="close", show_default=True,
    help="Try after each change, after the last of several in a row to one file, or at marks.",
)
@click.option("--copy", is_flag=True, help="Run CMD in a copy of each moment, in which it may write; needs no FUSE.")
@click.option("-q", "--quiet", is_flag=True, help="Show nothing of what CMD says.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD [ARG]...")
def bisect(
    trace: Path,
    good: str,
    bad: str,
    paths: tuple[str, ...],
    filters: FilterSpecs,
    per: str,
    copy: bool,
    quiet: bool,
    as_json: bool,
    command: tuple[str, ...],
) -> None:
    """Find the event that made a command fail.

    Runs CMD in the directory in which the recorded command was started, as it was at one moment after
    the other, and halves what is left: a million events are twenty runs. Prints the event after which
    CMD fails.

    CMD succeeds if it ends with 0; 125 says that this moment cannot be told; all else is a failure. Its
    output goes to standard error. DIFFKEEPER_MOMENT is the moment.
    """
    process.unwind_on_signals()
    with open_with_bar(trace) as opened:
        first, last = opened.moment(good), opened.moment(bad)
        if first.seq >= last.seq:
            raise click.UsageError(f"--good {good} is not earlier than --bad {bad}")
        ui = open_ui()
        try:
            chosen = tuple(os.fsencode(path) for path in paths)
            selection = exporting.Selection(last, chosen, first.seq + 1, filters)
            seqs = moments(opened, first.seq, selection, Ends(per), _Reading(ui))
        finally:
            ui.finish()
        layout, inner = opened.layout, _started_in(opened)
    # The process that serves a mount comes from this one, and LMDB opens an index in a process once.
    with _copied(layout) if copy else _mounted(trace, layout) as place, open_with_bar(trace) as opened:
        run = partial(_run, opened, command, lambda opened, seq: place(opened, seq) / inner, quiet=quiet)
        _expect(run, first.seq, Verdict.GOOD, f"--good {good}")
        _expect(run, last.seq, Verdict.BAD, f"--bad {bad}")
        _tell(opened, trace, search(seqs, run), as_json=as_json)


class _Reading(Silent):
    """What an exporter would call exporting."""

    def __init__(self, ui: Progress) -> None:
        self._ui = ui

    def progress(self, label: str, done: int, total: int) -> None:
        del label
        self._ui.progress("reading", done, total)


def _expect(run: Callable[[int, int], Verdict], seq: int, verdict: Verdict, option: str) -> None:
    found = run(seq, 0)
    if found is not verdict:
        raise MomentError(f"CMD {found.value} at {option}: give a moment at which it {verdict.value}")


# -- running -----------------------------------------------------------------------------------


def _run(trace: Trace, command: tuple[str, ...], place: Place, seq: int, left: int, *, quiet: bool) -> Verdict:
    """Run the command at a moment, and say how it went. `left`: moments that are left besides."""
    moment = trace.stamp(seq)
    where = place(trace, seq)
    is_there = where.is_dir()  # the directory in which the recorded command was started
    verdict = _verdict(command, where, moment, quiet=quiet) if is_there else Verdict.UNKNOWN
    more = f", {math.ceil(math.log2(left + 1))} more to try" if left > 0 else ""
    click.echo(f"@{moment}: {verdict.value}{more}", err=True)
    return verdict


def _verdict(command: tuple[str, ...], where: Path, moment: str, *, quiet: bool) -> Verdict:
    said = subprocess.DEVNULL if quiet else sys.stderr.fileno()
    environment = {**os.environ, "DIFFKEEPER_MOMENT": moment}
    try:
        done = subprocess.run(command, cwd=where, env=environment, stdout=said, stderr=said, check=False)
    except FileNotFoundError as error:
        raise CommandNotFoundError(f"{command[0]}: {error.strerror}") from error
    except OSError as error:
        raise CommandNotExecutableError(f"{command[0]}: {error.strerror}") from error
    if done.returncode in (-signal.SIGINT, 128 + signal.SIGINT):
        raise KeyboardInterrupt
    if done.returncode == CANNOT_TELL:
        return Verdict.UNKNOWN
    return Verdict.BAD if done.returncode else Verdict.GOOD


def _started_in(trace: Trace) -> str:
    """Where the recorded command was started, below the top of a moment; the top, if that was elsewhere."""
    top, cwd = trace.layout.top.rstrip(b"/") + b"/", trace.session.cwd
    return os.fsdecode(cwd.removeprefix(top)) if cwd.startswith(top) and trace.layout.inside(cwd) else ""


@contextmanager
def _mounted(trace: Path, layout: Roots) -> Iterator[Place]:
    with _directory(layout) as point:
        try:
            try:
                mounts.mount(trace, point)
            except (NoFuseError, MountpointError) as error:
                raise type(error)(f"{error}; or use --copy, which needs no mount") from error
            yield lambda _, seq: point / (f"@e{seq}" if seq else "@start")
        finally:
            with suppress(MountpointError):  # there is none, where that failed
                mounts.umount(point, in_use=True)  # by what CMD has left running there


@contextmanager
def _copied(layout: Roots) -> Iterator[Place]:
    with _directory(layout) as above:
        made = above / "moment"

        def place(trace: Trace, seq: int) -> Path:
            _remove(made)
            selection = exporting.Selection(trace.moment(seq or "start"))
            exporting.export(plugins.exporter("dir", {}), trace, selection, made, Silent())
            return made

        try:
            yield place
        finally:
            _remove(made)


def _remove(made: Path) -> None:
    if made.exists():
        remove_tree(made)


@contextmanager
def _directory(layout: Roots) -> Iterator[Path]:
    """A new one that is not below what was recorded, for there it could be mistaken for a part of that."""
    places = (tempfile.gettempdir(), "/var/tmp", "/dev/shm")  # noqa: S108 - a private directory is made there
    free = (place for place in places if os.path.isdir(place) and not layout.inside(os.fsencode(place)))
    made = Path(tempfile.mkdtemp(prefix="diffkeeper-", dir=next(free, None)))
    try:
        yield made
    finally:
        made.rmdir()


# -- telling -----------------------------------------------------------------------------------


def _tell(trace: Trace, path: Path, found: Found, *, as_json: bool) -> None:
    events = culprits(trace, found)
    good = f"e{found.good}" if found.good else "start"
    if as_json:
        line = JsonLines(trace).line
        told = {"good": good, "bad": f"e{found.bad}", "unknown": found.unknown}
        click.echo(json.dumps({**told, "events": [json.loads(line(event)) for event in events]}))
        return
    columns = Columns(trace)
    for event in itertools.islice(events, SHOWN):
        click.echo(columns.line(event), nl=False)
    if more := sum(1 for _ in events):
        click.echo(f"... and {more:,} more")
    unknown = f" (for {found.unknown:,} moments between it cannot be told)" if found.unknown else ""
    summary = f"CMD succeeds at @{good} and fails at @e{found.bad}{unknown}"
    click.echo(f"{summary}; next: diffkeeper diff {printable(str(path))} {good} e{found.bad}", err=True)
