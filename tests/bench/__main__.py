"""Overhead of recording, measured: each workload bare and recorded in turn, medians, start-up apart.

    python -m tests.bench [--rounds N] [WORKLOAD...]

The command times itself, so start-up and indexing do not count into the ratio; they are columns of
their own. A run that lost an event or did not do its work ends the bench. Absolute times of a shared
machine mean little: read the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITER = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	long n = atol(argv[2]), size = atol(argv[3]);
	if (!strcmp(argv[1], "write")) {
		int fd = open("out", O_CREAT | O_TRUNC | O_WRONLY, 0644);
		char *buffer = malloc(size);
		memset(buffer, 'x', size);
		for (long i = 0; i < n; i++)
			if (write(fd, buffer, size) != size)
				return 1;
	} else if (!strcmp(argv[1], "names")) {
		char a[64], b[64];
		for (long i = 0; i < n; i++) {
			sprintf(a, "a%ld", i);
			sprintf(b, "b%ld", i);
			close(open(a, O_CREAT | O_WRONLY, 0644));
			if (rename(a, b) || unlink(b))
				return 1;
		}
	} else {
		struct stat s;
		for (long i = 0; i < n; i++)
			if (stat(".", &s))
				return 1;
	}
	return 0;
}
"""

SQLITE = (
    "for i in 1 2 3 4 5; do sqlite3 db 'create table if not exists t(a,b); "
    "insert into t select value, hex(value) from generate_series(1,100000)'; done"
)
SESSION = (
    "git init -q r; cd r; git config user.email a@b; git config user.name a; "
    "for i in $(seq 200); do echo $i > f$i; done; git add .; git commit -qm one; git clone -q . ../copy"
)


@dataclass(frozen=True)
class Workload:
    name: str
    command: tuple[str, ...]
    events: int  # at least so many must be recorded


WORKLOADS = (
    Workload("1,000,000 x 64 B writes", ("{writer}", "write", "1000000", "64"), 1_000_000),
    Workload("200,000 x 4 KiB writes", ("{writer}", "write", "200000", "4096"), 200_000),
    Workload("400 x 1 MiB writes", ("{writer}", "write", "400", "1048576"), 400),
    Workload("5,000 x create, rename, unlink", ("{writer}", "names", "5000", "0"), 15_000),
    Workload("1,000,000 x stat", ("{writer}", "stat", "1000000", "0"), 0),
    Workload("sqlite, 5 x 100,000 inserts", ("sh", "-c", SQLITE), 1000),
    Workload("git add, commit, clone", ("sh", "-c", SESSION), 500),
    Workload("python compileall", ("cp -r {stdlib} json; {python} -m compileall -q json",), 20),
)

TIMER = (
    "import subprocess,sys,time; t=time.perf_counter(); c=subprocess.call(sys.argv[2:]); "
    "open(sys.argv[1],'w').write(str(time.perf_counter()-t)); sys.exit(c)"
)


@contextmanager
def fast_directory() -> Iterator[Path]:
    """A directory on tmpfs, so that no disk decides the figures."""
    with tempfile.TemporaryDirectory(prefix="diffkeeper-bench-", dir="/dev/shm") as top:
        yield Path(top)


def timed(command: list[str], top: Path, prefix: list[str]) -> tuple[float, float]:
    """Run in a fresh directory; seconds of the command alone, and of everything."""
    work = top / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    began = time.perf_counter()
    subprocess.run([*prefix, sys.executable, "-c", TIMER, str(top / "seconds"), *command], cwd=work, check=True)
    return float((top / "seconds").read_text()), time.perf_counter() - began


def compare(
    workload: Workload, command: list[str], top: Path, rounds: int
) -> tuple[float, float, float, dict[str, Any]]:
    """Medians: bare seconds, recorded seconds, seconds around the command; and what the last trace says."""
    trace = top / "trace"
    record = [sys.executable, "-m", "diffkeeper", "record", "--force", "-o", str(trace), "--"]
    bare, recorded, around = [], [], []
    facts: dict[str, Any] = {}
    for _ in range(rounds):
        bare.append(timed(command, top, [])[0])
        alone, whole = timed(command, top, record)
        recorded.append(alone)
        around.append(whole - alone)
        shown = subprocess.run(
            [sys.executable, "-m", "diffkeeper", "info", str(trace), "--json"], check=True, capture_output=True
        )
        facts = json.loads(shown.stdout)
        if facts["lost"] or int(str(facts["events"])) < workload.events:
            raise SystemExit(f"{workload.name}: {facts['events']} events, lost {facts['lost']}: not compared")
    return statistics.median(bare), statistics.median(recorded), statistics.median(around), facts


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("workloads", nargs="*", help="only those whose name contains one of these words")
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    print(
        f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, files on tmpfs"
    )
    print(
        f"{'workload':34}{'bare s':>9}{'recorded s':>12}{'ratio':>8}"
        f"{'around s':>10}{'events':>11}{'lost':>6}{'held':>6}"
    )
    with fast_directory() as top:
        writer = top / "writer"
        subprocess.run(["cc", "-O2", "-x", "c", "-", "-o", writer], input=WRITER.encode(), check=True)
        words = {"writer": str(writer), "stdlib": os.path.dirname(json.__file__), "python": sys.executable}
        for workload in WORKLOADS:
            if arguments.workloads and not any(word in workload.name for word in arguments.workloads):
                continue
            parts = [part.format(**words) if "{" in part and "$" not in part else part for part in workload.command]
            command = ["sh", "-c", parts[0]] if len(parts) == 1 else parts
            bare, recorded, around, facts = compare(workload, command, top, arguments.rounds)
            notes = [note for note in facts["notes"] if note.startswith("held")]
            held = notes[0].split()[2] if notes else "0"
            print(
                f"{workload.name:34}{bare:9.3f}{recorded:12.3f}{recorded / bare:8.2f}{around:10.2f}"
                f"{facts['events']:>11}{0 if not facts['lost'] else facts['lost']:>6}{held:>6}",
                flush=True,
            )


if __name__ == "__main__":
    main()
