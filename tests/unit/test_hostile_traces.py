"""A trace made to harm whoever looks at it: nothing leaves its place, nothing goes on without end, nothing is raw."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import pty
import random
import re
import shutil
import stat
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

import diffkeeper
from diffkeeper import exporting, plugins
from diffkeeper.cli import cli
from diffkeeper.errors import DiffKeeperError, TraceDamagedError
from diffkeeper.exporting import Exported, Selection
from diffkeeper.progress import Silent
from diffkeeper.store import codec, names
from diffkeeper.store.db import Database, Txn
from diffkeeper.store.files import DATA_FILE, LOCK_FILE
from diffkeeper.store.tables import Table
from diffkeeper.view.hidden import status_lines, timeline_lines
from diffkeeper.wire import WireOp
from tests.builder import TraceBuilder
from tests.hostile import seeds
from tests.hostile.exercise import everything, in_child
from tests.hostile.mutate import MUTATIONS

ROOT = b"/opt/root"
IS_ROOT = os.geteuid() == 0
EVIL = "\x1b]0;owned\x07\x1b[2J\u202e\r\x9b31m"
NODE = 1 << 20


def build(path: Path, **files: Any) -> Path:
    builder = TraceBuilder(path)
    builder.baseline({"file": b"content\n", "dir/inner": b"inner\n", **files})
    builder.begin()
    builder.create("new", b"new\n")
    builder.end()
    return builder.build()


def lie(trace: Path, work: Callable[[Txn, Callable[[str], int]], None]) -> None:
    """Change the store of a trace: `work` gets the transaction and what finds the node of a path."""
    database = Database(trace / DATA_FILE, write=True)
    txn = database.begin()

    def node(path: str) -> int:
        found = names.resolve(txn, ROOT + b"/" + path.encode() if path else ROOT, names.LATEST)
        assert found is not None
        return found

    work(txn, node)
    txn.commit()
    database.close()


def name(txn: Txn, parent: int, called: bytes, node: int) -> None:
    """A name that the indexer would not give."""
    txn.put(Table.NAMES, names.U64.pack(parent) + called + b"\0" + names.U64.pack(0), names.U64.pack(node))


def export(trace: Path, to: Path, form: str = "dir") -> Exported:
    with diffkeeper.open(trace) as opened:
        selection = Selection(opened.moment("end"))
        return exporting.export(plugins.exporter(form, {}), opened, selection, to, Silent())


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, list(map(str, words)), catch_exceptions=False)


# -- nothing leaves its place ---------------------------------------------------------------------


@pytest.mark.parametrize("form", ["dir", "tar"])
@pytest.mark.parametrize("called", [b"..", b".", b"", b"../../escaped", b"/tmp/escaped", b"a/b", b"in\0visible"])
def test_names_that_lead_elsewhere(tmp_path: Path, called: bytes, form: str) -> None:
    """A name that is a way out ends the export with damage, and nothing is left behind or anywhere else."""
    trace = build(tmp_path / "trace")
    lie(trace, lambda txn, node: name(txn, node("dir"), called, node("file")))
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(TraceDamagedError):
        export(trace, place / "out", form)
    assert os.listdir(place) == []
    assert not Path("/tmp/escaped").exists() and not (tmp_path / "escaped").exists()
    assert run("check", trace).exit_code == 1
    with diffkeeper.open(trace) as opened:
        assert (opened.at("end") / "file").read_bytes() == b"content\n"


@pytest.mark.parametrize("form", ["dir", "tar"])
def test_a_link_out_and_a_file_behind_it(tmp_path: Path, form: str) -> None:
    """What a trace says is in a symlink is written neither there nor where the link leads."""
    outside = tmp_path / "outside"
    outside.mkdir()
    trace = build(tmp_path / "trace", link={"target": os.fsencode(outside)})
    lie(trace, lambda txn, node: name(txn, node("link"), b"passwd", node("file")))
    export(trace, tmp_path / "out", form)
    assert os.listdir(outside) == []
    if form == "dir":
        assert os.readlink(tmp_path / "out/link") == str(outside)
    else:
        with tarfile.open(tmp_path / "out") as archive:
            assert sorted(archive.getnames()) == [".", "dir", "dir/inner", "file", "link", "new"]


def test_what_gives_rights_is_left_out(tmp_path: Path) -> None:
    """No device, no set-id bit and no capability in an exported directory unless asked for, and the notes say so."""
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    trace = build(
        tmp_path / "trace",
        suid={"content": b"x", "mode": 0o6755}, null={"mode": stat.S_IFCHR | 0o666, "rdev": os.makedev(1, 3)},
        ping={"content": b"x", "mode": 0o755, "xattrs": {b"security.capability": capability, b"user.a": b"b"}},
    )  # fmt: skip
    result = export(trace, tmp_path / "out")
    assert stat.S_IMODE((tmp_path / "out/suid").stat().st_mode) == 0o755
    assert not (tmp_path / "out/null").exists()
    assert "security.capability" not in os.listxattr(tmp_path / "out/ping")
    assert len(result.notes) == 3
    if IS_ROOT:
        words = ("--opt", "suid=true", "--opt", "devices=true")
        assert run("export", trace, "--time", "end", "--out", tmp_path / "with", *words).exit_code == 0
        assert stat.S_IMODE((tmp_path / "with/suid").stat().st_mode) == 0o6755
        assert os.getxattr(tmp_path / "with/ping", "security.capability") == capability
        assert stat.S_ISCHR((tmp_path / "with/null").stat().st_mode)


@pytest.mark.parametrize("member", ["session.json", DATA_FILE, LOCK_FILE, "journal", "journal/00000001.seg"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_members_that_are_no_files(tmp_path: Path, member: str, kind: str) -> None:
    """A link or a pipe in the place of a trace's file is refused at once, and what a link leads to is untouched."""
    trace = seeds.journal(tmp_path / "trace") if member.startswith("journal") else build(tmp_path / "trace")
    victim = tmp_path / "victim"
    real = trace / member
    if real.is_dir():
        real.rename(victim)
    else:
        victim.write_bytes(b"precious")
        real.unlink(missing_ok=True)
    before = sorted(os.listdir(victim)) if victim.is_dir() else victim.read_bytes()
    if kind == "link":
        real.symlink_to(victim)
    else:
        os.mkfifo(real)
    done = in_child(functools.partial(refuse, trace), seconds=20)
    assert done == "", done
    assert before == (sorted(os.listdir(victim)) if victim.is_dir() else victim.read_bytes())


