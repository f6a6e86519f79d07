"""timeline, info and check on traces made without a kernel: every form, every filter, hostile names."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click.testing
import pytest
from msgspec import structs

import diffkeeper
from diffkeeper.cli import cli
from diffkeeper.cli.timeline import FIRST_BATCH, LAST_BATCH, batches
from diffkeeper.eventlines import JsonLines
from diffkeeper.store import session
from diffkeeper.store.db import Database
from diffkeeper.store.files import DATA_FILE
from tests.builder import TraceBuilder

HOSTILE = b'caf\xc3\xa9 \xff\n\x1b[31m"red\\'


def run(*words: str | Path, code: int = 0) -> str:
    result = click.testing.CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


def objects(*words: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run("timeline", *words, "--json").splitlines()]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds in the life of a status file, with a hostile name, a mark, and a loss."""
    made = TraceBuilder(tmp_path_factory.mktemp("made") / "trace")
    made.baseline({"status.log": b"old\n", "d/keep": b"x"})
    made.begin()
    made.exec("/bin/sh", "-c", "work\nhard", at=0.010)
    made.rewrite("status.log", b"first\n", at=0.500)
    made.create("d/new", b"0123456789" * 1000, at=0.600)
    made.rename("d/new", "d/moved", at=0.700)
    made.mark("half", at=1.0)
    made.create(HOSTILE, b"", at=1.100)
    made.symlink("/etc/passwd", "link", at=1.200)
    made.gap(3, "ring full\x1b[2J", at=1.300)
    made.create("/opt/outside", b"elsewhere", at=1.400)
    made.unlink("d/moved", at=1.500)
    made.exit(0x300, at=1.900)
    made.end(0x300, at=2.0)
    made.settle("verified_paths=5")
    return made.build()


def test_json_lines_have_the_promised_keys(trace: Path) -> None:
    """One object a line, numbered without holes, in order of time."""
    found = objects(trace)
    assert [event["event"] for event in found] == list(range(1, len(found) + 1))
    assert all({"event", "time", "at", "op", "path", "pid", "comm"} <= event.keys() for event in found)
    assert [event["time"] for event in found] == sorted(event["time"] for event in found)
    write = next(event for event in found if event["op"] == "write" and event["path"] == "d/new")
    assert (write["size"], write["offset"], write["fidelity"]) == (10000, 0, "exact")
    rename = next(event for event in found if event["op"] == "rename")
    assert (rename["path"], rename["to"], rename["at"]) == ("d/new", "d/moved", "0.700s")
    link = next(event for event in found if event["op"] == "symlink")
    assert (link["path"], link["to"]) == ("link", "/etc/passwd")
    gap = next(event for event in found if event["op"] == "gap")
    assert (gap["count"], gap["detail"]) == (3, "ring full\x1b[2J")
    assert all(event["comm"] == "sh" for event in found[1:-1] if event["op"] not in ("gap", "exec"))


def test_hostile_names_come_back_byte_for_byte(trace: Path) -> None:
    """JSON is ASCII, and os.fsencode gives back the bytes of any name."""
    lines = run("timeline", trace, "--json")
    assert lines.isascii()
    assert HOSTILE in [os.fsencode(json.loads(line)["path"]) for line in lines.splitlines()]


def test_every_moment_in_the_timeline_can_be_pasted(trace: Path) -> None:
    """`--until` the moment of a line ends with that line; `--since` it begins with it."""
    for event in objects(trace):
        assert objects(trace, "--until", event["at"])[-1]["event"] == event["event"]
        assert objects(trace, "--since", "@" + event["at"])[0]["event"] <= event["event"]


