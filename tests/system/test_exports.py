"""Every exporter on a real recording, through the command line, each result judged by its own tool.

The recording is of a shell, git and Python at work: files that are appended to, rewritten in place,
written anew and renamed, directories that move, a repository inside the recorded directory.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import duckdb
import pytest
from playwright.sync_api import sync_playwright

import diffkeeper
from tests.system.harness import DIFFKEEPER, assert_faithful, assert_same, record, run, truth, wait_for
from tests.trace_processor import trace_processor

SCRIPT = r"""
set -eu
git init -q -b main . && git config user.email a@b && git config user.name a
mkdir src
for i in $(seq 40); do
    echo "step $i" >> log
    printf 'value %d\n' "$i" > report.new
    if [ "$i" -ge 23 ]; then echo broken >> report.new; fi
    mv report.new report
    echo "int v$i;" > "src/f$i.c"
    if [ "$i" = 30 ]; then cat /.diffkeeper/mark/thirty 2>/dev/null || true; fi
done
git add . && git commit -qm first
mv src lib
chmod +x report
ln log log.link
ln -s log log.sym
head -c 300000 /dev/urandom > noise
rm lib/f1.c
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The trace, and the directory as it was left."""
    place = tmp_path_factory.mktemp("exports")
    root = place / "root"
    root.mkdir()
    (root / "before").write_text("was here\n")
    result = record(place / "trace", ["sh", "-c", SCRIPT], cwd=root, options=["--differ", "zstd"])
    assert result.returncode == 0, result.stderr
    assert_faithful(place / "trace", root)
    return place / "trace", root


def export(trace: Path, out: Path, *options: str) -> str:
    """Through the command line; what it said on standard error."""
    result = run("export", trace, "--out", out, *options)
    assert result.returncode == 0, result.stderr
    return result.stderr


def git(repository: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=repository, capture_output=True, text=True, check=True).stdout


def test_a_differ_that_is_not_there_ends_it_before_the_command(tmp_path: Path) -> None:
    """Neither the command runs nor a trace is begun; the error lists those there are."""
    result = record(tmp_path / "trace", ["touch", "ran"], cwd=tmp_path, options=["--differ", "none-such"])
    assert result.returncode == 92
    assert "there is no differ 'none-such'; there are: auto, raw, bsdiff4, zstd" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_directory_and_archives(recorded: tuple[Path, Path], tmp_path: Path) -> None:
    """The last moment is the directory: by comparison, by rsync, and out of GNU tar."""
    trace, root = recorded
    export(trace, tmp_path / "dir", "--time", "end", "--resume")
    assert_same(truth(tmp_path / "dir"), truth(root))
    rsync = ["rsync", "-nacHi", "--delete", f"{root}/", f"{tmp_path}/dir/"]
    assert subprocess.run(rsync, capture_output=True, check=True).stdout == b""
    export(trace, tmp_path / "out.tar.zst", "--time", "end")
    (tmp_path / "tar").mkdir()
    subprocess.run(["tar", "--zstd", "-xpf", tmp_path / "out.tar.zst", "-C", tmp_path / "tar"], check=True)
    assert_same(truth(tmp_path / "tar"), truth(root))
    export(trace, tmp_path / "thirty.tar", "--time", "thirty", "--path", "report")
    with tarfile.open(tmp_path / "thirty.tar") as archive:
        assert archive.getnames() == [".", "report"]


@pytest.mark.parametrize("name", ["dir", "git"])
def test_a_signal_leaves_nothing(name: str, recorded: tuple[Path, Path], tmp_path: Path) -> None:
    """An export that a time limit ends takes away what it has made so far."""
    trace, _ = recorded
    out = tmp_path / "here"
    out.mkdir()
    words = ["export", trace, "--out", out / "made", "--format", name, *(["--time", "end"] if name == "dir" else [])]
    with subprocess.Popen([*DIFFKEEPER, *map(str, words)], stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: any(out.rglob("made")))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
    assert list(out.iterdir()) == []


def test_git_bisect_finds_the_bad_write(recorded: tuple[Path, Path], tmp_path: Path) -> None:
    """On a recording of a program that nobody prepared; the recorded repository itself stays out of it."""
    trace, root = recorded
    said = export(trace, tmp_path / "history", "--format", "git")
    assert "left out: git cannot hold them" in said
    history = tmp_path / "history"
    git(history, "fsck", "--full", "--strict")
    subprocess.run(["diff", "-r", "--no-dereference", "-x", ".git", root, history], check=True)
    first = git(history, "rev-list", "--max-parents=0", "HEAD").strip()
    git(history, "bisect", "start", "HEAD", first)
    said = git(history, "bisect", "run", "sh", "-c", "! grep -qs broken report report.new")
    bad = said.split(" is the first bad commit")[0].split()[-1]
    event = int(git(history, "show", "--no-patch", "--format=%(trailers:key=Event,valueonly)", bad))
    with diffkeeper.open(trace) as opened:
        assert (opened.at(event) / "report.new").read_text() == "value 23\nbroken\n"
        assert not any("broken" in (opened.at(event - 1) / name).read_text() for name in ("report", "report.new"))
    assert git(history, "show", "thirty:report") == "value 30\nbroken\n"
    assert len(git(history, "log", "--format=%h", "main", "--", "log").splitlines()) == 40


def test_tables_agree_with_the_timeline(recorded: tuple[Path, Path], tmp_path: Path) -> None:
    """ndjson, parquet and perfetto hold the events that the timeline lists, jq and DuckDB can read them."""
    trace, _ = recorded
    timeline = [json.loads(line) for line in run("timeline", trace, "--json").stdout.splitlines()]
    export(trace, tmp_path / "events.ndjson")
    words = ["jq", "-c", "del(.sha256)", str(tmp_path / "events.ndjson")]
    listed = subprocess.run(words, capture_output=True, check=True).stdout.splitlines()
    assert [json.loads(line) for line in listed] == timeline
    export(trace, tmp_path / "events.parquet")
    query = f"SELECT event, moment, op, path, pid, comm FROM '{tmp_path}/events.parquet' ORDER BY event"
    rows = duckdb.connect().execute(query).fetchall()
    keys = ("event", "at", "op", "path", "pid", "comm")
    assert rows == [tuple(line[key] if line[key] != "" else None for key in keys) for line in timeline]
    export(trace, tmp_path / "events.perfetto")
    records = json.loads((tmp_path / "events.perfetto").read_bytes())["traceEvents"]
    assert sorted(record["args"]["event"] for record in records if record["ph"] == "i") == [
        line["event"] for line in timeline
    ]


def test_perfetto_s_own_engine_takes_it(recorded: tuple[Path, Path], tmp_path: Path) -> None:
    """A track per process, slices for files at work, an instant per change: Perfetto finds no fault."""
    trace, root = recorded
    export(trace, tmp_path / "trace.json", "--format", "perfetto")
    with diffkeeper.open(trace) as opened:
        processes = {process.pid: process.comm for process in opened.processes().values()}
        events = Counter(event.op.label for event in opened.events() if event.op.label not in ("mark", "gap"))
    with trace_processor(tmp_path / "trace.json") as perfetto:
        assert perfetto.rows("SELECT name FROM stats WHERE severity IN ('error', 'data_loss') AND value > 0") == []
        assert dict(perfetto.rows("SELECT pid, name FROM process WHERE pid > 0")) == processes
        changes = "SELECT name, count(*) FROM slice WHERE category = 'change' GROUP BY name"
        assert dict(perfetto.rows(changes)) == events
        assert perfetto.rows("SELECT name FROM slice WHERE category = 'mark'") == [("thirty",)]
        written = "SELECT sum(EXTRACT_ARG(arg_set_id, 'args.written')) FROM slice WHERE category = 'file'"
        assert perfetto.rows(f"{written} AND name = 'log'") == [((root / "log").stat().st_size,)]
        within = """
            SELECT count(*) FROM slice AS change JOIN slice AS file USING (track_id)
            WHERE change.category = 'change' AND file.category = 'file'
            AND change.ts BETWEEN file.ts AND file.ts + file.dur AND EXTRACT_ARG(change.arg_set_id, 'args.path') = 'log'
        """
        assert perfetto.rows(within)[0][0] >= 40  # each of the appends lies in the slice of its file


def test_the_page_shows_the_bad_report(recorded: tuple[Path, Path], tmp_path: Path) -> None:
    """In Chromium, without a network: filter for the rename that put it there, see the line that came with it."""
    trace, _ = recorded
    export(trace, tmp_path / "page.html", "--filter", "glob:exclude=.git")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page()
        failures: list[str] = []
        page.on("console", lambda message: failures.append(message.text))
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(f"file://{tmp_path}/page.html")
        page.fill("#filter", "op:rename report.new")
        assert page.inner_text("#count").startswith("40 of ")
        page.keyboard.press("Escape")
        page.keyboard.press("Home")
        for _ in range(23):
            page.keyboard.press("j")
        page.locator(".file", has_text="report").nth(0).click()
        assert page.locator(".side.add .text").all_inner_texts() == ["value 23", "broken"]
        assert failures == []
        browser.close()


def test_repack_and_streams(recorded: tuple[Path, Path], tmp_path: Path) -> None:
    """A copy of the trace with other patches is the same to every export; a pipe gets what a file gets."""
    trace, _ = recorded
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", trace, copy], check=True)
    result = run("repack", copy, "--differ", "bsdiff4")
    assert result.returncode == 0, result.stderr
    assert run("check", copy).returncode == 0
    export(trace, tmp_path / "a.tar", "--time", "end")
    export(copy, tmp_path / "b.tar", "--time", "end")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    for name, suffix in (("ndjson", "ndjson"), ("html", "html"), ("parquet", "parquet"), ("perfetto", "json")):
        export(trace, tmp_path / f"file.{suffix}", "--format", name)
        with open(tmp_path / "stream", "wb") as file:
            words = [sys.executable, "-m", "diffkeeper", "export", str(trace), "--out", "-", "--format", name]
            subprocess.run(words, stdout=file, stderr=subprocess.DEVNULL, check=True)
        assert (tmp_path / "stream").read_bytes() == (tmp_path / f"file.{suffix}").read_bytes(), name
