"""Which differ makes a patch, what a trace says it needs, and patches made anew in a finished trace."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import random
import shutil
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import diffkeeper
from diffkeeper import plugins, testing
from diffkeeper.cli import cli
from diffkeeper.errors import DiffKeeperError, PluginError
from diffkeeper.store import differing, patches
from diffkeeper.store.db import Database
from diffkeeper.store.differing import Choice, candidates
from diffkeeper.store.files import DATA_FILE
from diffkeeper.store.reader import open_reader
from diffkeeper.store.repack import repack
from diffkeeper.store.tables import Table
from diffkeeper_plugins.differs.zstd import SIZE_LIMIT, Zstd
from tests.builder import TraceBuilder
from tests.unit.test_plugins import distribution, forget

MiB = 1 << 20
NO_REPORT = lambda done, total: None  # noqa: E731


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def rewritten(path: Path, differ: Choice | None = None, size: int = 20_000) -> tuple[Path, dict[int, bytes]]:
    """A trace of 12 versions of a file in place, and 12 written anew and renamed over it; content by event."""
    builder = TraceBuilder(path)
    version = bytearray(noise(1, size))
    builder.baseline({"f": bytes(version), "g": bytes(version[::-1]), "text": b"words " * 100})
    builder.begin()
    contents = {}
    for number in range(24):
        version[number * 50 : number * 50 + 8] = noise(number + 2, 8)
        if number % 2:
            contents[builder.rewrite("f", bytes(version))] = bytes(version)
        else:
            builder.create("g.new", bytes(version[::-1]))
            builder.rename("g.new", "g")
    builder.write("text", b"\nmore\n", 600)
    builder.end()
    builder.differ = differ or Choice()
    return builder.build(), contents


def shifted(number: int) -> bytes:
    """A version of a table whose numbers have all moved since the one before, as addresses do in a program."""
    return b"\n".join(b"%d,%d" % (1000 * at + number, at) for at in range(1000))


def tables(path: Path) -> Path:
    """A trace of 8 of them."""
    builder = TraceBuilder(path)
    builder.baseline({"f": shifted(0)})
    builder.begin()
    for number in range(1, 8):
        builder.rewrite("f", shifted(number))
    builder.end()
    return builder.build()


def kinds(path: Path) -> dict[str, int]:
    """How many blobs are stored by what."""
    found: dict[str, int] = {}
    with contextlib.closing(Database(path / DATA_FILE)) as database, database.reading() as txn:
        for digest, _ in txn.scan(Table.BLOBS):
            name = patches.load(txn, digest).differ.decode()
            found[name] = found.get(name, 0) + 1
    return found


def assert_readable(path: Path, contents: dict[int, bytes]) -> None:
    """Every version is what was written, and the trace is healthy."""
    with open_reader(path) as reader:
        for seq, content in contents.items():
            node = reader.resolve(b"/opt/root/f", seq)
            assert node is not None
            assert reader.read(node, seq, 0, len(content) + 1) == content
        assert list(reader.problems()) == []


# -- the zstd differ -----------------------------------------------------------------------------


def test_conformance() -> None:
    """The built-in differ passes the kit that plugin authors get, at any level."""
    testing.check_differ(Zstd())
    testing.check_differ(Zstd(level=19))
    with pytest.raises(PluginError, match="level from 1 to 19, not 20"):
        plugins.make_differ("zstd", {"level": "20"})


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=12), st.data())
@settings(max_examples=200)
def test_any_pair_that_is_patched_comes_back(parts: list[bytes], data: st.DataObject) -> None:
    """Shuffled, cut and repeated parts of one content are restored exactly."""
    base = b"".join(parts)
    target = b"".join(data.draw(st.lists(st.sampled_from(parts), max_size=20)))
    patch = Zstd().diff(base, target)
    if patch is not None:
        assert len(patch) < len(target)
        assert Zstd().apply(base, patch) == target


def test_what_is_large_or_repeats_itself_is_quick() -> None:
    """4 MiB of noise with an edit, and content on which bsdiff is quadratic: a small patch in a moment."""
    large = noise(1, 4 * MiB)
    flat = noise(2, 16) * (1 << 17)
    for base, target in ((large, large[:MiB] + b"edit" + large[MiB + 99 :]), (b"1" + flat, b"2" + flat[5:] + flat)):
        begin = time.perf_counter()
        patch = Zstd().diff(base, target)
        assert time.perf_counter() - begin < 5
        assert patch is not None and len(patch) < 5000
        assert Zstd().apply(base, patch) == target


@pytest.mark.parametrize("size", [3000, 300_000, MiB, 4 * MiB])
def test_edits_are_a_small_patch(size: int) -> None:
    """A few stretches replaced by shorter ones, in content that has nothing else in common: a few hundred bytes."""
    target = content = noise(1, size)
    for number in range(5):
        at = len(content) // 7 * (number + 1)
        target = target[:at] + b"edit" + target[at + 99 :]
    patch = Zstd().diff(content, target)
    assert patch is not None and len(patch) < 700
    assert Zstd().apply(content, patch) == target


def test_a_line_more_in_a_program_is_a_tiny_patch() -> None:
    """Text is like itself in many places; the patch is of one copy, not of many short ones."""
    base = Path(argparse.__file__).read_bytes()
    patch = Zstd().diff(base, base.replace(b"\nimport re", b"\nimport readline\nimport re", 1))
    assert patch is not None and len(patch) < 64


def test_zstd_itself_applies_a_patch(tmp_path: Path) -> None:
    """What follows the size is what `zstd --patch-from` makes and takes."""
    base, target = noise(1, 50_000), noise(1, 25_000) + b"edit" + noise(1, 50_000)[25_000:]
    patch = Zstd().diff(base, target)
    assert patch is not None
    (tmp_path / "base").write_bytes(base)
    (tmp_path / "patch").write_bytes(patch[4:])
    words = ["zstd", "-q", "-d", f"--patch-from={tmp_path / 'base'}", str(tmp_path / "patch"), "-o"]
    subprocess.run([*words, str(tmp_path / "target")], check=True)
    assert (tmp_path / "target").read_bytes() == target


@pytest.mark.parametrize("size", [0, 100, SIZE_LIMIT, SIZE_LIMIT + 1, (1 << 32) - 1])
def test_a_hostile_patch_is_a_value_error_in_bounded_memory(size: int) -> None:
    """A patch that unpacks to a gigabyte of zeroes, whatever size it claims."""
    import zstandard

    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(256 * MiB))
    tracemalloc.start()
    with pytest.raises(ValueError, match="patch"):
        Zstd().apply(b"base" * 10, struct.pack("<I", size) + bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < SIZE_LIMIT * 3


@given(st.integers(0, 2**32), st.data())
@settings(max_examples=200)
def test_a_damaged_patch_raises_nothing_but_value_error(seed: int, data: st.DataObject) -> None:
    """Any flipped byte ends in ValueError or in bytes (which the store's digest then refuses)."""
    base = noise(seed, 600)
    patch = bytearray(Zstd().diff(base, base[:300] + b"edit" + base[300:]) or b"")
    at = data.draw(st.integers(0, len(patch) - 1))
    patch[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ValueError):
        assert isinstance(Zstd().apply(base, bytes(patch)), bytes)


# -- the policy ----------------------------------------------------------------------------------


def test_the_policy() -> None:
    """zstd, then bsdiff4 where that is quick; what is asked for by name is taken."""
    assert candidates(Choice(), 1000, 1000, hurried=False) == ("zstd", "bsdiff4")
    assert candidates(Choice(), 1000, 2 * MiB, hurried=False) == ("zstd",)
    assert candidates(Choice(), 1000, 1000, hurried=True) == ("zstd",)
    assert candidates(Choice("mine"), 9 * MiB, 1, hurried=True) == ("mine",)
    assert candidates(Choice("raw"), 1, 1, hurried=False) == ()
    with pytest.raises(PluginError, match="--differ auto takes no options"):
        differing.check(Choice("auto", {"level": "3"}))


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (Choice(), {"zstd/1"}), (Choice("zstd"), {"zstd/1"}), (Choice("zstd", {"level": "19"}), {"zstd/1"}),
        (Choice("bsdiff4"), {"bsdiff4/1"}), (Choice("raw"), set()),
    ],
)  # fmt: skip
def test_the_choice_is_used_and_the_trace_says_what_it_needs(tmp_path: Path, choice: Choice, wanted: set[str]) -> None:
    """Also by whoever indexes later: the choice stands in the trace. Whole contents need nothing."""
    path, contents = rewritten(tmp_path / "trace", choice)
    assert set(kinds(path)) - {"raw", "zstd"} == wanted
    assert_readable(path, contents)
    with diffkeeper.open(path) as trace:
        assert trace.reader.differs() == dict.fromkeys(wanted, "diffkeeper")
        assert trace.session.differ == tuple(choice)


