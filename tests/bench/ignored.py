"""What it costs to write what a filter leaves out: a build with and without its node_modules, bare and recorded.

    python -m tests.bench.ignored [--rounds N]

The ignored part costs nothing when it adds to a recorded build what it adds to a bare one. Seconds are those
of the command alone, medians of interleaved rounds; processor seconds are its own, in user and kernel mode.
A run that lost an event, or whose filter left out another number of calls than it makes, ends the bench.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

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
    words = [sys.executable, "-m", "diffkeeper"]
    seconds = timed(top, files, [*words, "record", "--force", "-o", trace, *filters, "--"])
    shown = subprocess.run([*words, "info", trace, "--json"], check=True, capture_output=True)
    facts = json.loads(shown.stdout)
    left_out = facts["filters"][0]["events"] if filters else 0
    if facts["lost"] or left_out != (CALLS if filters and files else 0):
        raise SystemExit(f"lost {facts['lost']}, left out {left_out} of {CALLS}: not compared")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ignored", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    runs: dict[str, list[Seconds]] = {}
    with tempfile.TemporaryDirectory(prefix="diffkeeper-bench-", dir="/dev/shm") as directory:
        top = Path(directory)
        subprocess.run(["cc", "-O2", "-x", "c", "-", "-o", top / "builder"], input=BUILDER.encode(), check=True)
        for _ in range(rounds):
            for name, seconds in (
                ("bare without", timed(top, 0, [])),
                ("recorded without", recorded(top, 0, filters=FILTER)),
                ("bare with", timed(top, IGNORED, [])),
                ("recorded ignored", recorded(top, IGNORED, filters=FILTER)),
                ("recorded all", recorded(top, IGNORED, filters=[])),
            ):
                runs.setdefault(name, []).append(seconds)
    print(f"{'':34}{'bare s':>9}{'recorded s':>12}{'ratio':>8}{'  processor s: bare':>20}{'recorded':>10}{'ratio':>8}")
    middle = {
        name: (statistics.median(each[0] for each in found), statistics.median(each[1] for each in found))
        for name, found in runs.items()
    }
    rows = (
        ("without node_modules", "bare without", "recorded without"),
        ("with node_modules, ignored", "bare with", "recorded ignored"),
        ("with node_modules, recorded", "bare with", "recorded all"),
    )
    for title, bare, record in rows:
        show(title, middle[bare], middle[record])
    show("what node_modules adds, ignored", less(middle, "bare"), less(middle, "recorded ignored"))
    show("what node_modules adds, recorded", less(middle, "bare"), less(middle, "recorded all"))


def less(middle: dict[str, Seconds], name: str) -> Seconds:
    """What the part that is ignored adds."""
    whole, rest = ("bare with", "bare without") if name == "bare" else (name, "recorded without")
    return middle[whole][0] - middle[rest][0], middle[whole][1] - middle[rest][1]


def show(title: str, bare: Seconds, record: Seconds) -> None:
    print(
        f"{title:34}{bare[0]:9.3f}{record[0]:12.3f}{record[0] / bare[0]:8.2f}"
        f"{bare[1]:20.3f}{record[1]:10.3f}{record[1] / bare[1]:8.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
