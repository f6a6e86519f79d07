"""`diffkeeper info`: a trace in one page, or in one JSON object.

Owns the two forms of the summary; every figure comes from the trace's `Session`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffkeeper.cli.opening import open_with_bar
from diffkeeper.cli.options import examples, trace_argument
from diffkeeper.cli.ui import use_colour
from diffkeeper.errors import PluginError
from diffkeeper.filtering import Filters
from diffkeeper.model import Fidelity, Filtered
from diffkeeper.plugins import differ
from diffkeeper.wording import date_of, human_duration, human_size, printable

if TYPE_CHECKING:
    from diffkeeper.trace import Trace


@click.command(epilog=examples(
    "diffkeeper info",
    "diffkeeper info --json trace | jq .lost",
))
@trace_argument
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(trace: Path, as_json: bool) -> None:
    """Summarise a trace: how much, how well, what was missed.

    Says what was run and how it ended, how many events there are, what was lost and why, how far
    the recorded bytes can be trusted, and what the comparison with the real files found when the
    command had ended.
    """
    with open_with_bar(trace, tells=False) as opened:
        if as_json:
            click.echo(json.dumps(as_object(opened, trace)))
            return
        colour = use_colour(sys.stdout)
        for label, value, bad in as_rows(opened, trace):
            text = f"{label:<13} {value}".rstrip()
            click.echo(click.style(text, fg="red") if bad and colour else text)


def as_object(trace: Trace, path: Path) -> dict[str, Any]:
    """The summary for `--json`. Times in seconds; None where it is not known."""
    session = trace.session
    began = date_of(session.started)
    return {
        "events": session.events,
        "lost": sum(session.lost.values()),
        "lost_by_cause": dict(session.lost),
        "duration": None if session.duration is None else session.duration / 1e9,
        "exit_code": session.exit_code,
        "fidelity": {level.label: session.fidelity.get(level.label, 0) for level in Fidelity},
        "verified": {
            "paths": session.verified_paths, "mismatches": session.mismatches, "wrong": dict(session.wrong),
            "others": session.others,
        },
        "complete": session.duration is not None,
        "recording": trace.recording,
        "command": list(session.command),
        "cwd": os.fsdecode(session.cwd),
        "roots": [os.fsdecode(root) for root in session.roots],
        "started": began.isoformat() if began else None,
        "marks": [{"name": mark.name, "event": mark.seq, "time": mark.time / 1e9} for mark in trace.marks()],
        "processes": len(trace.processes()),
        "filters": list(filter_objects(trace)),
        "traces": [os.fsdecode(path) for path in session.traces],
        "differs": trace.reader.differs(),
        "size": stored_size(path),
        "host": session.host,
        "kernel": session.kernel,
        "version": session.version,
        "format": session.format,
        "notes": list(session.notes),
    }


def as_rows(trace: Trace, path: Path) -> Iterator[tuple[str, str, bool]]:
    """The summary for people: label, value, and whether it is bad news."""
    session = trace.session
    yield "command", printable(" ".join(session.command)), False
    yield "directory", printable(session.cwd), False
    for root in session.roots:
        yield "root", printable(root), False
    began = date_of(session.started)
    when = began.astimezone().isoformat(" ", "milliseconds") if began else "at no date: the clock was far off"
    yield "started", when, began is None
    if session.duration is not None:
        yield "duration", human_duration(session.duration), False
    elif trace.recording:
        yield "duration", "not known yet: it is still being recorded, and shown as far as it is indexed", False
    else:
        yield "duration", "not known: the recording was cut off; it holds what was recorded until then", True
    yield "exit code", "not known" if session.exit_code is None else str(session.exit_code), False
    yield "events", f"{session.events}", False
    for cause, count in session.lost.items():
        yield "LOST", f"{count}: {printable(cause)}", True
    if not session.lost:
        yield "lost", "0", False
    levels = [f"{session.fidelity[level.label]} {level.label}" for level in Fidelity if level.label in session.fidelity]
    yield "fidelity", ", ".join(levels) or "nothing was written", False
    yield verified(trace)
    if session.others:
        yield "outside", f"{session.others} of these were changed from outside, by processes not the command's", True
    yield "processes", str(len(trace.processes())), False
    for mark in trace.marks():
        yield "mark", f"{printable(mark.name)}  ({printable(trace.stamp(mark.seq))})", False
    for found in filter_objects(trace):
        yield filter_row(found)
    if session.traces:
        yield "left out", printable(f"other traces: {', '.join(map(os.fsdecode, session.traces))}"), False
    for name, distribution in trace.reader.differs().items():
        yield "differ", *needed(name, distribution)
    yield "size", human_size(stored_size(path)), False
    yield "recorded by", printable(f"diffkeeper {session.version} on {session.host}, Linux {session.kernel}"), False
    for note in session.notes:
        yield "note", printable(note), False


def verified(trace: Trace) -> tuple[str, str, bool]:
    session = trace.session
    if session.verified_paths is None and trace.recording:
        return "verified", "not yet: that is done when the command has ended", False
    if session.verified_paths is None:
        return "verified", "no: the recording did not get to it", False
    paths, wrong = session.verified_paths, session.mismatches
    what = ", ".join(f"{label} {count}" for label, count in session.wrong.items())
    return "verified", f"{paths} paths against the real files, {wrong} mismatches{what and f' ({what})'}", wrong > 0


def filter_objects(trace: Trace) -> Iterator[dict[str, Any]]:
    """For each filter of the recording: what it left out, for good (`before`, `events`) or of lists (`hidden`)."""
    session = trace.session
    for index, (name, options) in enumerate(session.filters):
        told = session.filtered[index] if session.filtered else Filtered(name)
        hidden, error, took, missing = 0, told.error, told.time, ""
        try:
            if Filters([(name, options)], trace.roots).judges_events:
                kept = Filters.of(trace, [(name, options)])
                hidden = sum(not kept.keeps(event) for event in trace.reader.events())
                asked = kept.report()[0]
                error, took = error or asked.error, took + asked.time
        except PluginError as without:  # a trace can be summed up also where one of its filters is not installed
            missing = str(without)
        yield {
            "name": name, "options": dict(options), "before": told.before, "events": told.events, "hidden": hidden,
            "examples": list(told.examples), "seconds": took / 1e9, "error": error,
            "missing": missing,
        }  # fmt: skip


def filter_row(found: dict[str, Any]) -> tuple[str, str, bool]:
    given = ",".join(f"{key}={value}" for key, value in found["options"].items())
    left = [f"{count} {what}" for count, what in (
        (found["before"], "paths that were there before"), (found["events"], "changes"),
    ) if count]  # fmt: skip
    parts = [f"left out {' and '.join(left)}" if left else "left nothing out"]
    if found["examples"]:
        parts[0] += f" ({', '.join(found['examples'])})"
    if found["hidden"]:
        parts.append(f"hides {found['hidden']} events from the timeline, moments have them ('timeline --all')")
    parts.append(f"took {found['seconds']:.3f} s")
    if found["error"]:
        parts.append(f"FAILED, and what it could not judge was kept: {found['error']}")
    if found["missing"]:
        parts.append(f"cannot be had here, so events that it may hide are shown: {found['missing']}")
    name = found["name"] + (f":{given}" if given else "")
    return "filter", printable(f"{name}: {'; '.join(parts)}"), bool(found["error"])


def needed(name: str, distribution: str) -> tuple[str, bool]:
    """A differ that some content needs, and whether it cannot be had here."""
    try:
        differ(name)
    except PluginError as error:
        hint = f"; {distribution} brings it: pip install {distribution}" if distribution else ""
        return printable(f"{error}{hint}"), True
    return f"{printable(name)}, by {printable(distribution)}", False


def stored_size(path: Path) -> int:
    """Bytes on disk of the trace, holes not counted."""
    return sum(
        os.lstat(os.path.join(folder, name)).st_blocks * 512
        for folder, _, names in os.walk(path)
        for name in names
    )