def refuse(trace: Path) -> None:
    """Every command ends, and in our own words if it fails."""
    for words in (["info", trace], ["timeline", trace], ["check", trace]):
        result = run(*words)
        assert result.exit_code in (0, 1) or result.stderr.startswith("diffkeeper: "), result.output


# -- nothing goes on without end ------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["ring", "twice", "bomb"])
def test_directories_that_are_in_two_places(tmp_path: Path, shape: str) -> None:
    """A ring of directories, or one in many places, is damage to whoever walks it, and `check` names it."""
    trace = build(tmp_path / "trace", **{f"d{number}/x": b"" for number in range(20)})

    def work(txn: Txn, node: Callable[[str], int]) -> None:
        if shape == "ring":
            name(txn, node("dir"), b"again", node(""))
        elif shape == "twice":
            name(txn, node(""), b"again", node("dir"))
        else:
            for number in range(19):
                for called in (b"left", b"right"):
                    name(txn, node(f"d{number}"), called, node(f"d{number + 1}"))

    lie(trace, work)
    for form in ("dir", "tar"):
        with pytest.raises(TraceDamagedError, match="two places"):
            export(trace, tmp_path / "out", form)
    with diffkeeper.open(trace) as opened, pytest.raises(TraceDamagedError, match="two places"):
        list(opened.at("end").walk())
    assert "two places" in run("check", trace).output


def sparse(path: Path) -> Path:
    """A file that claims to have 2^62 bytes, of which a few were written."""
    builder = TraceBuilder(path)
    builder.baseline({"file": b"content\n", "huge": b"some"})
    builder.begin()
    builder.open("huge")
    builder.emit(WireOp.TRUNCATE, inodes=(builder._inode(builder.node("huge")),), offset=1 << 62)
    builder.end()
    return builder.build()


def use_sparse(trace: Path, out: Path) -> None:
    with diffkeeper.open(trace) as opened:
        huge = opened.at("end") / "huge"
        assert huge.stat().st_size == 1 << 62
        with huge.open("rb") as file:
            assert file.read(6) == b"some\0\0"
            file.seek(1 << 61)
            assert file.read(3) == bytes(3)
        assert [change.path for change in opened.diff("start", "end")] == [ROOT + b"/huge"]
    done = run("export", trace, "--time", "end", "--out", out / "dir")
    assert done.exit_code == 88 and "huge" in done.stderr
    assert os.listdir(out / "dir") == ["file"]
    done = run("export", trace, "--time", "end", "--out", out / "a.tar")
    assert done.exit_code == 0 and "holes" in done.stderr
    assert run("diff", "-p", trace, "start", "end").exit_code == 1
    assert run("check", trace).exit_code == 0


def test_a_file_of_exabytes(tmp_path: Path) -> None:
    """It can be looked at anywhere with little memory, and is left out of an export that cannot hold it."""
    trace = sparse(tmp_path / "trace")
    done = in_child(functools.partial(use_sparse, trace, tmp_path))
    assert done == "", done


