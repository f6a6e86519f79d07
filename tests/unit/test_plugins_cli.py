"""The commands `plugins`, `export` and `diff`, as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from diffkeeper.cli import cli
from tests.builder import TraceBuilder


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> str:
    builder = TraceBuilder(tmp_path_factory.mktemp("cli") / "trace")
    builder.baseline(
        {
            "notes.txt": b"one\n\ttwo\nthree\n",
            "src/a.c": b"int a;\n",
            "tool": {"content": b"#!/bin/sh\n", "mode": 0o644},
            "image": b"\0\1\2",
            "gone": b"last line without end",
        }
    )
    builder.begin()
    builder.rewrite("notes.txt", b"one\n\tTWO\nthree\n")
    builder.rename("src", "lib")
    builder.write("lib/a.c", b"int b;\n")
    builder.mark("half")
    builder.chmod("tool", 0o755)
    builder.write("image", b"\0\4")
    builder.unlink("gone")
    builder.create(b"\xff\x1b[31m\n", b"red\n")
    builder.symlink("notes.txt", "link")
    builder.end()
    return str(builder.build())


def run(*words: str, **how: Any) -> Result:
    return CliRunner().invoke(cli, words, **how)


def test_diff_lists_changes_as_git_does(trace: str) -> None:
    """A letter and a path a line, what differs in attributes beside it; exit code 1."""
    result = run("diff", trace, "start", "@end")
    assert result.stdout.splitlines() == [
        "D  gone",
        "M  image",
        "R  src/ → lib/",
        "M  lib/a.c",
        "A  link",
        "M  notes.txt",
        "m  tool  (mode 0644 → 0755)",
        r"A  \xff\e[31m\n",
    ]
    assert (result.exit_code, result.stderr) == (1, "")


def test_diff_of_what_is_the_same(trace: str) -> None:
    """No output and exit code 0, as diff has it."""
    for words in (("half", "half"), ("start", "half", "gone"), ("end", "end", "--stat"), ("end", "end", "--json")):
        result = run("diff", trace, *words)
        assert (result.exit_code, result.output) == (0, "")


def test_a_patch_applies(trace: str, tmp_path: Path) -> None:
    """`diff --patch` in a pipe is what `patch` and `git apply` take, tabs and missing line ends included."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.c").write_bytes(b"int a;\n")
    (tmp_path / "notes.txt").write_bytes(b"one\n\ttwo\nthree\n")
    (tmp_path / "gone").write_bytes(b"last line without end")
    result = run("diff", trace, "start", "end", "notes.txt", "gone", "--patch")
    subprocess.run(["git", "apply", "-"], input=result.stdout_bytes, cwd=tmp_path, check=True)
    assert (tmp_path / "notes.txt").read_bytes() == b"one\n\tTWO\nthree\n"
    assert not (tmp_path / "gone").exists()
    result = run("diff", trace, "start", "end", "--patch")
    assert "not compared by lines: 3 → 5 bytes" in result.stdout
    assert "--- a/src/a.c\t@start\n+++ b/lib/a.c\t@end\n@@ -1 +1,2 @@\n int a;\n+int b;\n" in result.stdout


def test_diff_as_numbers(trace: str) -> None:
    """Totals in one line."""
    line = "2 added, 1 removed, 3 modified, 1 renamed, 1 attributes; -8 bytes\n"
    assert run("diff", trace, "start", "end", "--stat").stdout == line


def test_diff_as_json(trace: str) -> None:
    """An object a line, with both ends' attributes; names that are not UTF-8 survive."""
    found = [json.loads(line) for line in run("diff", trace, "start", "end", "--json").stdout.splitlines()]
    by_path = {change["path"].encode("utf-8", "surrogateescape"): change for change in found}
    assert by_path[b"lib"]["renamed_from"] == "src"
    assert by_path[b"lib/a.c"]["renamed_from"] == "src/a.c"
    assert by_path[b"link"]["after"]["target"] == "notes.txt"
    assert (by_path[b"tool"]["before"]["mode"], by_path[b"tool"]["after"]["mode"]) == ("100644", "100755")
    assert "before" not in by_path[b"\xff\x1b[31m\n"]


