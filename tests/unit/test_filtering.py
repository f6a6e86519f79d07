"""Filters at work: in an index, a timeline, a diff and an export; what they leave out is counted, failures keep."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import diffkeeper
from diffkeeper import exporting, filtering, plugins
from diffkeeper.cli import cli
from diffkeeper.errors import PluginError, UsageError
from diffkeeper.filtering import Filters, Spec
from diffkeeper.model import Event
from diffkeeper.plugins import EventFilter
from diffkeeper.progress import Silent
from diffkeeper.trace import Trace
from tests.builder import TraceBuilder

FILES = {"main.c": b"int main;\n", ".gitignore": b"# made by make\n*.o\n/build/\n!keep.o\n", "notes": b"n"}
COMPILED = [("exec", ""), *((op, path) for path in ("main.o", "build/x") for op in ("create", "write"))]
"""What the compiler does below."""

SHELL = [("exec", ""), ("mkdir", "build"), ("fork", ""), ("write", "notes"), ("unlink", "main.o"), ("rename", "notes")]
"""What the shell does."""


def build(path: Path, filters: tuple[Spec, ...] = ()) -> Path:
    """A trace of a shell (pid 100) that runs a compiler (200), which writes what one would ignore."""
    builder = TraceBuilder(path)
    builder.filters = filters
    builder.baseline(FILES)
    builder.begin()
    builder.exec("sh", "-c", "make", at=0.5, comm="sh")
    builder.mkdir("build", at=0.6)
    builder.fork(200, at=1)
    builder.pid = 200
    builder.exec("cc", "-c", "main.c", at=1.1, comm="cc1")
    builder.create("main.o", b"o" * 100, at=1.2)
    builder.create("build/x", b"x" * 5000, at=1.3)
    builder.pid = 100
    builder.write("notes", b"shell", at=3)
    builder.unlink("main.o", at=4)
    builder.rename("notes", "news", at=5)
    builder.end()
    return builder.build()


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("filtering") / "trace")


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def listed(trace: Path, *specs: str) -> list[tuple[str, str]]:
    """Operation and path of what the timeline shows."""
    result = run("timeline", trace, "--json", *(word for spec in specs for word in ("--filter", spec)))
    assert result.exit_code == 0, result.output
    return [(line["op"], line["path"]) for line in map(json.loads, result.stdout.splitlines())]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("op:include=unlink,rename", [("unlink", "main.o"), ("rename", "notes")]),
        ("process:comm=cc*", COMPILED),
        ("process:argv=cc -c *,invert=true", SHELL),
        ("process:pid=200", COMPILED),
        ("time:since=1.25s,until=3s", [("create", "build/x"), ("write", "build/x"), ("write", "notes")]),
    ],
)
def test_the_timeline_shows_what_a_filter_keeps(trace: Path, spec: str, expected: list[tuple[str, str]]) -> None:
    """By operation, by who did it and whose child that is, by time; `invert` is the rest."""
    assert listed(trace, spec) == expected


def test_descendants_are_included_unless_told_otherwise(trace: Path) -> None:
    """What a child did is its parent's, too, if asked for."""
    assert ("write", "main.o") in listed(trace, "process:pid=100")
    assert ("write", "main.o") not in listed(trace, "process:pid=100,descendants=false")
    assert ("unlink", "main.o") in listed(trace, "process:pid=100,descendants=false")


def test_size_is_of_writes_only(trace: Path) -> None:
    """Events without a size are none of this filter's business."""
    assert listed(trace, "size:max=1k") == [line for line in listed(trace) if line != ("write", "build/x")]
    assert ("write", "main.o") not in listed(trace, "size:min=101")


def test_gitignore_reads_the_ignore_files_of_the_trace(trace: Path) -> None:
    """Files that the trace has, not those that lie where it was recorded, or is looked at."""
    named = {path for _, path in listed(trace, "gitignore")}
    assert named == {"", "notes"}
    assert ("write", "main.o") in listed(trace, "gitignore:files=.nothing")


