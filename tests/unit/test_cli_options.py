"""The parameter types that commands share, and how an optional TRACE is told from what follows it."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from diffkeeper.cli import cli
from diffkeeper.cli.options import DEFAULT_TRACE, KEY_VALUE, OPS, PLUGIN_SPEC, split_trace, trace_argument
from diffkeeper.model import Op
from tests.builder import TraceBuilder


@given(st.sets(st.sampled_from(Op), min_size=1))
def test_operations_are_read_as_they_are_printed(ops: set[Op]) -> None:
    """Any set of labels, joined by commas, in any case, gives the operations."""
    assert OPS.convert(",".join(op.label.upper() for op in ops), None, None) == ops


def test_an_unknown_operation_is_answered_with_all_there_are() -> None:
    """The message is also the list to choose from."""
    with pytest.raises(click.BadParameter, match=r"'wrote'.*create, write, truncate"):
        OPS.convert("wrote", None, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("glob", ("glob", {})),
        ("glob:exclude=*.o", ("glob", {"exclude": "*.o"})),
        ("glob:exclude=*.o,*.pyc,include=a=b", ("glob", {"exclude": "*.o,*.pyc", "include": "a=b"})),
        (r"x:k=a\,b=c,l=", ("x", {"k": "a,b=c", "l": ""})),
    ],
)
def test_plugin_specifications(text: str, expected: tuple[str, dict[str, str]]) -> None:
    """NAME, NAME:k=v, lists without quoting, escaped commas, empty values."""
    assert PLUGIN_SPEC.convert(text, None, None) == expected


@pytest.mark.parametrize("text", ["", ":k=v", "x:", "x:novalue", "x:=v", "x:k=1,k=2"])
def test_misspelt_plugin_specifications(text: str) -> None:
    """What is not NAME[:k=v,...] is refused."""
    with pytest.raises(click.BadParameter):
        PLUGIN_SPEC.convert(text, None, None)


@given(st.text(min_size=1).filter(lambda key: "=" not in key), st.text())
def test_key_values_split_at_the_first_equals_sign(key: str, value: str) -> None:
    """A value may hold anything."""
    assert KEY_VALUE.convert(f"{key}={value}", None, None) == (key, value)


def test_the_trace_may_be_left_out_or_given_in_two_ways() -> None:
    """Argument, option, default; twice the same is fine, two different ones are not."""

    @click.command()
    @trace_argument
    def where(trace: Path) -> None:
        click.echo(trace)

    def told(*words: str) -> str:
        return CliRunner().invoke(where, words).stdout.strip()

    assert told() == str(DEFAULT_TRACE)
    assert told("a") == told("--state-dir=a") == told("--state-dir", "a") == told("a", "--state-dir=a") == "a"
    assert CliRunner().invoke(where, ["a", "--state-dir=b"]).exit_code == 2


def test_a_leading_trace_is_told_from_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`diff A B`, `diff TRACE A B`, `diff A B PATH`, and `--state-dir` with each."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t").mkdir()
    moments = ("A", "B")
    assert split_trace(None, ["1s", "2s"], moments) == (DEFAULT_TRACE, ["1s", "2s"])
    assert split_trace(None, ["t", "1s", "2s"], moments) == (Path("t"), ["1s", "2s"])
    assert split_trace(None, ["./u", "1s", "2s"], moments) == (Path("u"), ["1s", "2s"])
    assert split_trace(None, ["1s", "2s", "a/b"], moments) == (DEFAULT_TRACE, ["1s", "2s", "a/b"])
    assert split_trace(Path("u"), ["t", "2s"], moments) == (Path("u"), ["t", "2s"])
    with pytest.raises(click.UsageError, match="missing B"):
        split_trace(None, ["1s"], moments)


def test_a_leading_trace_before_a_fixed_number_of_words() -> None:
    """`mount TRACE MOUNTPOINT`: one word more is the trace, whether it is there or not."""
    one = ("MOUNTPOINT",)
    assert split_trace(None, ["m"], one, exact=True) == (DEFAULT_TRACE, ["m"])
    assert split_trace(None, ["nowhere", "m"], one, exact=True) == (Path("nowhere"), ["m"])
    assert split_trace(Path("u"), ["m"], one, exact=True) == (Path("u"), ["m"])
    for state_dir, words in ((None, ["t", "m", "n"]), (Path("u"), ["t", "m"]), (None, [])):
        with pytest.raises(click.UsageError):
            split_trace(state_dir, words, one, exact=True)


def test_every_command_that_takes_a_trace_takes_state_dir() -> None:
    """The option is the same everywhere."""
    for name in ("record", "timeline", "info", "mount", "diff", "export", "check"):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert any("--state-dir" in parameter.opts for parameter in command.params), name


def test_record_leaves_the_commands_own_options_alone() -> None:
    """Everything from the first word on is the command's, with or without `--`."""
    command = cli.get_command(click.Context(cli), "record")
    assert command is not None
    for words in (["-o", "t", "--", "ls", "--force", "-o"], ["-o", "t", "ls", "--force", "-o"]):
        context = command.make_context("record", words)
        assert context.params["command"] == ("ls", "--force", "-o")
        assert context.params["trace"] == Path("t")
        assert context.params["force"] is False


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        (["timeline", "TRACE", "--since"], ""),
        (["timeline", "--state-dir", "TRACE", "--since"], ""),
        (["bisect", "--state-dir", "TRACE", "--good"], ""),
        (["export", "TRACE", "--time"], "@"),
    ],
)
def test_moments_are_completed_from_the_trace_that_was_named(tmp_path: Path, words: list[str], typed: str) -> None:
    """Its marks as well, in whichever way the command takes a trace."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.begin()
    builder.mark("before-migration")
    builder.end()
    given = [str(builder.build()) if word == "TRACE" else word for word in words]
    found = ShellComplete(cli, {}, "diffkeeper", "_DIFFKEEPER_COMPLETE").get_completions(given, typed)
    assert [item.value for item in found] == [typed + name for name in ("start", "end", "before-migration")]
