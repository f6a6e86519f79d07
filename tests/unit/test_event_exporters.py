"""Exporters of what happened: ndjson, perfetto and parquet, each read again by the tool it is made for; tar.zst."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from msgspec.structs import replace

import diffkeeper
from diffkeeper import exporting, plugins, testing
from diffkeeper.errors import PluginError
from diffkeeper.exporting import Exported, Selection
from diffkeeper.plugins import Exporter
from diffkeeper.progress import Silent
from diffkeeper.store import patches
from diffkeeper.store.db import Database
from diffkeeper.store.files import DATA_FILE
from diffkeeper.store.tables import Table
from diffkeeper.trace import Trace
from tests.builder import TraceBuilder

REFERENCE = (Path(__file__).resolve().parents[2] / "docs" / "commands.md").read_text()
KINDS = [("ndjson", {}), ("ndjson", {"files": "true"}), ("perfetto", {}), ("parquet", {}), ("tar.zst", {})]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trace]:
    """Two processes, a file that grows, one that is rewritten, awkward names, a mark, a gap."""
    builder = TraceBuilder(tmp_path_factory.mktemp("events") / "trace")
    builder.baseline({"log": b"begin\n", "src/a": b"one"})
    builder.begin()
    builder.exec("python", "job.py", at=0.001)
    for number in range(20):
        builder.write("log", b"step %d\n" % number, at=0.01 * (number + 1))
    builder.fork(101, at=0.25)
    builder.pid = 101
    builder.exec("mv", "src", "lib", at=0.26)
    builder.rename("src", "lib", at=0.27)
    builder.create(b"odd\xff\n<b>", b"x", at=0.28)
    builder.rewrite("lib/a", b"two and more", at=0.6)
    builder.exit(256, at=0.7)
    builder.pid = 100
    builder.mark("half", at=0.8)
    builder.gap(3, "ring full", at=0.9)
    builder.truncate("log", 10, at=1.0)
    builder.symlink("nowhere", "link", at=1.1)
    builder.unlink("lib/a", at=1.2)
    builder.exit(0, at=1.3)
    builder.end(at=1.4)
    with diffkeeper.open(builder.build()) as opened:
        yield opened


def export(trace: Trace, name: str, out: Any, selection: Selection | None = None, **options: str) -> Exported:
    exporter = plugins.exporter(name, options)
    return exporting.export(exporter, trace, selection or Selection(trace.moment("end")), out, Silent())


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_conformance(name: str, options: dict[str, str], tmp_path: Path) -> None:
    """They pass the kit that plugin authors get: same bytes twice, also in a pipe, and nothing outside."""
    testing.check_exporter(lambda: plugins.exporter(name, options), tmp_path)


def lines(trace: Trace, selection: Selection | None = None, **options: str) -> list[dict[str, Any]]:
    out = io.BytesIO()
    export(trace, "ndjson", out, selection, **options)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_ndjson_has_every_event_with_digests_of_what_was_written(trace: Trace) -> None:
    """The objects of `timeline --json`, and SHA-256 of the bytes of each write; of whole files when asked for."""
    found = lines(trace, files="true")
    assert [line["event"] for line in found] == list(range(1, trace.reader.last_seq + 1))
    writes = [line for line in found if line["op"] == "write" and line["path"] == "log"]
    content = b"begin\n"
    for number, line in enumerate(writes):
        data = b"step %d\n" % number
        content += data
        assert line["sha256"] == hashlib.sha256(data).hexdigest()
        assert line["file_sha256"] == hashlib.sha256(content).hexdigest()
    cut = next(line for line in found if line["op"] == "truncate" and line["path"] == "log")
    assert cut["file_sha256"] == hashlib.sha256(content[:10]).hexdigest()
    assert not any("file_sha256" in line for line in lines(trace))


def test_jq_reads_ndjson(trace: Trace, tmp_path: Path) -> None:
    """jq counts operations; a name that is not UTF-8 does not stop it."""
    export(trace, "ndjson", tmp_path / "events.ndjson")
    words = ["jq", "-s", "-c", "map(.op) | group_by(.) | map({(.[0]): length}) | add", str(tmp_path / "events.ndjson")]
    done = subprocess.run(words, capture_output=True, check=True)
    counts = json.loads(done.stdout)
    assert (counts["write"], counts["rename"], counts["gap"], counts["mark"]) == (22, 1, 1, 1)
    command = re.search(r"^jq .*$", REFERENCE, re.MULTILINE)
    assert command
    done = subprocess.run(command[0], shell=True, cwd=tmp_path, capture_output=True, check=True)
    assert len(done.stdout.splitlines()) == 22


def test_a_range_and_paths_choose_events(trace: Trace) -> None:
    """From one moment to another, by glob, by filter; marks and gaps stay whatever path is asked for."""
    half = trace.moment("half")
    first = trace.covered("280ms")[0]
    found = lines(trace, Selection(half, first=first))
    assert [line["event"] for line in found] == list(range(first, half.seq + 1))
    found = lines(trace, Selection(trace.moment("end"), (b"lib",)))
    assert [line["op"] for line in found] == ["rename", "truncate", "write", "mark", "gap", "unlink"]
    glob = (("glob", {"exclude": "log,odd*"}),)
    found = lines(trace, Selection(trace.moment("end"), filters=glob))
    assert {line["path"] for line in found} == {"", "src", "lib/a", "link"}


def test_perfetto_slices_nest_and_instants_are_all_there(trace: Trace, tmp_path: Path) -> None:
    """What a viewer needs: a named track per process, slices that do not overlap on theirs, an instant per event."""
    export(trace, "perfetto", tmp_path / "out.json")
    whole = json.loads((tmp_path / "out.json").read_bytes())
    records = whole["traceEvents"]
    names = {record["pid"]: record["args"]["name"] for record in records if record["name"] == "process_name"}
    assert names == {100: "python", 101: "mv"}
    slices = [record for record in records if record["ph"] == "X"]
    assert all(record["dur"] >= 0 for record in slices)
    tracks: dict[int, list[tuple[float, float]]] = {}
    for record in slices:
        tracks.setdefault(record["tid"], []).append((record["ts"], record["ts"] + record["dur"]))
    for spans in tracks.values():
        spans.sort()
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans)), spans
    log = [record for record in slices if record["name"] == "log"]
    assert [(record["ts"], record["dur"], record["args"]["changes"]) for record in log] == [
        (10_000.0, 190_000.0, 20), (1_000_000.0, 0.0, 1)
    ]  # fmt: skip
    instants = [record["args"]["event"] for record in records if record["ph"] == "i"]
    assert sorted(instants) == list(range(1, trace.reader.last_seq + 1))
    assert {record["name"] for record in records if record.get("s") == "g"} == {"half", "GAP: ring full"}
    (tmp_path / "out.json").read_bytes().decode("ascii")


def test_duckdb_reads_the_table(trace: Trace, tmp_path: Path) -> None:
    """The columns hold what happened, none needs quotes in SQL, and the reference's own query runs."""
    table = str(tmp_path / "events.parquet")
    export(trace, "parquet", tmp_path / "events.parquet")

    def ask(query: str) -> list[Any]:
        return duckdb.connect().execute(query.replace("TABLE", f"'{table}'")).fetchall()

    written = ask("SELECT path, sum(size) FROM TABLE WHERE op = 'write' GROUP BY path ORDER BY 2 DESC")
    assert written[0] == ("log", sum(len(b"step %d\n" % number) for number in range(20)))
    made = ask("SELECT path, path_bytes, comm, moment, seconds FROM TABLE WHERE op = 'create'")
    assert made == [("odd\\xff\n<b>", b"odd\xff\n<b>", "mv", "0.280s", 0.28)]
    assert ask("SELECT new_path, missed FROM TABLE WHERE op IN ('rename', 'gap')") == [("lib", None), (None, 3)]
    assert ask("SELECT DISTINCT epoch_ns(wall) - nanoseconds FROM TABLE") == [(trace.session.started,)]
    assert ask("SELECT count(path_bytes), count(*) FROM TABLE") == [(2, trace.reader.last_seq)]
    columns = [row[0] for row in ask("DESCRIBE SELECT * FROM TABLE")]
    assert ask(f"SELECT count(({', '.join(columns)})) FROM TABLE") == [(trace.reader.last_seq,)]
    query = re.search(r'duckdb -c "(.*)"', REFERENCE)
    assert query and ask(query[1].replace("'events.parquet'", "TABLE"))[0][:2] == ("log", 20)