def test_the_smaller_patch_is_taken(tmp_path: Path) -> None:
    """Where zstd's patch is not small, bsdiff4 is asked as well."""
    assert set(kinds(tables(tmp_path / "trace"))) == {"zstd", "bsdiff4/1"}


def test_large_contents_and_flat_ones_are_zstd_s(tmp_path: Path) -> None:
    """Where bsdiff4 is too slow, auto has a patch all the same."""
    path, contents = rewritten(tmp_path / "trace", size=2 * MiB)
    assert kinds(path).get("zstd/1", 0) > 10
    assert "bsdiff4/1" not in kinds(path)
    assert_readable(path, contents)


def test_what_takes_too_long_is_left_to_the_quick_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once patches have taken their share of the time, bsdiff4 is asked no more; much later nobody is."""
    monkeypatch.setattr(patches.Patcher, "HEAD_START", 0.0)
    monkeypatch.setattr(patches.Patcher, "SHARE", 0.0)
    found = kinds(tables(tmp_path / "one"))
    assert found["bsdiff4/1"] == 1 and found["zstd/1"] == 6
    monkeypatch.setattr(patches.Patcher, "MOST", 0.0)
    assert sum(kinds(rewritten(tmp_path / "two")[0]).get(name, 0) for name in ("bsdiff4/1", "zstd/1")) <= 1


# -- repack --------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", [Choice("zstd"), Choice("raw"), Choice("bsdiff4"), Choice()])
@pytest.mark.parametrize("before", [Choice("raw"), Choice("bsdiff4")])
def test_repack_makes_patches_anew(tmp_path: Path, before: Choice, choice: Choice) -> None:
    """From any to any; nothing that can be read changes, and what is needed is what is said."""
    path, contents = rewritten(tmp_path / "trace", before)
    old, new, smaller = repack(path, choice, NO_REPORT)
    assert smaller
    assert old.kinds != new.kinds or before == choice
    assert sum(old.kinds.values()) == sum(new.kinds.values())
    assert new.kinds == kinds(path)
    names = {"zstd": {"zstd/1"}, "raw": set[str](), "bsdiff4": {"bsdiff4/1"}, "auto": {"zstd/1"}}[choice.name]
    with open_reader(path) as reader:
        assert set(reader.differs()) == names
    if choice.name == "raw":
        assert new.file > 20_000 * 20
    else:
        assert new.kinds.total() - new.kinds["raw"] - new.kinds["zstd"] > 20, "pairs are found as when recording"
        assert new.file < 20_000 * 10
    assert_readable(path, contents)
    assert not list(path.glob("*.new"))


def test_repack_shows_before_and_after(tmp_path: Path) -> None:
    """The command prints what is stored by what, bytes, and the time to read it."""
    path, contents = rewritten(tmp_path / "trace", Choice("raw"))
    result = CliRunner().invoke(cli, ["repack", str(path), "--differ", "zstd:level=19"])
    assert result.exit_code == 0, result.output
    rows = {line[:24].strip(): line[24:].split() for line in result.stdout.splitlines()}
    assert rows[""] == ["before", "after"]
    assert rows["patches by zstd/1"][0] == "0" and int(rows["patches by zstd/1"][1]) > 20
    assert int(rows["stored whole"][0]) > int(rows["stored whole"][1])
    assert rows.keys() >= {"content", "index on disk", "to read all content"}
    assert_readable(path, contents)
    result = CliRunner().invoke(cli, ["repack", str(path), "--differ", "none-such"])
    assert result.exit_code == PluginError.exit_code


def test_repack_waits_for_who_is_just_opening_the_trace(tmp_path: Path) -> None:
    """Nobody may get the data file of before and the lock file of afterwards, or the other way round."""
    path, _ = rewritten(tmp_path / "t")
    opening = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(opening, fcntl.LOCK_SH)
    before = os.stat(path / DATA_FILE).st_ino
    words = [sys.executable, "-m", "diffkeeper", "repack", str(path)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        waiting = Path(f"/proc/{process.pid}/wchan")
        deadline = time.monotonic() + 60
        while not (path / (DATA_FILE + ".new")).exists() or "lock" not in waiting.read_text():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        assert os.stat(path / DATA_FILE).st_ino == before
        os.close(opening)
        assert process.wait(60) == 0
    assert os.stat(path / DATA_FILE).st_ino != before


def test_repack_keeps_the_file_while_another_process_has_it_open(tmp_path: Path) -> None:
    """A mount reads on undisturbed; the patches are made anew all the same, and a note says so."""
    path, contents = rewritten(tmp_path / "trace", Choice("bsdiff4"))
    program = (
        "import sys\nfrom pathlib import Path\nfrom diffkeeper.store.reader import open_reader\n"
        "reader = open_reader(Path(sys.argv[1]))\n"
        "print('open', flush=True)\nsys.stdin.readline()\n"
        "print(list(reader.problems()) , flush=True)\n"
    )
    words = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin and other.stdout and other.stdout.readline() == "open\n"
        inode = os.stat(path / DATA_FILE).st_ino
        _, new, smaller = repack(path, Choice("zstd"), NO_REPORT)
        assert not smaller
        assert os.stat(path / DATA_FILE).st_ino == inode
        assert new.kinds["zstd/1"] > 20
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "[]\n"
    assert_readable(path, contents)
    assert repack(path, Choice("zstd"), NO_REPORT)[2]


class Halt(BaseException):
    """Whoever gave up."""


@pytest.mark.parametrize("at", [1, 7, 15, 30])
def test_a_repack_that_is_stopped_leaves_a_whole_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Wherever it stops: all is readable, and another run finishes the work."""
    from diffkeeper.store import repack as module

    path, contents = rewritten(tmp_path / "trace", Choice("bsdiff4"))
    monkeypatch.setattr(module, "_BATCH_BYTES", 1)

    def stop(done: int, total: int) -> None:
        if done == at:
            raise Halt

    with pytest.raises(Halt):
        repack(path, Choice("zstd"), stop)
    assert_readable(path, contents)
    with open_reader(path) as reader:
        assert set(reader.differs()) >= set(kinds(path)) - {"raw", "zstd"}
    repack(path, Choice("zstd"), NO_REPORT)
    assert_readable(path, contents)
    assert set(kinds(path)) - {"raw", "zstd"} == {"zstd/1"}