def test_filters(trace: Path) -> None:
    """Each filter alone and all together."""
    assert {event["op"] for event in objects(trace, "--op", "rename,unlink")} == {"rename", "unlink"}
    assert {event["op"] for event in objects(trace, "--op", "mark", "--op", "GAP")} == {"mark", "gap"}
    assert [event["op"] for event in objects(trace, "--path", "status.log")] == ["truncate", "write"]
    assert [event["op"] for event in objects(trace, "--path", "d/*", "--since", "half")] == ["unlink"]
    assert objects(trace, "--pid", "4711") == []
    assert {event["path"] for event in objects(trace, "--path", "/opt/out*")} == {"/opt/outside"}
    assert all(event["outside"] for event in objects(trace, "--path", "outside"))
    assert objects(trace, "--since", "half", "--until", "half")[0]["detail"] == "half"


def test_columns_in_a_pipe_are_plain(trace: Path) -> None:
    """No colour, no tab, no control character; one line an event, aligned."""
    lines = run("timeline", trace).splitlines()
    assert len(lines) == len(objects(trace))
    assert all(line.isprintable() for line in lines)
    rename = next(line for line in lines if "rename" in line)
    assert rename.split() == ["0.700s", "rename", "d/new", "→", "d/moved", "sh[100]"]
    write = next(line for line in lines if "status.log" in line and "write" in line)
    assert write.split() == ["0.501s", "write", "status.log", "+6", "B", "@0", "sh[100]"]
    assert len({line.index("sh[100]") for line in lines if line.split()[1] in ("truncate", "write", "rename")}) == 1
    gap = next(line for line in lines if " gap " in line)
    assert r"3 events missed: ring full\e[2J" in gap


