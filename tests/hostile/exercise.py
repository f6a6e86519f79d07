"""Everything that can be done with a trace, done to one that may be hostile, in a process with little memory.

Owns the limits, the list of things to do, and what counts as a failure: an exception that is not ours, a
signal, too much memory or time, a control character on the terminal, a file written outside the export.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import shutil
import stat
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from click.testing import CliRunner

import diffkeeper
from diffkeeper.cli import cli
from diffkeeper.errors import DiffKeeperError
from diffkeeper.view.fuse import _entry
from diffkeeper.view.hidden import Top
from diffkeeper.view.paths import MomentPath
from diffkeeper.view.tree import Handle, Place

os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
"""Its own takes a GiB at once, which is all that there is, unless the parent has it already."""

MEMORY = 1 << 30  # beyond what the parent has already, which may be a long test run; mapped files do not count
FILE_SIZE = 256 << 20
SECONDS = 30
EVENTS = ("ndjson", "perfetto", "parquet", "html", "git")
"""Formats of what happened."""


def in_child(work: Callable[[], None], *, seconds: int = SECONDS, file_size: int = FILE_SIZE) -> str:
    """Run `work` in a forked process with limits; what went wrong, empty: nothing."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os.close(reading)
        os.dup2(writing, 2)
        faulthandler.enable(2)
        limit = _data() + MEMORY
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        faulthandler.dump_traceback_later(2 * seconds, exit=True, file=2)
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - the parent is told
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return f"killed by signal {os.WTERMSIG(status)}\n{said}"
    return f"exit code {status >> 8}\n{said}" if status else ""


def _data() -> int:
    """Bytes that this process has of what RLIMIT_DATA counts."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData:"))
    return int(line.split()[1]) * 1024


def everything(trace: Path, out: Path) -> None:
    """All commands, the API and the mount's places. Raises what is not ours."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    (out / "secret").write_text("untouched")
    commands: list[list[Any]] = [
        ["info", trace], ["info", trace, "--json"], ["timeline", trace], ["timeline", trace, "--json"],
        ["diff", trace, "start", "end"], ["diff", trace, "start", "end", "--json"], ["diff", "-p", trace, "e3", "end"],
        ["check", trace],
        ["export", trace, "--time", "end", "--out", out / "dir"],
        ["export", trace, "--time", "e20", "--out", out / "dir20"],
        ["export", trace, "--time", "end", "--out", out / "all.tar"],
        *(["export", trace, "--format", name, "--out", out / name] for name in EVENTS),
    ]  # fmt: skip
    for words in commands:
        _command(words, raw=words[1] == "-p")
    for name in ("dir", "dir20", "git"):
        _harmless(out / name)
    assert (out / "secret").read_text() == "untouched"
    allowed = {"dir", "dir20", "all.tar", "secret", *EVENTS}
    assert set(os.listdir(out)) <= allowed, os.listdir(out)
    with contextlib.suppress(DiffKeeperError), diffkeeper.open(trace) as opened:
        _read(opened)
        _places(Top(opened, list), 0, set())
    _command(["repack", trace, "--differ", "zstd"], raw=False)


def _command(words: list[Any], *, raw: bool) -> None:
    result = CliRunner().invoke(cli, list(map(str, words)), catch_exceptions=False, prog_name="diffkeeper")
    assert result.exit_code in {0, 1, 2, 85, 86, 87, 88, 89, *range(90, 100)}, (words, result.exit_code, result.output)
    assert "tell those who made it" not in result.output, (words, result.output)  # an exporter's bug
    text = result.stderr if raw else result.output
    wrong = [char for char in text if not char.isprintable() and char not in "\n\t"]
    assert not wrong, (words, wrong[:5])
    if result.exit_code not in (0, 1) and "LEFT OUT" not in result.stderr:
        assert len(result.stderr.splitlines()) == 1, result.stderr


def _harmless(top: Path) -> None:
    """What was exported holds no device and no set-id bit."""
    for directory, folders, files in os.walk(top):
        for name in [*folders, *files]:
            mode = os.lstat(os.path.join(directory, name)).st_mode
            assert not stat.S_ISCHR(mode) and not stat.S_ISBLK(mode), name
            assert stat.S_ISLNK(mode) or not mode & (stat.S_ISUID | stat.S_ISGID), name


def _read(opened: diffkeeper.trace.Trace) -> None:
    def attempt(work: Callable[[], object]) -> None:
        with contextlib.suppress(DiffKeeperError):
            work()

    attempt(opened.marks)
    attempt(opened.processes)
    for when in ("start", "half", "1s", "end-1ms"):
        with contextlib.suppress(DiffKeeperError):
            for number, (directory, _, files) in enumerate(opened.at(when).walk()):
                for name in files[:20]:
                    path = directory / name
                    attempt(path.lstat)
                    attempt(partial(_content_of, path))
                    attempt(partial(_versions_of, opened, path))
                if number > 200:
                    break


def _content_of(path: MomentPath) -> bytes:
    with path.open("rb") as file:
        return file.read(1 << 20)


def _versions_of(opened: diffkeeper.trace.Trace, path: MomentPath) -> list[int]:
    return opened.reader.versions(path.lstat().st_ino)


def _read_through(place: Place) -> None:
    handle = place.open() if place.live else Handle(place.read, lambda: None)
    try:
        handle.read(0, 4096)
        handle.read(1 << 61, 4096)
    finally:
        handle.close()


def _places(place: Place, depth: int, seen: set[object]) -> None:
    """As the kernel would ask through the mount; an OSError or one of ours is an errno for whoever reads."""
    if depth > 12 or len(seen) > 3000 or place.key in seen:
        return
    seen.add(place.key)
    with contextlib.suppress(DiffKeeperError, OSError):
        for name, entry in place.children():
            assert isinstance(name, bytes)
            with contextlib.suppress(DiffKeeperError, OSError):
                _entry(5, entry.attrs)
            with contextlib.suppress(DiffKeeperError, OSError):
                _read_through(entry.place)
            _places(entry.place, depth + 1, seen)