def test_a_trace_that_is_open_here_is_not_repacked(tmp_path: Path) -> None:
    """In the same process the store cannot be opened twice: an error that says so, and nothing is changed."""
    path, _ = rewritten(tmp_path / "trace")
    before = kinds(path)
    with diffkeeper.open(path), pytest.raises(DiffKeeperError, match="close it before"):
        repack(path, Choice("zstd"), NO_REPORT)
    assert kinds(path) == before


# -- a differ that is not there ------------------------------------------------------------------

THIRD_PARTY = """
from diffkeeper.plugins import Differ
import zlib
class Mine(Differ):
    name = "mine/1"
    def diff(self, base, target):
        return zlib.compress(bytes(a ^ b for a, b in zip(base, target)) + target[len(base):])
    def apply(self, base, patch):
        data = zlib.decompress(patch)
        return bytes(a ^ b for a, b in zip(base, data)) + data[len(base):]
"""


KEYED = """
from diffkeeper.plugins import Differ
class Keyed(Differ):
    name = "keyed/1"
    def __init__(self, key: int = 0, how: str = ""):
        self.key, self.how = key, how
    def diff(self, base, target):
        if self.how == "raises":
            raise LookupError("no patch today")
        return bytes([self.key]) + bytes(byte ^ self.key for byte in target[:9])
    def apply(self, base, patch):
        made = bytes(byte ^ self.key for byte in patch[1:])
        return made + base[len(made):]
"""


