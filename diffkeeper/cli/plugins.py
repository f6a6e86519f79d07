"""`diffkeeper plugins`: what is installed, where it comes from, and what is broken.

Owns the listing only; finding plugins is `diffkeeper.plugins`.
"""

from __future__ import annotations

import sys

import click

from diffkeeper.cli.options import examples
from diffkeeper.cli.ui import use_colour
from diffkeeper.errors import PluginError
from diffkeeper.plugins import Option, PluginInfo, available
from diffkeeper.wording import printable


@click.command(epilog=examples(
    "diffkeeper plugins",
    "diffkeeper plugins glob",
))
@click.argument("name", required=False)
@click.pass_context
def plugins(ctx: click.Context, name: str | None) -> None:
    """List the plugins and where they come from.

    Below each its options with their defaults; with NAME, only those of that name, and what types the
    options have. A broken plugin is listed with its error; the exit code is 1 if there is one.
    """
    found = [info for info in available() if name in (None, info.name)]
    if name is not None and not found:
        raise PluginError(f"there is no plugin {name!r}; 'diffkeeper plugins' lists those there are")
    rows = [(info.kind, info.name, f"{info.distribution} {info.version}") for info in found]
    widths = [max(len(row[column]) for row in rows) for column in range(3)] if rows else []
    for info, row in zip(found, rows, strict=True):
        columns = "  ".join(printable(word).ljust(width) for word, width in zip(row, widths, strict=True))
        click.echo(f"{columns}  {_remark(info)}".rstrip())
        if name is None and info.options:
            click.echo("    " + printable("  ".join(_short(option) for option in info.options)))
        for option in info.options if name is not None else ():
            default = "must be given" if option.default is None else f"default {option.default}"
            click.echo(printable(f"    {option.name}={option.type.upper()}  {default}"))
    if any(info.error for info in found):
        ctx.exit(1)


def _short(option: Option) -> str:
    return f"{option.name} (must be given)" if option.default is None else f"{option.name}={option.default}"


def _remark(info: PluginInfo) -> str:
    if info.error is None:
        return printable(info.summary)
    text = f"broken: {printable(info.error)}"
    return click.style(text, fg="red") if use_colour(sys.stdout) else text
