"""docs/benchmarks.md: the figures in docs/benchmarks/ as tables, and what is to be said of those that miss their bar.

Owns the page's words. Measures nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"
FIGURES = DOCS / "benchmarks"
PAGE = DOCS / "benchmarks.md"

HEAD = """# Benchmarks

What recording costs, and how fast a trace is looked at. `make bench` measures all of it and writes this page; the
figures lie in [benchmarks/](benchmarks). `make bench-quick` is smaller, leaves other tools out, and keeps nothing.

All files are on tmpfs. What is compared runs in turn, and the median of the rounds counts. A run that lost an event,
or did not find what it should, is not compared: it ends the bench. The machine has two processors and is shared with
others: ratios mean more than seconds, and seconds are to be read with the load that stands below each table. `bar` is
what was asked for; **bold**: not met, see below.
"""

PARTS = {
    "capture": ("Capture", """Seconds of the command recorded by those of the command bare, start-up and end apart.
Beside it the same command under `strace -f -e trace=%file,%desc` and `reprozip trace`, once each, and with a tenth of
the calls where these are counted; neither keeps what is written."""),
    "ignored": ("What a filter leaves out", """A build that writes 1,000 files of 100 KB, and before them 4,000 more to
node_modules: bare, recorded with `--filter glob:exclude=node_modules/`, and recorded without a filter. What is left out
costs nothing when it adds to the recorded build what it adds to the bare one."""),
    "index": ("Index", "A recorded journal is indexed afterwards, by itself."),
    "size": ("Size", """The same versions, kept by others: a snapshot (or commit) after every rewrite, and
`git gc` at the end. They run one program a version, that is their way; ours is the time of `record` as a whole, with
indexing."""),
    "look": ("Look", """Each round on a fresh mount. borg and restic mount two snapshots of the same tree, ratarmount a
