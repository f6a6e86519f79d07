"""What a Program is, and running one under the recorder: its moments and its end against the truth.

A program is a shell script, run in an empty directory that is the root of the recording. The script may
say `moment NAME`: that sets a mark and waits until the directory has been looked at from outside, so that
the recorded moment has something to be compared with. Nothing is asserted here: `Outcome.faults` says
what is wrong, for a test to fail and for a long run to go on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import diffkeeper
from diffkeeper.model import Event, Fidelity, Op
from tests.system import harness

PRELUDE = r"""
set -e
moment() { (: < "/.diffkeeper/mark/$1") 2>/dev/null || :; echo "$1" > "$ASK"; read _ < "$ANSWER"; }
"""
TIMEOUT = {"quick": 60, "long": 900}


@dataclass(frozen=True)
class Place:
    """Where a program runs: `top` holds the trace and what was prepared; the root may be elsewhere, in `on`."""

    top: Path
    on: Path | None = None

    @property
    def work(self) -> Path:
        return (self.on or self.top) / "work"

    @property
    def trace(self) -> Path:
        return self.top / "trace"

    @property
    def aside(self) -> Path:
        """For what the program needs and nobody records: outside the root, made before."""
        return self.top / "aside"


@dataclass(frozen=True)
class Program:
    """A script and its sizes."""

    name: str
    script: str
    quick: Mapping[str, object] = field(default_factory=dict)
    """Shell variables for the run of some seconds."""
    long: Mapping[str, object] = field(default_factory=dict)
    """Those that are others in a long run."""
    only_on: frozenset[str] = frozenset()
    """Filesystems it works on; none: all."""
    user: str = ""
    """Whom it runs as, if not as who records."""
    events: int = 1
    """At least so many must be recorded, or it did not do its work."""
    prepare: Callable[[Place], None] | None = None
    """Before the recording."""
    check: Callable[[Place], None] | None = None
    """After it; an AssertionError is a fault."""

    def variables(self, size: str) -> dict[str, str]:
        chosen = {**self.quick, **(self.long if size == "long" else {})}
        return {name: str(value) for name, value in chosen.items()}


@dataclass
class Outcome:
    """How one run went."""

    program: str
    filesystem: str
    size: str
    seconds: float = 0.0
    events: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    mismatches: int = 0
    paths: int = 0
    moments: int = 0
    """Compared with the truth, the end included."""
    fidelity: dict[str, int] = field(default_factory=dict)
    inexact: list[dict[str, object]] = field(default_factory=list)
    """What was not exact: fidelity, reason, how many events, one path."""
    faults: list[str] = field(default_factory=list)


class _Witness(threading.Thread):
    """Looks at the directory whenever the script says `moment`, while the script waits."""

    def __init__(self, place: Place) -> None:
        super().__init__(daemon=True)
        self._place = place
        self.seen: dict[str, harness.Truth] = {}
        self.failures: list[str] = []
        self.ask, self.answer = place.top / "ask", place.top / "answer"
        for pipe in (self.ask, self.answer):
            os.mkfifo(pipe)
            pipe.chmod(0o666)
        # Open for both, so that nobody's open waits for the other side.
        self._asks, self._answers = os.open(self.ask, os.O_RDWR), os.open(self.answer, os.O_RDWR)
        self.start()

    def run(self) -> None:
        with open(self._asks, encoding="utf-8", closefd=False) as asks:
            for line in asks:
                name = line.strip()
                if not name:
                    return
                try:
                    self.seen[name] = harness.truth(self._place.work)
                except Exception as error:  # noqa: BLE001  the script waits for an answer, whatever happened
                    self.failures.append(f"moment {name} could not be looked at: {error}")
                os.write(self._answers, b"\n")

    def stop(self) -> None:
        os.write(self._asks, b"\n")
        self.join()
        os.close(self._asks)
        os.close(self._answers)


def run(program: Program, size: str, filesystem: str, place: Place) -> Outcome:
    """Prepare, record, compare. `size`: "quick" or "long"; `filesystem`: only its name, for the outcome."""
    outcome = Outcome(program.name, filesystem, size)
    for directory in (place.work, place.aside):
        directory.mkdir(exist_ok=True)
    if program.prepare:
        program.prepare(place)
    witness = _Witness(place)
    command = ["sh", "-c", PRELUDE + program.script]
    if program.user:
        command = ["setpriv", f"--reuid={program.user}", f"--regid={program.user}", "--init-groups", *command]
    began = time.monotonic()
    try:
        result = harness.record(
            place.trace, command, cwd=place.work, timeout=TIMEOUT[size], env=_environment(program, size, place, witness)
        )
    except subprocess.TimeoutExpired:
        _end_all(place)
        outcome.faults.append(f"not done after {TIMEOUT[size]} s")
        return outcome
    finally:
        outcome.seconds = round(time.monotonic() - began, 1)
        witness.stop()
    outcome.faults += witness.failures
    if result.returncode:
        outcome.faults.append(f"exit code {result.returncode}: {(result.stderr + result.stdout)[-600:]}")
    _judge(program, place, witness.seen, outcome)
    return outcome


def _end_all(place: Place) -> None:
    """End what is still at work on this trace: indexing would go on, and hold on to the filesystem."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.fsencode(place.trace) in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