def test_a_clock_that_is_far_off(tmp_path: Path) -> None:
    """Of a time that no timestamp holds the table has the last one that it can, and the nanoseconds as they are."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.begin()
    builder.now = (1 << 63) - (1 << 60)
    builder.mark("late")
    with diffkeeper.open(builder.build()) as trace:
        export(trace, "parquet", tmp_path / "events.parquet")
        (event,) = trace.events()
    told = duckdb.connect().execute(f"SELECT epoch_ns(wall), nanoseconds FROM '{tmp_path}/events.parquet'").fetchall()
    assert told == [((1 << 63) - 2, event.time)]


def test_without_pyarrow_parquet_says_what_to_install() -> None:
    """In one line; everything else works."""
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from diffkeeper import plugins\n"
        "from diffkeeper.errors import PluginError\n"
        "plugins.exporter('ndjson', {})\n"
        "try: plugins.exporter('parquet', {})\n"
        "except PluginError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    assert "pip install 'diffkeeper[parquet]'" in done.stdout


def test_gnu_tar_reads_tar_zst(trace: Trace, tmp_path: Path) -> None:
    """The same archive as tar makes, through GNU tar's own decompression; the level is an option that is checked."""
    export(trace, "tar", tmp_path / "out.tar")
    export(trace, "tar.zst", tmp_path / "out.tar.zst", level="19")
    unpacked = subprocess.run(["zstd", "-dc", tmp_path / "out.tar.zst"], capture_output=True, check=True).stdout
    assert unpacked == (tmp_path / "out.tar").read_bytes()
    listed = [
        subprocess.run(["tar", "-tvf", tmp_path / name], capture_output=True, check=True).stdout
        for name in ("out.tar", "out.tar.zst")
    ]
    assert listed[0] == listed[1]
    with pytest.raises(PluginError, match="from 1 to 19, not 23"):
        plugins.exporter("tar.zst", {"level": "23"})


