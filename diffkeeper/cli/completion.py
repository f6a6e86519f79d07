"""`diffkeeper completion`: the script that teaches a shell to complete our command lines.

Owns only the command; the scripts are click's, which asks the program itself for completions.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from diffkeeper.cli.options import examples

SHELLS = ("bash", "zsh", "fish")


@click.command(epilog=examples('eval "$(diffkeeper completion bash)"'))
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    For bash put this line into ~/.bashrc, for zsh the like into ~/.zshrc:

        eval "$(diffkeeper completion bash)"

    For fish: diffkeeper completion fish > ~/.config/fish/completions/diffkeeper.fish
    """
    script = get_completion_class(shell)
    assert script is not None, shell
    click.echo(script(ctx.find_root().command, {}, "diffkeeper", "_DIFFKEEPER_COMPLETE").source())
