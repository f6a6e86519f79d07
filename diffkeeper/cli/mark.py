"""`diffkeeper mark`: give the present moment of a running recording a name.

Owns only the command; setting a mark is `diffkeeper.mark`.
"""

from __future__ import annotations

import os

import click

import diffkeeper
from diffkeeper.cli.options import examples

LONGEST = 255
"""Bytes: a mark is set by a file's name."""


@click.command(epilog=examples("diffkeeper mark before-migration"))
@click.argument("name", metavar="NAME")
def mark(name: str) -> None:
    """Name this moment of the recording that runs now.

    To be called by the command that is recorded, or by anything it starts; elsewhere it does
    nothing. Afterwards the name is a moment: `@NAME` in a mount, `--since NAME`, `diff NAME end`.
    The same from any language: try to open the file /.diffkeeper/mark/NAME, and ignore that it
    is not there.
    """
    if not name or "/" in name or name in (".", "..") or len(os.fsencode(name)) > LONGEST:
        raise click.UsageError(f"a mark's name has 1 to {LONGEST} bytes and no slash, unlike {name!r}")
    diffkeeper.mark(name)