class Broken(Exporter):
    """Has a bug that shows when half is written."""

    def export(self, trace: Trace, selection: Selection, destination: Any, progress: Any) -> Exported:
        destination.mkdir()
        (destination / "half").write_text("half")
        raise ZeroDivisionError


def test_an_exporter_that_raises_leaves_nothing(trace: Trace, tmp_path: Path) -> None:
    """A bug in a plugin is one line that names it, and there is no half destination."""
    with pytest.raises(PluginError, match=r"the exporter 'Broken' failed \(ZeroDivisionError\)"):
        exporting.export(Broken(), trace, Selection(trace.moment("end")), tmp_path / "out", Silent())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["ndjson", "git", "html"])
def test_what_cannot_be_read_is_named_and_the_rest_is_there(tmp_path: Path, name: str) -> None:
    """One blob is damaged: the file that needs it is left out or has no digest, and the result says which."""
    noise = random.Random(1).randbytes(3000).hex().encode()
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"good": b"fine\n"})
    builder.begin()
    builder.create("bad", noise)
    builder.write("good", b"more\n")
    builder.end()
    path = builder.build()
    database = Database(path / DATA_FILE, write=True)
    txn = database.begin()
    (digest,) = (digest for digest, _ in txn.scan(Table.BLOBS))
    blob = patches.load(txn, digest)
    patches._store(txn, digest, replace(blob, data=blob.data[:-2]))
    txn.commit()
    database.close()
    with diffkeeper.open(path) as trace:
        result = export(trace, name, tmp_path / "out")
    assert len(result.damaged) == 1
    assert result.damaged[0].startswith("bad") and "damaged trace" in result.damaged[0]
    if name == "git":
        assert (tmp_path / "out" / "good").read_bytes() == b"fine\nmore\n"
        assert not (tmp_path / "out" / "bad").exists()
    else:
        assert b"good" in (tmp_path / "out").read_bytes()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace with 40,000 names, most of which nothing happened to."""
    builder = TraceBuilder(tmp_path_factory.mktemp("many") / "trace")
    builder.baseline({f"d{number // 1000}/file-{number}": b"" for number in range(40_000)})
    builder.begin()
    for number in range(0, 40_000, 1000):
        builder.write(f"d{number // 1000}/file-{number}", b"changed\n")
        builder.unlink(f"d{number // 1000}/file-{number + 1}")
        builder.rename(f"d{number // 1000}/file-{number + 2}", f"d{number // 1000}/moved")
    builder.end()
    return builder.build()


@pytest.mark.parametrize("words", [["--format=git"], ["--format=html", "--opt=files=1000"]], ids=["git", "html"])
def test_memory_does_not_grow_with_the_number_of_names(many: Path, words: list[str]) -> None:
    """The same export of a quarter of the names and of all of them takes the same memory, within 3 MB."""
    small, large = (_memory(many, *words, *paths) for paths in (["--path=d?/*"], []))
    assert abs(large - small) < 3 << 10, (small, large)


def _memory(trace: Path, *words: str) -> int:
    """The most memory of its own that an export was seen to have, in KiB: pages of the index are the kernel's."""
    program = "from diffkeeper import arrays, cli; arrays.load(); cli.main()"  # else only the large one has numpy
    command = [sys.executable, "-c", program, "export", str(trace), "--out=-", *words]
    most = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            found = re.search(r"RssAnon:\s*(\d+)", Path(f"/proc/{process.pid}/status").read_text())
            most = max(most, int(found[1]) if found else 0)
            time.sleep(0.002)
    assert process.returncode == 0
    return most
