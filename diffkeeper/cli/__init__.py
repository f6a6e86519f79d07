"""The command line: the `diffkeeper` group, one module for each command, one place for errors.

Owns the list of commands and what a failure looks like: one line on standard error that begins
with "diffkeeper: ", and the error's own exit code. A command's module is imported when the command
runs, not before, so `--help` is quick and a broken import breaks one command only.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from diffkeeper import __version__
from diffkeeper.cli import process
from diffkeeper.errors import DiffKeeperError, PluginError
from diffkeeper.wording import printable

COMMANDS = {
    "record": "Run a command and record every file change it makes.",
    "timeline": "List what happened, in order.",
    "info": "Summarise a trace: how much, how well, what was missed.",
    "mount": "Mount a trace: every moment is a directory.",
    "umount": "Unmount a mounted trace.",
    "diff": "Show what changed between two moments.",
    "bisect": "Find the event that made a command fail.",
    "export": "Copy a moment, or what happened, out of a trace.",
    "repack": "Store a trace's patches anew, with another differ.",
    "check": "Verify every blob, chain and invariant of a trace.",
    "mark": "Name this moment of the recording that runs now.",
    "plugins": "List the plugins and where they come from.",
    "completion": "Print the completion script for a shell.",
}
"""Name to one-line summary, in the order of `--help`. The summary is the command's own (tested)."""


def fail(message: str, exit_code: int) -> NoReturn:
    """End the command with one line on standard error."""
    click.echo(f"diffkeeper: {printable(message)}", err=True)
    raise click.exceptions.Exit(exit_code)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn every expected exception into one line and its exit code, or into a quiet exit."""
    try:
        yield
    except DiffKeeperError as error:
        fail(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "diffkeeper"
        message = error.format_message().rstrip(".")
        fail(f"{message} (see '{command} --help')", error.exit_code)
    except BrokenPipeError as error:
        _discard_output()
        raise click.exceptions.Exit(128 + signal.SIGPIPE) from error
    except KeyboardInterrupt as error:
        raise click.exceptions.Exit(128 + signal.SIGINT) from error
    except MemoryError:
        fail("there is not enough memory for this", 1)
    except RuntimeError as error:
        if "new thread" not in str(error):
            raise
        fail("no thread can be started: the limit on processes is reached (ulimit -u, or pids.max of a container)", 1)
    except ImportError as error:
        fail(f"a part of DiffKeeper cannot be loaded: {error}; run 'make setup' again", PluginError.exit_code)
    except OSError as error:
        if error.filename is None:  # of a stream, ours most likely
            _discard_output()
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        fail(f"{where}{error.strerror or error}", 1)


def _discard_output() -> None:
    """Nobody reads any more, or there is no room. Python would try again when it flushes stdout at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)


class CommandGroup(click.Group):
    """A group that knows its commands by name and imports each when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"diffkeeper.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        with one_line_errors():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with one_line_errors():
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="diffkeeper")
def cli() -> None:
    """A flight recorder for files.

    Record every file change that a command makes, then look at any moment as a directory.
    """


def main() -> NoReturn:
    """The `diffkeeper` program. Ends the process with the command's exit code."""
    gc.set_threshold(100_000)  # almost nothing here lies in rings: looking for them took a tenth of the time
    try:
        cli.main(prog_name="diffkeeper", obj=process.begin())
    except SystemExit as ended:
        process.end(ended.code)
    raise AssertionError("click ends the process itself")
