"""The group: help without imports, one line for every error, a broken command that breaks only itself."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import diffkeeper as package
from diffkeeper import errors
from diffkeeper.cli import COMMANDS, CommandGroup, cli, one_line_errors

HEAVY = {
    "bcc", "blake3", "bsdiff4", "lmdb", "numpy", "pyfuse3", "rich", "stevedore", "trio", "xxhash",
    "zstandard",
}  # fmt: skip


def diffkeeper(*args: str, **how: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "diffkeeper", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **how)


def test_every_command_has_the_summary_that_help_shows() -> None:
    """The table that `--help` prints without importing says what the commands say themselves."""
    for name, summary in COMMANDS.items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, name
        assert command.name == name
        assert command.help is not None, name
        assert command.help.split("\n\n")[0].replace("\n", " ") == summary


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_that_it_takes(name: str) -> None:
    """What its help ends with can be typed as it stands there: it is this command, with arguments that it knows."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    told = CliRunner().invoke(cli, [name, "--help"]).output.partition("Examples:\n")[2]
    lines = re.findall(r"diffkeeper (.*?)(?: \||\)?\"$| && |$)", told, re.MULTILINE)
    assert lines, told
    for line in lines:
        words = shlex.split(line)
        assert words[0] == name
        command.make_context(name, words[1:])


def test_help_lists_all_commands_and_imports_nothing_heavy() -> None:
    """`diffkeeper --help` answers at once, also where LMDB or FUSE could not be imported."""
    code = "import sys; from diffkeeper.cli import cli; cli(['--help'], standalone_mode=False); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    help_text, _, modules = run.stdout.rstrip("\n").rpartition("\n")
    for name, summary in COMMANDS.items():
        assert name in help_text
        assert summary in help_text
    assert not HEAVY & set(modules.split())


def test_a_broken_import_breaks_only_its_own_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that cannot be imported says so in one line; help and the others go on."""
    monkeypatch.setitem(COMMANDS, "broken", "Is not there.")
    broken = CliRunner().invoke(cli, ["broken"])
    assert broken.exit_code == errors.PluginError.exit_code
    assert broken.stderr.startswith("diffkeeper: a part of DiffKeeper cannot be loaded: ")
    assert "diffkeeper.cli.broken" in broken.stderr
    assert len(broken.stderr.splitlines()) == 1
    assert CliRunner().invoke(cli, ["--help"]).exit_code == 0
    assert CliRunner().invoke(cli, ["completion", "fish"]).exit_code == 0


@pytest.mark.parametrize("words", [["nonsense"], ["--nonsense"], ["timeline", "--nonsense"], ["record"], ["mark"]])
def test_a_misspelt_command_line_is_one_line_and_exit_code_2(words: list[str]) -> None:
    """No usage block, no traceback: one line that names the help to read."""
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2
    assert result.stderr.startswith("diffkeeper: ")
    assert "--help'" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def _all_errors() -> list[type[errors.DiffKeeperError]]:
    found, queue = [], [errors.DiffKeeperError]
    while queue:
        found.append(queue.pop())
        queue.extend(found[-1].__subclasses__())
    return found


@pytest.mark.parametrize("error", _all_errors())
def test_an_expected_error_is_one_line_and_its_own_exit_code(error: type[errors.DiffKeeperError]) -> None:
    """Whatever a command raises on purpose ends in the error's exit code."""
    group = CommandGroup("diffkeeper")
    group.get_command = lambda ctx, cmd_name: fails  # type: ignore[method-assign]  # whatever is asked for

    @click.command()
    def fails() -> None:
        raise error("a thing failed; do this")

    result = CliRunner().invoke(group, ["fails"])
    assert result.exit_code == error.exit_code
    assert result.stderr == "diffkeeper: a thing failed; do this\n"


def test_errors_have_distinct_exit_codes() -> None:
    """Each kind of trouble can be told by the exit code alone."""
    codes = [error.exit_code for error in _all_errors() if "exit_code" in vars(error)]
    assert len(codes) == len(set(codes))