tar of it; a real directory is the tree itself."""),
}  # fmt: skip

STARTING = (
    "Starting is nine tenths of the processor time: Python, trio and pyfuse3 and our own modules are imported; "
    "the first look at an index takes a tenth more, for its pages."
)
WHY: Mapping[str, str] = {
    "1,000,000 x 64 B": (
        "Of what a write takes longer, our program is 3 tenths, finding room in the ring and copying there 2, copying "
        "from the writer 2, the clock and the way into the program 1 each. With a ring so large that nobody reads it "
        "meanwhile it is 0.15 less: the recorder on the other processor takes memory bandwidth."
    ),
    "5,000 x create": (
        "6 to 10 µs for the three calls: a record each, with the inodes and the names that it needs, and what is "
        "known of inodes in tables of the kernel."
    ),
    "git clone": "The bare command takes 60 ms, of which a run more or less is a tenth.",
    "gcc": "Within what runs of the bare command differ among themselves.",
    "python compileall": "Between 0.83 and 1.07 in the runs of one day; the bare command differs by as much.",
    "200,000 x 4 KiB": (
        "Between 1.32 and 2.16 in the runs of one day, of the same code; 1.57, 1.73, 1.79 right after. Most of it is "
        "the kernel's copy into the ring: with the journal thrown away it is 1.60 in runs where all of it is 1.73 to "
        "1.91. A ring that fits into the processor's cache makes that no faster, and writers are held."
    ),
    "sqlite": "Between 0.84 and 1.08 in the runs of one day.",
    "memory of the mount, 512": "Between 79 and 87 MB in the runs of one day: numpy, and 32 MiB of the file.",
    "pytest, seven": "Within what runs of the bare command differ among themselves.",
    "record -- true": "Most of it before the command begins: the kernel checks the programs, and modules are imported.",
    "what node_modules adds": (
        "Some 0.7 µs a call, for a system call that is entered and left, and to find that its file is left out. A "
        "difference of differences: 0.9 to 1.3 in single runs; 1.22 to 1.26 in six runs of seven rounds, by the code "
        "of three days alike."
    ),
    "mount ready": STARTING,
    "second read of 1,000": (
        "The bytes are in the page cache, but to open and to close a file are two requests to the mount, some 20 µs "
        "each with two changes of process. Where a file is long that does not count, see the 512 MiB."
    ),
    "baseline again": "500 MB are read, checked and written once, by two threads.",
    "find -size": "12 µs of processor time a file, on look-ups in the index and on making the reply.",
    "diff -rq": "12 µs of processor time a file on the side that is listed first, 1 µs on the other; then FUSE.",
    "diffkeeper diff": "Starting is nine tenths of the processor time; the comparison takes 10 ms.",
    "timeline: first lines": "Starting is nine tenths of the processor time.",
    "timeline: all as JSON": "2.5 to 2.9 s of processor time for a million; the rest is waiting for a processor.",
    "trace.at(m)": "3 ms of processor time, most of it for the block of events that a number is looked up in.",
    "tar of a moment": "Two requests a file, each through Python; the bytes themselves are 40 µs of processor time.",
    "read of": "A second of processor time: half of it decompresses and checks digests, the rest is for each request.",
    "first byte": "40 ms of processor time: the rows of all blocks are laid over each other for the first 32 MiB.",
    "growth of find": (
        "Of a file that was written to, the columns that tell size and times are decoded of the block in whose middle "
        "the moment is: 40 µs. Of 10,000 events one file in eleven has such a block, of a million each has, and then "
        "it grows no more."
    ),
    "growth of at + read": (
        "The writes since the file was last stored whole are laid over each other: none or one at 10,000 events, 500 "
        "at 10,000,000. A file is stored whole after 512 KiB of them, where each counts 64 bytes more than it has."
    ),
    "growth of diff -rq": "Half of a look that takes a few ms is waiting for a processor.",
    "ready after": (
        "Python per record and path: some 60 µs of processor time to index what makes, renames or removes a name, 50 "
        "to compare a path; what the command takes for the same is a few µs. Patches and compression are the rest. "
        "Compiled with mypyc, indexing takes a sixth less."
    ),
}
"""For rows that miss their bar, by how they begin: what the profile shows."""


def text() -> str:
    """The page, from the figures as they are kept. Parts that were not measured are left out."""
    parts = [HEAD]
    missed: list[str] = []
    for name, (title, words) in PARTS.items():
        if found := figures(name):
            parts.append(f"## {title}\n\n{words}\n\n{_table(found['rows'])}\n{_made(found)}")
            missed += [_missed(row) for row in found["rows"] if not _met(row)]
    if found := figures("growth"):
        parts.append(_growth(found))
        missed += [
            f"- Growth of {what}: {factor:.1f} times, that of the logarithm of the events {_logarithm(found):.2f}. "
            f"{_why(f'growth of {what}')}".rstrip()
            for what, factor in _factors(found).items()
            if factor > _logarithm(found)
        ]
    if missed:
        parts.append("## Bars that are not met\n\n" + "\n".join(missed) + "\n")
    parts += [_machine(found) for found in [figures("look") or figures("capture")] if found]
    return "\n".join(parts)


def write() -> None:
    PAGE.write_text(text(), "utf-8")


def figures(part: str) -> dict[str, Any]:
    """As they are kept; empty where there are none."""
    try:
        found: dict[str, Any] = json.loads((FIGURES / f"{part}.json").read_text("utf-8"))
    except FileNotFoundError:
        return {}
    return found


def _met(row: Mapping[str, Any]) -> bool:
    if row["bar"] is None:
        return True
    return bool(row["figure"] >= row["bar"] if row["least"] else row["figure"] <= row["bar"])


def _number(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"


def _table(rows: list[dict[str, Any]]) -> str:
    others = list(dict.fromkeys(name for row in rows for name in row["peers"]))
    head = ["", "bar", "diffkeeper", "unit", *others, ""]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        figure = _number(row["figure"])
        bar = "" if row["bar"] is None else f"{'≥' if row['least'] else '≤'} {_number(row['bar'])}"
        cells = [row["what"], bar, figure if _met(row) else f"**{figure}**", row["unit"]]
        cells += [_number(row["peers"][name]) if name in row["peers"] else "" for name in others]
        lines.append("| " + " | ".join([*cells, row["note"]]) + " |")
    return "\n".join(lines) + "\n"


def _made(figures: Mapping[str, Any]) -> str:
    rows = figures.get("rows") or [{"load": figures["load"][0], "date": figures["date"]}]
    dates, loads = (_span(row[key] for row in rows) for key in ("date", "load"))
    return (
        f"Made by `{figures['command']}`, {dates}, {figures['rounds']} rounds; load average of the machine before a "
        f"row {loads}.\n"
    )


def _span(values: Iterable[Any]) -> str:
    least, *_, most = sorted([*values] * 2)
    return f"{least}" if least == most else f"{least} to {most}"


def _factors(figures: Mapping[str, Any]) -> dict[str, float]:
    """How many times as long each look takes at the most events as at the fewest."""
    curves = {what: list(found.values()) for what, found in figures["curves"].items()}
    return {what: seconds[-1] / seconds[0] for what, seconds in curves.items()}


def _logarithm(figures: Mapping[str, Any]) -> float:
    """How many times as large the logarithm of the events is: what a look's time was to grow at most."""
    numbers = [int(number) for number in next(iter(figures["curves"].values()))]
    return math.log(numbers[-1]) / math.log(numbers[0])


def _growth(figures: Mapping[str, Any]) -> str:
    curves = figures["curves"]
    events = list(next(iter(curves.values())))
    most, factors = _logarithm(figures), _factors(figures)
    head = ["seconds", *(f"{int(number):,} events" for number in events), f"times (≤ {most:.2f})"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for what, found in curves.items():
        times = f"{factors[what]:.1f}" if factors[what] <= most else f"**{factors[what]:.1f}**"
        lines.append("| " + " | ".join([what, *(f"{found[number]:.4f}" for number in events), times]) + " |")
    table = "\n".join(lines)
    return f"""## Growth

The same looks at traces of one tree of 1,000 files, in which ever more happened. Asked for was that none grows by
more than the logarithm of the number of events does.

{table}

![Seconds by the number of events](benchmarks/growth.svg)

{_made(figures)}"""


def _missed(row: Mapping[str, Any]) -> str:
    by = row["bar"] / row["figure"] if row["least"] else row["figure"] / row["bar"]
    figure = f"{_number(row['figure'])} {row['unit']}, {by:.2f} times the bar."
    return f"- {row['what']}: {figure} {_why(row['what'])}".rstrip()


def _why(what: str) -> str:
    return next((words for start, words in WHY.items() if what.startswith(start)), "")


def _machine(figures: Mapping[str, Any]) -> str:
    machine = ", ".join(f"{name} {value}" for name, value in figures["machine"].items())
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    return f"## Machine\n\n{machine}; shared with others. Versions: {versions}.\n"