def decode_bombs() -> None:
    for kind in (list[int], dict[bytes, bytes], tuple[int, int], tuple[int, bytes]):
        for bomb in (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 500_000):
            with pytest.raises(TraceDamagedError):
                codec.unpack_value(bomb, kind)
    with pytest.raises(TraceDamagedError):
        codec.decompress(codec.compress(bytes(63 << 20)), 1 << 20)


def test_bombs(tmp_path: Path) -> None:
    """A few bytes that claim to be billions of entries, or to be nested without end, take no memory."""
    done = in_child(decode_bombs)
    assert done == "", done


def test_a_value_of_gigabytes(tmp_path: Path) -> None:
    """An index full of holes that claims a value of four gigabytes is refused before anybody reads it."""
    trace = build(tmp_path / "trace", noise=random.Random(1).randbytes(100_000))
    path = trace / DATA_FILE
    data = bytearray(path.read_bytes())
    found = [  # nodes of leaves: the value is elsewhere, the key a digest, the value long
        start
        for start in range(0, len(data) - 8, 2)
        if data[start + 4 : start + 8] == b"\1\0\x20\0" and int.from_bytes(data[start : start + 4], "little") > 90_000
    ]
    assert found
    data[found[0] : found[0] + 4] = b"\0\0\0\xff"
    path.write_bytes(data)
    os.truncate(path, 6 << 30)
    with pytest.raises(TraceDamagedError, match="longer than it can be"):
        diffkeeper.open(trace)


# -- what is damaged, and the rest ----------------------------------------------------------------


def test_one_damaged_blob(tmp_path: Path) -> None:
    """That file cannot be read and `check` says so; all else can, and an exported directory has it."""
    noise = random.Random(3).randbytes(50_000)
    trace = build(tmp_path / "trace", bad=noise, second={"link": "bad"})
    path = trace / DATA_FILE
    data = bytearray(path.read_bytes())
    at = data.index(noise[20_000:20_030])
    data[at] ^= 1
    path.write_bytes(data)
    with diffkeeper.open(trace) as opened:
        end = opened.at("end")
        with pytest.raises(TraceDamagedError):
            (end / "bad").read_bytes()
        assert (end / "dir/inner").read_bytes() == b"inner\n"
    assert run("check", trace).exit_code == 1
    done = run("export", trace, "--time", "end", "--out", tmp_path / "out")
    assert done.exit_code == 88
    assert [line.split(":")[0:2] for line in done.stderr.splitlines() if "LEFT OUT" in line] == [
        ["LEFT OUT", " bad"], ["LEFT OUT", " second"]
    ]  # fmt: skip
    assert sorted(os.listdir(tmp_path / "out")) == ["dir", "file", "new"]
    assert run("export", trace, "--time", "end", "--out", tmp_path / "out.tar").exit_code == 88
    assert not (tmp_path / "out.tar").exists()