@pytest.mark.parametrize(
    ("options", "why"), [({"key": "3"}, "something else"), ({"how": "raises"}, "LookupError: no patch today")]
)
def test_a_differ_that_fails_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], why: str
) -> None:
    """One that raises, or whose patches the one without options, which readers have, cannot read: all stays whole."""
    place = tmp_path / "site"
    distribution(place, "keyed-plugin", "[diffkeeper.differs]\nkeyed = keyed_plugin:Keyed\n")
    (place / "keyed_plugin.py").write_text(KEYED)
    monkeypatch.syspath_prepend(place)
    forget()
    path, contents = rewritten(tmp_path / "trace", Choice("keyed", options))
    assert_readable(path, contents)
    assert set(kinds(path)) <= {"raw", "zstd"}
    with diffkeeper.open(path) as trace:
        (note,) = [note for note in trace.session.notes if "keyed" in note]
    assert note.startswith("the differ 'keyed' failed, and what it could not patch is stored whole: ") and why in note
    forget()


def test_a_missing_differ_names_the_distribution_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trace made with somebody's plugin, read where it is not: `info`, `check` and reading say what to install."""
    place = tmp_path / "site"
    distribution(place, "mine-plugin", "[diffkeeper.differs]\nmine = mine_plugin:Mine\n")
    (place / "mine_plugin.py").write_text(THIRD_PARTY)
    monkeypatch.syspath_prepend(place)
    forget()
    path, contents = rewritten(tmp_path / "trace", Choice("mine"))
    assert_readable(path, contents)
    shutil.rmtree(place)
    sys.modules.pop("mine_plugin", None)
    forget()
    with open_reader(path) as reader:
        node = reader.resolve(b"/opt/root/f", 0)
        assert node is not None
        assert len(reader.read(node, 0, 0, MiB)) == 20_000  # what was there before was stored whole
        with pytest.raises(PluginError, match=r"differ 'mine/1', which is not installed; .*pip install mine-plugin"):
            reader.read(node, max(contents), 0, MiB)
        assert any("pip install mine-plugin" in problem for problem in reader.problems())
    result = CliRunner().invoke(cli, ["info", str(path)])
    assert "'mine/1', which is not installed; mine-plugin brings it: pip install mine-plugin" in result.stdout
    patch = CliRunner().invoke(cli, ["diff", str(path), "start", "end", "--patch"])
    assert "M  f\n" in patch.stdout and "M  text\n" in patch.stdout and "+more\n" in patch.stdout
    assert patch.exit_code == PluginError.exit_code and "f: this needs the differ 'mine/1'" in patch.stderr
    with pytest.raises(PluginError, match="pip install mine-plugin"):
        repack(path, Choice("zstd"), NO_REPORT)
    with contextlib.closing(Database(path / DATA_FILE, write=True)) as database:
        txn = database.begin()
        txn.put(Table.META, b"differ/mine/1", b"x; rm -rf ~")
        txn.commit()
    with open_reader(path) as reader, pytest.raises(PluginError) as caught:
        reader.read(node, max(contents), 0, MiB)
    assert "rm -rf" not in str(caught.value)
    forget()
