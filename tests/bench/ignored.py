"""What it costs to write what a filter leaves out: a build with and without its node_modules, bare and recorded.

The ignored part costs nothing when it adds to a recorded build what it adds to a bare one. Seconds are those
of the command alone, medians of runs in turn. A run that lost an event, or whose filter left out another number of
calls than it makes, ends the bench.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .measure import DIFFKEEPER, Plan, Row, expect

BUILDER = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* `files` files of `writes` times 4 KiB in directories of 50, each written as NAME.new and renamed. */
static int fill(const char *top, long files, long writes)
{
	static char buffer[4096];
	char directory[256], name[300], fresh[310];
	memset(buffer, 'x', sizeof(buffer));
	mkdir(top, 0755);
	for (long i = 0; i < files; i++) {
		sprintf(directory, "%s/%ld", top, i / 50);
		if (i % 50 == 0)
			mkdir(directory, 0755);
		sprintf(name, "%s/%ld.js", directory, i);
		sprintf(fresh, "%s.new", name);
		int fd = open(fresh, O_CREAT | O_WRONLY, 0644);
		for (long j = 0; j < writes; j++)
			if (write(fd, buffer, sizeof(buffer)) != sizeof(buffer))
				return 1;
		if (close(fd) || rename(fresh, name))
			return 1;
	}
	return 0;
}
int main(int argc, char **argv)
{
	long ignored = atol(argv[1]), kept = atol(argv[2]);
	if (ignored && fill("node_modules", ignored, 25))
		return 1;
	return fill("out", kept, 25);
}
"""
IGNORED, KEPT = 4000, 1000  # files
CALLS = IGNORED * (1 + 25 + 1) + IGNORED // 50 + 1
FILTER = ["--filter", "glob:exclude=node_modules/"]
TIMER = (
    "import json,resource,subprocess,sys,time; t=time.perf_counter(); c=subprocess.call(sys.argv[2:]); "
    "s=time.perf_counter()-t; r=resource.getrusage(resource.RUSAGE_CHILDREN); "
    "open(sys.argv[1],'w').write(json.dumps([s,r.ru_utime+r.ru_stime])); sys.exit(c)"
)

Seconds = tuple[float, float]
"""Of the clock, and of processors."""


def timed(top: Path, files: int, prefix: list[str]) -> Seconds:
    with tempfile.TemporaryDirectory(dir=top) as work:
        command = [sys.executable, "-c", TIMER, str(top / "seconds"), str(top / "builder"), str(files), str(KEPT)]
        subprocess.run([*prefix, *command], cwd=work, check=True, stderr=subprocess.DEVNULL)
    elapsed, busy = json.loads((top / "seconds").read_text())
    return elapsed, busy


def recorded(top: Path, files: int, *, filters: list[str]) -> Seconds:
    trace = str(top / "trace")
    seconds = timed(top, files, [*DIFFKEEPER, "record", "--force", "-o", trace, *filters, "--"])
    shown = subprocess.run([*DIFFKEEPER, "info", trace, "--json"], check=True, capture_output=True)
    facts = json.loads(shown.stdout)
    left_out = facts["filters"][0]["events"] if filters else 0
    expect("lost, and left out", (facts["lost"], left_out), (0, CALLS if filters and files else 0))
    return seconds


def medians(top: Path, rounds: int) -> dict[str, Seconds]:
    subprocess.run(["cc", "-O2", "-x", "c", "-", "-o", top / "builder"], input=BUILDER.encode(), check=True)
    runs: dict[str, list[Seconds]] = {}
    for _ in range(rounds):
        for name, seconds in (
            ("bare without", timed(top, 0, [])),
            ("recorded without", recorded(top, 0, filters=FILTER)),
            ("bare with", timed(top, IGNORED, [])),
            ("recorded ignored", recorded(top, IGNORED, filters=FILTER)),
            ("recorded all", recorded(top, IGNORED, filters=[])),
        ):
            runs.setdefault(name, []).append(seconds)
    return {
        name: (statistics.median(each[0] for each in found), statistics.median(each[1] for each in found))
        for name, found in runs.items()
    }


def rows(plan: Plan) -> Iterator[Row]:
    middle = medians(plan.top, plan.rounds)
    for what, one, other, bar in (
        ("the rest, node_modules not written", middle["recorded without"], middle["bare without"], None),
        ("what node_modules adds, left out", less(middle, "recorded ignored"), less(middle, "bare"), 1.10),
        ("what node_modules adds, recorded", less(middle, "recorded all"), less(middle, "bare"), None),
    ):
        note = f"{other[0]:.3f} s bare; {one[1] / other[1]:.2f} x the processor time"
        yield Row(what, one[0] / other[0], "x", bar, note=note)


def less(middle: dict[str, Seconds], name: str) -> Seconds:
    """What the part that is ignored adds."""
    whole, rest = ("bare with", "bare without") if name == "bare" else (name, "recorded without")
    return middle[whole][0] - middle[rest][0], middle[whole][1] - middle[rest][1]