def test_losses_are_red_on_a_terminal(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole line of a gap; of others only the operation is coloured."""
    monkeypatch.setattr("diffkeeper.cli.timeline.use_colour", lambda stream: True)
    lines = click.testing.CliRunner().invoke(cli, ["timeline", str(trace)], color=True).stdout.splitlines()
    gap = next(line for line in lines if " gap " in line)
    assert gap.startswith("\x1b[31m")
    assert gap.endswith("\x1b[0m")
    rename = next(line for line in lines if "rename" in line)
    assert "\x1b[36mrename     \x1b[0m" in rename


def test_lines_come_at_once_and_then_in_bunches() -> None:
    """The first lines do not wait for the last; nothing is lost or reordered on the way."""
    taken = 0

    def lines() -> Iterator[str]:
        nonlocal taken
        for number in range(100_000):
            taken += 1
            yield f"{number}\n"

    bunches = batches(lines())
    first = next(bunches)
    assert taken == FIRST_BATCH
    rest = list(bunches)
    assert max(map(len, rest)) == LAST_BATCH
    assert [line for bunch in (first, *rest) for line in bunch] == [f"{number}\n" for number in range(100_000)]


def test_json_is_fast(tmp_path: Path) -> None:
    """A hundred thousand events take seconds, not minutes, on any machine."""
    made = TraceBuilder(tmp_path / "trace")
    made.baseline({"log": b""})
    made.begin()
    for number in range(20_000):
        made.write("log", b"x" * 20, at=number / 10_000)
    made.end()
    path = made.build()
    began = time.perf_counter()
    lines = run("timeline", path, "--json").count("\n")
    elapsed = time.perf_counter() - began
    assert lines == 20_000
    assert lines / elapsed > 10_000, f"{lines / elapsed:.0f} events a second"


def test_info_as_json(trace: Path) -> None:
    """The contract's keys, and their types."""
    told = json.loads(run("info", trace, "--json"))
    assert told["events"] == len(objects(trace))
    assert told["lost"] == 3
    assert told["lost_by_cause"] == {"ring full\x1b[2J": 3}
    assert told["duration"] == pytest.approx(2.0)
    assert told["exit_code"] == 3
    assert set(told["fidelity"]) == {"exact", "reread", "partial", "unknown"}
    assert told["fidelity"]["exact"] >= 2
    assert told["verified"] == {"paths": 5, "mismatches": 0, "wrong": {}, "others": 0}
    mark = next(event for event in objects(trace) if event["op"] == "mark")
    assert told["marks"] == [{"name": "half", "event": mark["event"], "time": 1.0}]
    assert told["complete"] is True


@pytest.mark.parametrize("started", [-(1 << 80), -62_135_596_801_000_000_000, 253_402_300_800_000_000_000])
def test_a_clock_that_no_calendar_has(started: int, tmp_path: Path) -> None:
    """A trace says when it began as far as there is a date for that; nothing else suffers for it."""
    made = TraceBuilder(tmp_path / "trace")
    made.begin()
    made.end()
    path = made.build()
    with closing(Database(path / DATA_FILE, write=True)) as database:
        txn = database.begin()
        facts = session.load(txn)
        assert facts is not None
        session.save(txn, structs.replace(facts, started=started))
        txn.commit()
    assert json.loads(run("info", path, "--json"))["started"] is None
    assert "started       at no date" in run("info", path)
    run("export", path, "--out", tmp_path / "page.html")


def test_info_for_people(trace: Path) -> None:
    """Losses stand out, and nothing in it moves a terminal's cursor."""
    lines = run("info", trace).splitlines()
    assert all(line.isprintable() for line in lines)
    assert any(line.startswith("LOST") and "3: ring full" in line for line in lines)
    assert any(line.split() == ["exit", "code", "3"] for line in lines)
    assert any("5 paths against the real files, 0 mismatches" in line for line in lines)


def test_a_recording_that_was_cut_off(tmp_path: Path) -> None:
    """What was recorded until then is there, and info says that it is not all."""
    made = TraceBuilder(tmp_path / "trace")
    made.begin()
    made.create("a", b"1")
    path = made.journal()
    told = json.loads(run("info", path, "--json"))
    assert told["complete"] is False
    assert [told["duration"], told["exit_code"], told["verified"]["paths"]] == [None] * 3
    assert "cut off" in run("info", path)
    assert [event["op"] for event in objects(path)] == ["create", "write"]


def test_an_empty_recording(tmp_path: Path) -> None:
    """A command that wrote nothing has an empty timeline, and that is no error."""
    made = TraceBuilder(tmp_path / "trace")
    made.baseline({"a": b"1"})
    made.begin()
    made.end()
    path = made.build()
    assert run("timeline", path) == ""
    assert json.loads(run("info", path, "--json"))["events"] == 0
    assert "no problems" in run("check", path)


def test_check_tells_health_by_exit_code(trace: Path, tmp_path: Path) -> None:
    """0 and a line for a healthy trace; 1, or the code of a damaged trace, when bytes are flipped."""
    assert "no problems" in run("check", trace)
    copy = tmp_path / "copy"
    shutil.copytree(trace, copy)
    index = copy / "index.lmdb"
    data = bytearray(index.read_bytes())
    at = data.find(b"0123456789")
    if at < 0:
        at = len(data) // 2
        data[at : at + 4096] = bytes(4096)
    else:
        data[at : at + 10] = b"9876543210"
    index.write_bytes(data)
    result = click.testing.CliRunner().invoke(cli, ["check", str(copy)])
    assert result.exit_code in (1, 88)
    assert "Traceback" not in result.output


def test_lines_of_a_range_are_those_of_its_events(trace: Path, tmp_path: Path) -> None:
    """What is printed without making events is what is printed with them, across blocks, processes and programs."""
    made = TraceBuilder(tmp_path / "trace")
    made.baseline({"log": b"", "other": b""})
    made.begin()
    for number in range(9000):
        made.write("log" if number % 7 else "other", b"x" * (number % 50 + 1), at=number // 3 / 2000)
        if number % 1000 == 0:
            made.exec(f"/bin/program{number}")
    made.end()
    for path in (trace, made.build()):
        with diffkeeper.open(path) as opened:
            for first, last in ((1, opened.reader.last_seq), (3, 8), (4090, 4100)):
                events = opened.reader.events(first, last)
                assert list(JsonLines(opened).lines(first, last)) == list(map(JsonLines(opened).line, events))