def test_gitignore_is_settled_before_a_recording(tmp_path: Path) -> None:
    """The patterns go into the trace as they are then; what becomes of the files afterwards does not matter."""
    (tmp_path / ".gitignore").write_bytes(b"*.o\n\n# no\n\xff/\n")
    specs = filtering.settled([("gitignore", {})], lambda name: filtering.read_at([os.fsencode(tmp_path)], name))
    (tmp_path / ".gitignore").unlink()
    assert specs == (("gitignore", {"patterns": "*.o\n\udcff/"}),)
    filters = Filters(specs, [b"/r"])
    assert [filters.keeps_path(path, False) for path in (b"/r/a.o", b"/r/\xff/in", b"/r/\xff")] == [False, False, True]
    assert [filters.keeps_path(path, True) for path in (b"/r", b"/r/\xff", b"/r/a")] == [True, False, True]


def test_an_ignore_file_without_end_is_refused(tmp_path: Path) -> None:
    """Neither a trace from a stranger nor a mistake makes a filter take all memory."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.begin()
    builder.create(".gitignore")
    builder.truncate(".gitignore", 2 << 20)
    builder.end()
    with diffkeeper.open(builder.build()) as opened, pytest.raises(PluginError, match=r"\.gitignore is longer"):
        opened.events(filters=[("gitignore", {})])
    with open(tmp_path / "big", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(PluginError, match="big is longer than 1 MiB"):
        filtering.read_at([os.fsencode(tmp_path)], "big")


def test_a_path_filter_of_a_recording_is_counted(tmp_path: Path) -> None:
    """What it hid is in no moment; `info` says how many changes that were, and names some."""
    trace = build(tmp_path / "trace", (("gitignore", {"patterns": "*.o\n/build/"}), ("op", {"exclude": "rename"})))
    with diffkeeper.open(trace) as opened:
        assert sorted(path.name for path in opened.at("end").iterdir()) == [".gitignore", "main.c", "news"]
    first, second = json.loads(run("info", trace, "--json").stdout)["filters"]
    # mkdir build, create and write of main.o and build/x, unlink main.o
    assert (first["events"], first["before"], first["hidden"]) == (6, 0, 0)
    assert first["examples"] == ["build/", "main.o"]
    assert first["seconds"] > 0
    assert (second["events"], second["hidden"], second["error"]) == (0, 1, "")
    assert second["seconds"] > 0  # also of one that judges events: it is asked when somebody looks
    text = run("info", trace).stdout
    assert "left out 6 changes (build/, main.o); took" in text
    assert "hides 1 events from the timeline" in text
    assert ("rename", "notes") not in listed(trace)
    assert '"op": "rename"' in run("timeline", trace, "--all", "--json").stdout


def test_what_the_recorder_and_the_indexer_counted_is_added_up(tmp_path: Path) -> None:
    """The recorder tells what stood there before; a settled fact that makes no sense is damage, not a crash."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.filters = (("glob", {"exclude": "*.o"}),)
    builder.begin()
    builder.create("a.o", b"1")
    builder.settle('filtered=[{"name": "glob", "before": 7, "examples": ["b.o"], "time": 5}]')
    builder.settle("filtered=[]")
    builder.end()
    with diffkeeper.open(builder.build()) as opened:
        (told,) = opened.session.filtered
    assert (told.name, told.before, told.events, told.examples) == ("glob", 7, 2, ("b.o", "a.o"))
    assert told.time > 5


def test_diff_leaves_out_what_a_filter_rejects(trace: Path) -> None:
    """By path, and by whether an event that is kept had a part in the change."""

    def changes(*specs: Spec) -> list[bytes]:
        with diffkeeper.open(trace) as opened:
            return [opened.display(change.path) for change in opened.diff("start", "end", filters=specs)]

    assert changes() == [b"build", b"build/x", b"news"]
    assert changes(("glob", {"exclude": "build/"})) == [b"news"]
    assert changes(("gitignore", {})) == [b"news"]
    assert changes(("process", {"comm": "cc1"})) == [b"build/x"]
    assert changes(("op", {"include": "rename"})) == [b"news"]
    assert run("diff", trace, "start", "end", "--filter", "op:include=mkdir").stdout == "A  build/\n"
    assert run("diff", trace, "start", "end", "--filter", "op:include=chmod").exit_code == 0


