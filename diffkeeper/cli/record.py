"""`diffkeeper record`: run a command and record what it does to files.

Owns the command line only; the recording itself is `diffkeeper.record.session`.
"""

from __future__ import annotations

from pathlib import Path

import click

from diffkeeper.cli.options import (
    DEFAULT_TRACE,
    PLUGIN_SPEC,
    TRACE_PATH,
    DurationType,
    FilterSpecs,
    examples,
    filter_option,
)
from diffkeeper.cli.process import Inherited
from diffkeeper.cli.ui import open_ui


@click.command(context_settings={"allow_interspersed_args": False}, epilog=examples(
    "diffkeeper record -- make test",
    "diffkeeper record --force -o trace -- pytest -x tests/test_flaky.py",
    "diffkeeper record --filter gitignore -- npm install",
))
@click.option(
    "-o", "--state-dir", "trace", type=TRACE_PATH, metavar="TRACE", default=DEFAULT_TRACE, show_default=True,
    help="Where to write the trace, a new directory.",
)
@click.option(
    "--root", "roots", type=click.Path(path_type=Path, readable=False), metavar="DIR", multiple=True,
    help="A directory to record completely, also what is in it before; may be repeated.  [default: .]",
)
@filter_option
@click.option(
    "--mmap-interval", type=DurationType(), metavar="TIME", default="100ms", show_default=True,
    help="How often to look for changes in files mapped into memory; off: only at msync, munmap, a mark and exit.",
)
@click.option("--wait-tree", is_flag=True, help="Record until all processes that CMD started have ended, not only CMD.")
@click.option(
    "--differ", type=PLUGIN_SPEC, metavar="NAME[:k=v,...]", default="auto", show_default=True,
    help="What stores a rewritten file as a patch: auto, raw (nothing), or a differ plugin.",
)
@click.option("--force", is_flag=True, help="Replace the trace if it exists.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD [ARG]...")
@click.pass_context
def record(
    ctx: click.Context,
    trace: Path,
    roots: tuple[Path, ...],
    filters: FilterSpecs,
    differ: tuple[str, dict[str, str]],
    mmap_interval: float,
    wait_tree: bool,
    force: bool,
    command: tuple[str, ...],
) -> None:
    """Run a command and record every file change it makes.

    Everything from CMD on is the command's own. It keeps standard input, output and the terminal,
    and gets SIGINT, SIGTERM and SIGHUP; the exit code is CMD's (128+N if signal N killed it).
    Needs root: under sudo, CMD runs as the user who called sudo, with the environment and umask
    that they have without it, and the trace is theirs.
    """
    from diffkeeper.record.kernel import Loading

    found: Inherited | None = ctx.obj  # none where the program is called in another way
    ui = open_ui()
    loading = Loading(ui)  # while the following is imported
    from diffkeeper.record.session import record as record_command
    from diffkeeper.store.differing import Choice

    status = record_command(
        command,
        trace=trace,
        roots=roots or (Path.cwd(),),
        filters=filters,
        differ=Choice(*differ),
        mmap_interval=mmap_interval,
        wait_tree=wait_tree,
        force=force,
        ignored=found.ignored if found else (),
        closed=found.closed if found else (),
        ui=ui,
        loading=loading,
    )
    ctx.exit(status)