def _environment(program: Program, size: str, place: Place, witness: _Witness) -> dict[str, str]:
    return {
        **os.environ,
        **program.variables(size),
        "ASK": str(witness.ask),
        "ANSWER": str(witness.answer),
        "ASIDE": str(place.aside),
        "HOME": str(place.aside),
        "PYTHON": sys.executable,
        "LC_ALL": "C",
    }


def _judge(program: Program, place: Place, seen: Mapping[str, harness.Truth], outcome: Outcome) -> None:
    facts = harness.info(place.trace)
    outcome.events = facts["events"]
    outcome.lost = facts["lost_by_cause"]
    outcome.mismatches = facts["verified"]["mismatches"]
    outcome.paths = facts["verified"]["paths"]
    outcome.fidelity = {name: count for name, count in facts["fidelity"].items() if count}
    for name, truth in {**seen, "end": harness.truth(place.work)}.items():
        outcome.moments += 1
        try:
            harness.assert_same(harness.recorded(place.trace, name), truth)
        except AssertionError as error:
            outcome.faults.append(f"@{name}: {error}")
    if outcome.lost:
        outcome.faults.append(f"lost: {outcome.lost}")
    if outcome.mismatches:
        outcome.faults.append(f"{outcome.mismatches} of {outcome.paths} paths healed: {healed(place)}")
    if outcome.events < program.events:
        outcome.faults.append(f"only {outcome.events} events")
    if set(outcome.fidelity) - {Fidelity.EXACT.label}:
        outcome.inexact = inexact(place.trace)
    if program.check:
        try:
            program.check(place)
        except (AssertionError, subprocess.CalledProcessError) as error:
            outcome.faults.append(f"{type(error).__name__}: {error}{getattr(error, 'stderr', '') or ''}")


def healed(place: Place) -> list[str]:
    """The first paths that were put right at the end, as seen from where the program ran."""
    with diffkeeper.open(place.trace) as opened:
        paths = [os.path.relpath(os.fsdecode(event.path), place.work) for event in opened.events(op=Op.HEAL)]
    return paths[:8]


def inexact(trace: Path) -> list[dict[str, object]]:
    """What was not exact, by reason, the most frequent first."""
    with diffkeeper.open(trace) as opened:
        gaps = sorted({event.detail for event in opened.events(op=Op.GAP)})
        unheld = any("could not be held" in note for note in opened.session.notes)
        events = [event for event in opened.events() if event.fidelity != Fidelity.EXACT]
    counted: Counter[tuple[str, str]] = Counter()
    example: dict[tuple[str, str], str] = {}
    for event in events:
        key = Fidelity(event.fidelity).label, reason(event, gaps, unheld=unheld)
        counted[key] += 1
        example.setdefault(key, os.fsdecode(event.path))
    return [
        {"fidelity": key[0], "reason": key[1], "events": count, "example": os.path.basename(example[key])}
        for key, count in counted.most_common()
    ]


def reason(event: Event, gaps: list[str], *, unheld: bool) -> str:
    """Why the bytes of an event are not exact. `unheld`: a writer that was to stand still could not be held."""
    if event.fidelity == Fidelity.REREAD and unheld:
        return "read later, as its writer could not be held"
    if event.fidelity == Fidelity.REREAD:
        return "a mapped file, looked at while its program went on"
    if event.fidelity == Fidelity.PARTIAL:
        return "a file outside the root whose earlier content was never seen"
    return f"could not be read ({', '.join(gaps) or 'no cause given'})"