def test_a_moment_cannot_be_exported_by_events(trace: Path, tmp_path: Path) -> None:
    """A tree without some of its events never was: the error says so, and a path filter works."""
    with diffkeeper.open(trace) as opened:
        selection = exporting.Selection(opened.moment("end"), filters=(("op", {"include": "write"}),))
        with pytest.raises(UsageError, match="the filter 'op' judges events"):
            exporting.export(plugins.exporter("dir", {}), opened, selection, tmp_path / "x", Silent())
    assert run("export", trace, "--time", "end", "--out", tmp_path / "y", "--filter", "gitignore").exit_code == 0
    assert sorted(os.listdir(tmp_path / "y")) == [".gitignore", "main.c", "news"]


@pytest.mark.parametrize("form", ["ndjson", "html", "git", "perfetto", "parquet"])
def test_what_happened_can_be_exported_by_events(trace: Path, tmp_path: Path, form: str) -> None:
    """Every format of events copes with events that are missing in between."""
    result = run("export", trace, "--format", form, "--out", tmp_path / "out", "--filter", "op:exclude=write,mkdir")
    assert result.exit_code == 0, result.output
    assert "LEFT OUT" not in result.stderr
    assert (tmp_path / "out").exists()


class Failing(EventFilter):
    """Raises, whatever it is asked."""

    def keep_path(self, path: bytes, is_dir: bool) -> bool:
        raise ZeroDivisionError("never tested")

    def keep(self, event: Event) -> bool:
        raise KeyError(event.seq)


class Unwilling(EventFilter):
    """Cannot begin."""

    def begin(self, trace: Trace) -> None:
        raise RuntimeError("not today")

    def keep(self, event: Event) -> bool:
        return True


def test_a_filter_that_raises_keeps_everything_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody's bug costs nothing that was recorded, and is not hidden either."""
    monkeypatch.setattr(filtering, "make_filter", lambda name, options: Failing())
    with caplog.at_level(logging.WARNING):
        trace = build(tmp_path / "trace", (("bad", {}),))
    assert [record.getMessage() for record in caplog.records] == [
        "the filter 'bad' failed, what it was asked about is kept: ZeroDivisionError: never tested"
    ]
    assert len(listed(trace, "bad")) > 8
    result = run("info", trace)
    assert "FAILED, and what it could not judge was kept: ZeroDivisionError: never tested" in result.stdout
    (told,) = json.loads(run("info", trace, "--json").stdout)["filters"]
    assert (told["events"], told["error"]) == (0, "ZeroDivisionError: never tested")


def test_a_filter_that_cannot_begin_is_an_error(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is shown."""
    monkeypatch.setattr(filtering, "make_filter", lambda name, options: Unwilling())
    with diffkeeper.open(trace) as opened, pytest.raises(PluginError, match="cannot begin: RuntimeError: not today"):
        opened.events(filters=[("x", {})])


def test_a_trace_can_be_summed_up_without_its_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`info` names a filter that is not installed here."""
    trace = build(tmp_path / "trace", (("op", {"exclude": "write"}), ("time", {"since": "1h"})))
    make = plugins.make_filter

    def gone(name: str, options: dict[str, str]) -> EventFilter:
        if name == "op":
            raise PluginError(f"there is no filter {name!r}")
        return make(name, options)

    monkeypatch.setattr(filtering, "make_filter", gone)
    text = run("info", trace).stdout
    assert "op:exclude=write: left nothing out" in text
    assert "cannot be had here, so events that it may hide are shown: there is no filter 'op'" in text
    assert "FAILED" not in text, "what is not installed where somebody looks did not fail in the recording"
    one, other = json.loads(run("info", trace, "--json").stdout)["filters"]
    assert (one["missing"], one["error"], one["hidden"]) == ("there is no filter 'op'", "", 0)
    assert (other["missing"], other["error"]) == ("", "") and other["hidden"] > 0
    shown = run("timeline", trace)
    assert (shown.exit_code, "main.o" in shown.stdout) == (0, True)
    assert "note: shown is also what filters of the recording would hide: there is no filter 'op'" in shown.stderr


def test_what_is_above_a_root_is_kept(tmp_path: Path) -> None:
    """A pattern is about what lies in a root, not about where the root lies."""
    filters = Filters([("glob", {"exclude": "node_modules/"})], [b"/a/node_modules/root"])
    assert filters.keeps_path(b"/a/node_modules", True)
    assert filters.keeps_path(b"/a/node_modules/root/x", False)
    assert not filters.keeps_path(b"/a/node_modules/root/node_modules/x", False)
    assert not filters.keeps_path(b"/a/node_modules/other", False)
