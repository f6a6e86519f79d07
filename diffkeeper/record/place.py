"""The directory of a trace that is being recorded: made, and given to whoever it belongs to.

What is kept of a trace that stood there before belongs to `earlier`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ..errors import TraceExistsError
from ..journal import JOURNAL, is_written
from ..store.session import FACTS_FILE
from . import earlier
from .caller import User


def make(trace: Path, user: User, *, force: bool) -> None:
    """An empty directory that is the user's alone. `force`: an older trace gives way, unless somebody records it still.

    Raises TraceExistsError where something else is, and where there can be no directory.
    """
    if is_written(trace / JOURNAL, unknown=False):
        raise TraceExistsError(f"{trace} is still being recorded: wait for that to end, or use -o for another place")
    if trace.is_symlink() or trace.exists():
        is_trace = (trace / FACTS_FILE).is_file()
        is_empty = trace.is_dir() and not any(trace.iterdir())
        if not is_empty and not (force and is_trace):
            hint = "use --force to replace it, or -o for another place" if is_trace else "choose another place with -o"
            raise TraceExistsError(f"{trace} exists already and was kept: {hint}")
        if not is_empty:
            earlier.put_aside(trace)
    try:
        trace.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise TraceExistsError(f"{trace} cannot be made: {error.strerror}") from error
    trace.chmod(0o700)
    with suppress(OSError), open(trace / ".gitignore", "x", opener=_private) as file:
        file.write("*\n")  # the command may ask git whether its tree is clean, or add all of it
    os.chown(trace, user.uid, user.gid)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def give(trace: Path, user: User) -> None:
    """All that is in it to the user who called sudo: early on, for it is theirs also when we are killed."""
    if not user.is_caller:
        for path in (trace, *trace.rglob("*")):
            with suppress(FileNotFoundError):
                os.chown(path, user.uid, user.gid, follow_symlinks=False)