def test_diff_options_that_exclude_each_other(trace: str) -> None:
    """One way of showing at a time."""
    assert run("diff", trace, "start", "end", "--patch", "--json").exit_code == 2


def test_export_guesses_the_format_from_the_name(trace: str, tmp_path: Path) -> None:
    """`.tar` is an archive, anything else a directory; the closing line says what was made."""
    result = run("export", trace, "--time", "half", "--out", str(tmp_path / "half.tar"))
    assert result.stdout.startswith("7 entries, 63 B of @half exported to ")
    with tarfile.open(tmp_path / "half.tar") as archive:
        assert "lib/a.c" in archive.getnames()
    assert run("export", trace, "--time", "half", "--out", str(tmp_path / "half")).exit_code == 0
    assert sorted(os.listdir(tmp_path / "half")) == ["gone", "image", "lib", "notes.txt", "tool"]
    assert run("export", trace, "--time", "end", "--out", str(tmp_path / "c"), "--path", "*.c").exit_code == 0
    assert os.listdir(tmp_path / "c") == ["lib"]


def test_export_to_a_pipe(trace: str, tmp_path: Path) -> None:
    """`--out -` is the archive and nothing else on standard output; a reader that stops early is no error shown."""
    command = [sys.executable, "-m", "diffkeeper", "export", trace, "--time", "end", "--out", "-", "--format", "tar"]
    piped = subprocess.run(command, capture_output=True, check=True)
    assert run("export", trace, "--time", "end", "--out", str(tmp_path / "x.tar")).exit_code == 0
    assert piped.stdout == (tmp_path / "x.tar").read_bytes()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--time", "nope", "--out", "x"), 89, "no moment"),
        (("--time", "end", "--out", "."), 91, ". exists already"),
        (("--time", "end", "--out", "missing/x"), 91, "cannot write to missing"),
        (("--time", "end", "--out", "x", "--format", "zip"), 92, "there is no exporter 'zip'"),
        (("--time", "end", "--out", "x", "--opt", "suid=perhaps"), 92, "suid is true or false"),
        (("--time", "end", "--out", "x", "--opt", "suid"), 2, "not key=value"),
        (("--time", "end", "--out", "-", "--format", "dir"), 2, "cannot be written to standard output"),
        (("--time", "end", "--out", "x", "--path", "*.none"), 93, "nothing at *.none"),
        (("--out", "x"), 2, "--time"),
    ],
)
def test_export_says_what_is_wrong(
    trace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, message: str
) -> None:
    """One line, the error's own exit code, and nothing left behind."""
    monkeypatch.chdir(tmp_path)
    result = run("export", trace, *words)
    assert result.exit_code == code
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert os.listdir(tmp_path) == []


EXPORTERS = ["dir", "git", "html", "ndjson", "parquet", "perfetto", "tar", "tar.zst"]


def test_plugins_are_listed_with_their_options() -> None:
    """All in a table; of one, what it takes and the defaults; an unknown one is an error."""
    result = run("plugins")
    assert result.exit_code == 0
    assert [line.split()[:3] for line in result.stdout.splitlines() if not line.startswith(" ")] == [
        ["differ", "bsdiff4", "diffkeeper"],
        ["differ", "zstd", "diffkeeper"],
        *(["filter", name, "diffkeeper"] for name in ("gitignore", "glob", "op", "process", "size", "time")),
        *(["exporter", name, "diffkeeper"] for name in EXPORTERS),
    ]
    assert "\n    suid=False  devices=False  owners=None\n" in result.stdout
    assert "    suid=BOOL  default False" in run("plugins", "dir").stdout
    assert "    include=LIST  default ()" in run("plugins", "op").stdout
    assert run("plugins", "nothing").exit_code == 92


def test_a_broken_plugin_is_listed_with_its_error(tmp_path: Path) -> None:
    """The rest of the table is there all the same; the exit code says that something is broken."""
    info = tmp_path / "bad-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[diffkeeper.exporters]\nworse = not_there_at_all:Worse\n")
    result = subprocess.run(
        [sys.executable, "-m", "diffkeeper", "plugins"], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert result.returncode == 1
    assert "broken: cannot load the exporter 'worse': ModuleNotFoundError" in result.stdout
    assert "bsdiff4" in result.stdout