def test_an_operating_system_error_names_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    """ENOSPC and its like are one line with the path, exit code 1."""
    with pytest.raises(click.exceptions.Exit) as caught, one_line_errors():
        raise OSError(28, "No space left on device", b"/mnt/full\xff\n")
    assert caught.value.exit_code == 1
    assert capsys.readouterr().err == "diffkeeper: /mnt/full\\xff\\n: No space left on device\n"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
def test_what_the_caller_has_too_little_of_is_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    """Memory and processes are limited by the caller, so no traceback of ours explains more."""
    with pytest.raises(click.exceptions.Exit) as caught, one_line_errors():
        raise error
    assert caught.value.exit_code == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_interrupt_ends_with_130() -> None:
    """Ctrl-C prints nothing and ends as a shell expects."""
    with pytest.raises(click.exceptions.Exit) as caught, one_line_errors():
        raise KeyboardInterrupt
    assert caught.value.exit_code == 130


@pytest.mark.parametrize("words", [["completion", "zsh"], ["--help"]])
def test_a_reader_that_goes_away_is_no_error(words: list[str]) -> None:
    """`diffkeeper ... | head` ends quietly."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe:
        result = subprocess.run(
            [sys.executable, "-m", "diffkeeper", *words], stdout=pipe, stderr=subprocess.PIPE, check=False
        )
    assert result.returncode == 141
    assert result.stderr == b""


def test_a_locale_that_lacks_letters_is_no_error() -> None:
    """Output goes on in ASCII escapes where the locale cannot show a letter."""
    result = diffkeeper("nonsense-→", env={**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"})
    assert result.returncode == 2
    assert result.stderr.startswith("diffkeeper: ")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_that_asks_the_program(shell: str) -> None:
    """The script calls `diffkeeper` with the variable the program reacts to."""
    result = CliRunner().invoke(cli, ["completion", shell])
    assert result.exit_code == 0
    assert f"_DIFFKEEPER_COMPLETE={shell}_complete" in result.stdout


def test_the_program_answers_the_completion_script() -> None:
    """Commands complete as the scripts ask for them."""
    asks = {"_DIFFKEEPER_COMPLETE": "bash_complete", "COMP_WORDS": "diffkeeper ti", "COMP_CWORD": "1"}
    result = diffkeeper(env={**os.environ, **asks})
    assert result.stdout.split() == ["plain,timeline"]


def test_version_is_the_packages() -> None:
    """`--version` tells what `diffkeeper.__version__` tells."""
    result = CliRunner().invoke(cli, ["--version"])
    assert result.stdout.strip().endswith(package.__version__)


@pytest.mark.parametrize("command", ["timeline", "info", "check"])
def test_a_trace_that_is_not_there_has_its_own_exit_code(command: str, tmp_path: Path) -> None:
    """A missing trace and a directory that is no trace are told apart, as argument and as option."""
    missing = CliRunner().invoke(cli, [command, str(tmp_path / "none")])
    assert missing.exit_code == errors.TraceMissingError.exit_code
    other = CliRunner().invoke(cli, [command, f"--state-dir={tmp_path}"])
    assert other.exit_code == errors.NotATraceError.exit_code
    assert len((missing.stderr + other.stderr).splitlines()) == 2


@pytest.mark.parametrize("words", [["--help"], ["plugins"], ["completion", "bash"]])
def test_an_output_that_cannot_be_written(words: list[str]) -> None:
    """Where the disk is full a command fails, and says why in one line."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "diffkeeper", *words]
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert (run.returncode, run.stderr) == (1, "diffkeeper: No space left on device\n")


@pytest.mark.parametrize(("code", "status", "said"), [("", 0, ""), ("7", 7, ""), ("'why'", 1, "why\n")])
def test_a_command_that_ends_by_itself(code: str, status: int, said: str) -> None:
    """As sys.exit() has it, wherever it was called: in a plugin, for one."""
    script = f"import sys\nfrom diffkeeper import cli\ncli.cli.main = lambda **_: sys.exit({code})\ncli.main()"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (run.returncode, run.stderr) == (status, said)


def test_no_standard_streams() -> None:
    """A command does without them, and its exit code says how it went."""
    for words, code in ((["plugins"], 0), (["info", "/nowhere"], errors.TraceMissingError.exit_code)):
        command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-m", "diffkeeper", *words]
        assert subprocess.run(command, check=False, timeout=60).returncode == code, words
