"""What several commands take: the trace, moments, operations, plugin options.

Owns the parameter types and the decorators that give every command the same spelling. It does not
open traces or resolve moments: a moment needs a trace, and `Trace.moment` does that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from diffkeeper.errors import DiffKeeperError
from diffkeeper.model import Op
from diffkeeper.view.moments import duration

DEFAULT_TRACE = Path("diffkeeper-trace")

_Command = TypeVar("_Command", bound=Callable[..., Any])


class MomentType(click.ParamType[str]):
    """A moment as typed, e.g. `2m14s`, `@end`, `e1234`; stays text until a trace resolves it."""

    name = "moment"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        del ctx
        return "M" if isinstance(param, click.Option) else None

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """start, end and the marks of the trace that the command line names so far."""
        del param
        names = ["start", "end"]
        named = (ctx.params.get(name) for name in ("state_dir", "trace_word", "trace"))
        # While an option lacks its value, click has given no argument its name yet.
        given = next(filter(None, (*named, *ctx.args)), DEFAULT_TRACE)
        try:
            import diffkeeper

            with diffkeeper.open(Path(given)) as trace:
                names += [mark.name for mark in trace.marks()]
        except (DiffKeeperError, OSError):
            pass  # completion must stay silent: the command itself will say what is wrong
        at = "@" if incomplete.startswith("@") else ""
        return [CompletionItem(at + name) for name in names if (at + name).startswith(incomplete)]


class OpsType(click.ParamType[frozenset[Op]]):
    """One operation, or several with commas between: `write`, `rename,unlink`."""

    name = "op"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> frozenset[Op]:
        if isinstance(value, frozenset):
            return value
        labels = {op.label: op for op in Op}
        words = [word.strip().lower() for word in str(value).split(",")]
        for word in words:
            if word not in labels:
                self.fail(f"there is no operation {word!r}; there are {', '.join(labels)}", param, ctx)
        return frozenset(labels[word] for word in words)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        del ctx, param
        head, comma, last = incomplete.rpartition(",")
        return [CompletionItem(head + comma + op.label) for op in Op if op.label.startswith(last.lower())]


class DurationType(click.ParamType[float]):
    """A span of time such as `100ms` or `2s`; `off` is none. Becomes seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        if value in ("off", "0"):
            return 0.0
        found = duration(str(value))
        if found is None:
            self.fail(f"{value!r} is no span of time: write 100ms, 2s or off", param, ctx)
        return found / 1e9


class KeyValueType(click.ParamType[tuple[str, str]]):
    """`key=value`, for `--opt`; the value may hold anything, also `=`."""

    name = "key=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, rest = str(value).partition("=")
        if not equals or not key:
            self.fail(f"{value!r} is not key=value", param, ctx)
        return key, rest


class PluginSpecType(click.ParamType[tuple[str, dict[str, str]]]):
    r"""`NAME` or `NAME:key=value,key=value`.

    A word without `=` goes on with the value before it, so lists need no quoting:
    `glob:exclude=*.o,*.pyc`. A comma before a word that does hold `=` is written `\,` there.
    """

    name = "plugin"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, dict[str, str]]:
        if isinstance(value, tuple):
            return value
        name, colon, rest = str(value).partition(":")
        if not name:
            self.fail(f"{value!r} does not begin with the name of a plugin", param, ctx)
        options: dict[str, str] = {}
        key = ""
        for word in rest.replace(r"\,", "\0").split(",") if colon else ():
            start, equals, text = word.partition("=")
            if not key and not equals:
                self.fail(f"in {value!r}: {word!r} is not key=value", param, ctx)
            if not equals:
                options[key] += "," + word
                continue
            key = start
            if key in options or not key:
                self.fail(f"in {value!r}: {word!r} has no key, or one that was given before", param, ctx)
            options[key] = text
        options = {key: text.replace("\0", ",") for key, text in options.items()}
        return name, options


MOMENT = MomentType()
OPS = OpsType()
KEY_VALUE = KeyValueType()
PLUGIN_SPEC = PluginSpecType()
FilterSpecs = tuple[tuple[str, dict[str, str]], ...]
"""What `filter_option` gives a command."""
TRACE_PATH = click.Path(path_type=Path, readable=False)
"""No existence check: `diffkeeper.open` says more precisely what is wrong with a trace."""


def examples(*lines: str) -> str:
    """What a command's help ends with: ways to call it, as they are typed."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


def state_dir_option(command: _Command) -> _Command:
    """`--state-dir=TRACE`; the command gets `state_dir: Path | None`."""
    return click.option(
        "--state-dir",
        type=TRACE_PATH,
        metavar="TRACE",
        help=f"The trace, as an option instead of an argument.  [default: {DEFAULT_TRACE}]",
    )(command)


def filter_option(command: _Command) -> _Command:
    """`--filter NAME[:k=v,...]`, any number of them; the command gets `filters: FilterSpecs`."""
    return click.option(
        "--filter", "filters", type=PLUGIN_SPEC, metavar="NAME[:k=v,...]", multiple=True,
        help="Leave out what this filter plugin rejects; may be repeated.",
    )(command)  # fmt: skip


def trace_argument(command: _Command) -> Callable[..., Any]:
    """`[TRACE]` and `--state-dir=TRACE`; the command gets one `trace: Path`.

    For commands whose only positional argument is the trace; others take their words with
    `nargs=-1`, `state_dir_option`, and `split_trace`.
    """

    @functools.wraps(command)
    def with_trace(*args: Any, trace_word: Path | None, state_dir: Path | None, **kwargs: Any) -> Any:
        if trace_word is not None and state_dir is not None and trace_word != state_dir:
            raise click.UsageError(f"two traces: {trace_word} and --state-dir={state_dir}; give one")
        return command(*args, trace=trace_word or state_dir or DEFAULT_TRACE, **kwargs)

    return click.argument("trace_word", metavar="[TRACE]", required=False, type=TRACE_PATH)(
        state_dir_option(with_trace)
    )


def split_trace(
    state_dir: Path | None, words: Sequence[str], following: Sequence[str], *, exact: bool = False
) -> tuple[Path, list[str]]:
    """Tell an optional leading TRACE from the words that must follow it.

    `following` names those words for the message, e.g. `("A", "B")`; with `exact` there may be no
    others, and one word more is the trace. Without it the first of more words is the trace when it
    names a directory or holds a slash; so `diff A B PATH` works. Raises click.UsageError when
    there are too few words or too many.
    """
    if len(words) < len(following):
        raise click.UsageError(f"missing {' and '.join(following[len(words):])}")
    more = len(words) - len(following)
    if state_dir is None and more and ((exact and more == 1) or "/" in words[0] or Path(words[0]).is_dir()):
        state_dir, words = Path(words[0]), words[1:]
    if exact and len(words) != len(following):
        raise click.UsageError(f"expected {' '.join(following)}, and got {len(words)} arguments")
    return state_dir or DEFAULT_TRACE, list(words)