@settings(max_examples=60)
@given(st.integers(0, 1 << 60), st.sampled_from(["index_bytes", "index_pages", "index_meta"]))
def test_pages_that_lie(seed: int, mutation: str) -> None:
    """Whatever is done to the pages of an index: it is refused before LMDB sees it, or reading it comes to an end."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        trace = seeds.copy(_seed(), Path(folder) / "trace")
        MUTATIONS[mutation](trace, chance)
        done = in_child(functools.partial(scan, trace))
        assert done == "", done


def scan(trace: Path) -> None:
    try:
        database = Database(trace / DATA_FILE)
    except DiffKeeperError:
        return
    for table in database._tables:
        with contextlib.suppress(TraceDamagedError), database.reading() as txn:  # keys that lead back are told
            for key, _ in txn.scan(table):
                txn.get(table, key)


@functools.cache
def _seed() -> Path:
    folder = tempfile.mkdtemp(prefix="diffkeeper-seed-")
    atexit.register(shutil.rmtree, folder)
    return seeds.many(Path(folder) / "trace")


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_traces_damaged_at_random(tmp_path: Path, mutation: str) -> None:
    """A few of what `make fuzz-traces` has without end: everything is done with a damaged trace, in little memory."""
    made = (seeds.journal if mutation.startswith("journal") else seeds.indexed)(tmp_path / "seed")
    for number in range(3):
        chance = random.Random(f"{mutation} {number}")
        trace = seeds.copy(made, tmp_path / "trace")
        MUTATIONS[mutation](trace, chance)
        done = in_child(functools.partial(everything, trace, tmp_path / "out"))
        assert done == "", done


# -- the terminal ---------------------------------------------------------------------------------


def evil(path: Path) -> Path:
    """A trace whose every text is meant for the terminal."""
    raw = EVIL.encode()
    builder = TraceBuilder(path, roots=(b"/opt/" + raw,))
    builder.baseline({b"f" + raw: b"1\n", b"l": {"target": raw}})
    builder.begin()
    builder.exec("/bin/" + EVIL, EVIL, comm="sh" + EVIL[:9])
    builder.create(b"n" + raw, raw + b"\n")
    builder.rename(b"n" + raw, b"m" + raw)
    builder.rewrite(b"f" + raw, b"2" + raw + b"\n")
    builder.symlink(raw, b"s" + raw)
    builder.setxattr(b"f" + raw, b"user." + raw, raw)
    builder.mark("mark" + EVIL)
    builder.gap(1, "gap" + EVIL)
    builder.heal(b"m" + raw, b"healed")
    builder.end()
    builder.settle("note=" + EVIL)
    trace = builder.journal()
    facts = json.loads((trace / "session.json").read_text())
    facts.update(command=["make", EVIL], host=EVIL, kernel=EVIL, version=EVIL, cwd="/" + EVIL)
    (trace / "session.json").write_text(json.dumps(facts))
    return trace


def on_terminal(*words: object) -> str:
    """What a command writes to a terminal, both streams."""
    child, terminal = pty.fork()
    if not child:
        try:
            os.environ["TERM"] = "xterm-256color"
            os.environ.pop("NO_COLOR", None)
            sys.stdout, sys.stderr = (open(fd, "w", errors="backslashreplace") for fd in (1, 2))
            cli([str(word) for word in words], prog_name="diffkeeper")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
    out = bytearray()
    with contextlib.suppress(OSError):  # EIO: the other side is closed
        while data := os.read(terminal, 65536):
            out += data
    os.waitpid(child, 0)
    os.close(terminal)
    return out.decode("utf-8", "backslashreplace")


OURS = re.compile(r"\x1b\[[0-9;]*m")


def test_nothing_hostile_reaches_the_terminal(tmp_path: Path) -> None:
    """Of every command, whatever a trace holds and whatever goes wrong: our colours, text, and nothing else."""
    trace = evil(tmp_path / "trace")
    root = "/opt/" + EVIL
    commands: list[list[object]] = [
        ["info", trace], ["timeline", trace], ["timeline", trace, "--json"], ["timeline", trace, "--path", "*owned*"],
        ["diff", trace, "start", "end"], ["diff", "-p", trace, "start", "end"], ["diff", "--stat", trace, "e1", "end"],
        ["diff", trace, "@" + EVIL, "end"], ["diff", trace, "start", "end", "*owned*"], ["check", trace],
        ["info", tmp_path / EVIL], ["export", trace, "--time", "end", "--out", tmp_path / ("out" + EVIL)],
        ["export", trace, "--time", "end", "--out", tmp_path / ("out" + EVIL)],
        ["export", trace, "--time", EVIL, "--out", tmp_path / "o"],
        ["export", trace, "--time", "end", "--out", tmp_path / "p", "--path", EVIL + "?"],
        ["export", trace, "--time", "end", "--out", tmp_path / "q", "--format", EVIL],
        ["mount", trace, tmp_path / EVIL], ["mount", trace, root], ["umount", tmp_path / EVIL], ["mark", EVIL],
    ]  # fmt: skip
    for words in commands:
        shown = OURS.sub("", on_terminal(*words))
        assert shown or words[0] == "mark", words
        wrong = sorted({char for char in shown if not char.isprintable() and char not in "\r\n\t"})
        assert not wrong, (words[0], wrong, shown)
        assert "\r" not in shown.replace("\r\n", ""), (words[0], shown)
    damage = trace / DATA_FILE
    data = bytearray(damage.read_bytes())
    damage.write_bytes(data[: len(data) // 2])
    assert OURS.sub("", on_terminal("info", trace)).replace("\r\n", "").isprintable()


def test_nothing_hostile_in_the_mount_s_own_files(tmp_path: Path) -> None:
    """`timeline` and `status` in .diffkeeper/ are text."""
    with diffkeeper.open(evil(tmp_path / "trace")) as opened:
        for line in (*timeline_lines(opened), *status_lines(opened, list)):
            assert line.isprintable(), line


def test_names_in_a_ring(tmp_path: Path) -> None:
    """A directory whose names are out of order, so that the next name leads back to an earlier one, is damage."""
    trace = build(tmp_path / "trace", **{"name-a": b"1", "name-b": b"2", "name-c": b"3"})
    index = trace / DATA_FILE
    index.write_bytes(index.read_bytes().replace(b"name-c\0", b"name-a\0"))

    def walk() -> None:
        with diffkeeper.open(trace) as opened:
            top = opened.reader.resolve(opened.roots[0], 0)
            assert top is not None
            with pytest.raises(TraceDamagedError, match="out of order"):
                list(opened.reader.children(top, 0))
            with pytest.raises(TraceDamagedError, match="out of order"):
                opened.reader.namings(top)

    assert in_child(walk) == ""
