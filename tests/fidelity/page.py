"""docs/fidelity.md: the figures in docs/fidelity/ as tables, with the limits that hold beside them.

Owns the page's words. Measures nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.filesystems import KINDS

from .changes import CHANGES
from .matrix import IMPOSSIBLE

DOCS = Path(__file__).resolve().parents[2] / "docs"
FIGURES = DOCS / "fidelity"
PAGE = DOCS / "fidelity.md"

HEAD = """# Fidelity

How true a recording is, as the tests of this project found it. The tables are made from their results by
`python -m tests.fidelity`; the figures lie in [fidelity/](fidelity). What the words mean is said in
[How it works](how-it-works.md#what-is-exact-and-what-is-not).

## Every kind of change

Each change was done on a fresh filesystem, followed by a mark; the moment of the mark was compared with the real
directory: names, types, content, sizes, modes, owners, times, links, attributes. A cell says the least sure
fidelity of the change's events: `exact`, or `reread` where bytes were read while somebody could still write. `-`: this
filesystem cannot do it. `wrong` would be a moment that is not what was there.
"""

LIMITS = """## Limits

What is not recorded, or not exactly, is listed in [How it works](how-it-works.md#what-is-not-captured-yet). In short:

- A store to mapped memory is seen when the program syncs, unmaps, marks or ends, and every 100 ms between.
- A process that is not stopped (a job of a shell with job control, what sudo or timeout runs), or not in time, may have
  written on before a range was read again: `reread`.
- Several processes that seek and write through one open file at the same time: where the bytes went cannot be known
  when the call returns. The end is put right and counted; moments between may be wrong there.
- 32-bit programs are not followed; each is a loss, and the end is put right.
- Of the last seven runs of so many random operations, the one above and those of seeds 84000, 86000 and 93000 had no
  wrong moment; those of 83000, 85000 and 94000 had some in one of their 70 recordings each, all on btrfs (a capability
  that a fallocate past the end of a file leaves alone; a truncate by a process with mounts of its own, right after
  btrfs wrote its trees; the set-group-id bit of an empty file that was cut to nothing). All are mended, and tests now.
  Further seeds may find more.
- Where a file is read again, holes of more than a megabyte are taken for what the filesystem says. ext4 was seen to
  tell of small ones where bytes were, which are read.
- Only Linux 6.18 on x86-64 was at hand for these figures.
"""


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |"]
    lines.append("|" + "---|" * (lines[0].count("|") - 1))
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _changes(figures: Mapping[str, Mapping[str, str]]) -> str:
    parts = []
    for family in dict.fromkeys(change.family for change in CHANGES):
        chosen = [change.name for change in CHANGES if change.family == family]
        rows = [[name, *(figures[kind][name].replace(IMPOSSIBLE, "-") for kind in KINDS)] for name in chosen]
        parts.append(_table([family, *KINDS], rows))
    return "\n".join(parts)


def _oracle(figures: Mapping[str, Any]) -> str:
    kinds = figures["filesystems"]
    columns = ("operations", "moments", "mounted", "wrong", "marked", "healed", "lost")
    rows = [[name, *(f"{kinds[name][column]:,}" for column in columns)] for name in kinds]
    rows.append(["all", *(f"{figures['total'][column]:,}" for column in columns)])
    left = figures["left_out"].items()
    left_out = "; ".join(f"{kind}: {', '.join(groups)}" for kind, groups in left if kind in kinds)
    return f"""## Random operations

Seeded random operations ({", ".join(figures["groups"])}), a mark after each; every moment is compared with the real
tree, some through the mount (`mounted`). `marked`: events that said of themselves that they are not exact. `lost`:
requests in one batch of Linux AIO that could not be followed; where all are of one file, it was read again as a whole.
Left out: {left_out}.

{_table(("", *columns), rows)}
Made by `{figures["command"]}`.
"""


def _racing(figures: Mapping[str, Any]) -> str:
    kinds = figures["filesystems"]
    columns = ("recordings", "events", "paths", "wrong", "healed", "broken")
    rows = [[kind, *(f"{kinds[kind].get(column, 0):,}" for column in columns)] for kind in kinds]
    return f"""## Processes that race

Four processes at once on six names and one file position, with nothing between them: files, names, attributes and
programs. Whose call came first cannot always be known. After each burst, when all stand still, the moment is compared:
`wrong` of `paths` were left wrong by the burst. When the command has ended, what is wrong is put right (`healed`).
`broken`: recordings whose last moment is not the directory, that lost something, or that `check` finds fault with.
The busier the machine, the more is wrong: a process that has to wait between a call and its end is overtaken.

{_table(("", *columns), rows)}
Made by `{figures["command"]}`, on a machine that ran other tests at the same time.
"""


def _brief(faults: Iterable[str]) -> str:
    """Without the paths that each of them names."""
    return "; ".join(fault.splitlines()[0].split(": [")[0] for fault in faults)


def _kind(run: Mapping[str, Any]) -> str:
    """One row for all that one tool does; but a script is named by all the tools that it calls."""
    name: str = run["program"]
    return name.split(maxsplit=1)[0] if name.startswith(("stress-ng ", "fio ")) else name


def _programs(figures: Mapping[str, Any]) -> str:
    runs = figures["runs"]
    rows = []
    for name in sorted({_kind(run) for run in runs}):
        chosen = [run for run in runs if _kind(run) == name]
        inexact = sum(count for run in chosen for label, count in run["fidelity"].items() if label != "exact")
        rows.append([
            name, len(chosen), ", ".join(kind for kind in KINDS if any(run["filesystem"] == kind for run in chosen)),
            f"{sum(run['events'] for run in chosen):,}", sum(sum(run["lost"].values()) for run in chosen),
            sum(run["mismatches"] for run in chosen), f"{inexact:,}", sum(bool(run["faults"]) for run in chosen),
        ])  # fmt: skip
    faults = [f"- {run['program']} on {run['filesystem']}: {_brief(run['faults'])}" for run in runs if run["faults"]]
    told = "Runs with a wrong moment, as they were found:\n\n" + "\n".join(faults) + "\n" if faults else ""
    return f"""## Programs no one here wrote

The last moment equals the directory that each left, and moments in the middle equal what stood there then. `not exact`:
events, nearly all of them pages of mapped files that were read while the program ran.

{_table(("program", "runs", "filesystems", "events", "lost", "healed", "not exact", "runs with a fault"), rows)}
{told}
Made by `{figures["command"]}` on {figures["processors"]} processors, Linux {figures["kernel"]}; single runs in
[programs.json](fidelity/programs.json).
"""


def _crashes(figures: Mapping[str, Any]) -> str:
    totals: dict[str, list[int]] = {}
    for run in figures["runs"]:
        for victim, found in run["victims"].items():
            total = totals.setdefault(victim, [0, 0])
            total[0] += found["points"]
            total[1] += found["broken"]
    behind = [found["seconds_behind"] for run in figures["runs"] for found in run["victims"].values()
              if found.get("seconds_behind")]  # fmt: skip
    lag = ""
    if behind:
        lag = f" The trace was then {behind[-1]['median']} s behind in the median, {behind[-1]['most']} s at most."
    return f"""## Crashes

The recorder (now and then with a guardian), its indexer, the process that finishes an index (`opener`) and the mount
were killed with SIGKILL at random points, and the disk was filled. `power`: a journal was cut at every byte.
`blackout`: the disk was cloned in an instant, again and again, while a command was recorded onto it, which leaves what
a power cut would.{lag} After each: the command ran on to its own end, the trace opens, it is a prefix of what happened,
`check` passes.

{_table(("", "points", "broken promises"), [[victim, *total] for victim, total in totals.items()])}
Made by `{figures["runs"][0]["command"]}`.
"""


def _hostile(figures: Mapping[str, Any]) -> str:
    rows = [
        [kind.replace("_", " "), count, len(figures["failed"].get(kind, ()))]
        for kind, count in figures["cases"].items()
    ]
    return f"""## Damaged and hostile traces

Recorded traces were damaged at random and by design; all commands, the API and the mount's places then ran on them with
bounded memory and time. Only errors of our own may come out.

{_table(("what was damaged", "cases", "failures"), rows)}
Made by `{figures["command"]}`.
"""


def text() -> str:
    """The page, from the figures as they are now."""

    def read(name: str) -> Any:
        return json.loads((FIGURES / f"{name}.json").read_text())

    return "\n".join((
        HEAD, _changes(read("changes")), _oracle(read("oracle")), _racing(read("racing")), _programs(read("programs")),
        _crashes(read("crash")), _hostile(read("fuzz-traces")), LIMITS,
    ))  # fmt: skip
