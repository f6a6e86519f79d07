"""Exports that were stopped and may go on: what was made so far, and what it is a part of.

Owns the private directory beside a destination that outlives a stopped export, the description in it
of what it was to become, and the removal of such directories. What in it is whole, the exporter knows.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import DestinationError

if TYPE_CHECKING:
    from .exporting import Selection
    from .plugins import Exporter
    from .trace import Trace

WHAT, MADE = "what", "made"
"""What is in the directory of an export: the description, and the directory in which the destination is made."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def identity(exporter: Exporter, trace: Trace, selection: Selection) -> str:
    """Equal for two exports only if both make the same."""
    session, (name, options) = trace.session, exporter.given
    facts = [
        session.started, session.host, list(session.command), os.fsdecode(session.trace), session.events,
        selection.moment.seq, selection.first, [os.fsdecode(path) for path in selection.paths],
        [[filter_name, dict(given)] for filter_name, given in selection.filters], name, dict(options), os.geteuid(),
    ]  # fmt: skip
    return json.dumps(facts)


def take_up(destination: Path, what: str) -> Path:
    """The private directory for an export to `destination`: a new one, or that of an earlier attempt at `what`.

    After a restart of the machine the earlier attempt is worth nothing, as its last files may hold less than
    they seem to. Raises DestinationError where it was an attempt at something else, and OSError.
    """
    digest = hashlib.sha256(os.fsencode(destination.name)).hexdigest()[:16]
    private = destination.parent / f".diffkeeper-partial-{digest}"
    wanted = f"{_BOOT.read_text().strip()}\n{what}\n"
    try:
        os.mkdir(private, stat.S_IRWXU)
    except FileExistsError:
        found = _described(private)
        if found == wanted:
            return private
        if found and found.partition("\n")[2] != f"{what}\n":
            raise DestinationError(
                f"{private} holds a part of another export to {destination}; remove it, or export that one again"
            ) from None
        remove_tree(private)
        os.mkdir(private, stat.S_IRWXU)
    (private / (WHAT + ".new")).write_text(wanted)
    os.rename(private / (WHAT + ".new"), private / WHAT)
    return private


def _described(private: Path) -> str:
    """What stands in it; empty when it was not written yet. Only a directory that is ours alone is believed."""
    status = os.lstat(private)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise DestinationError(f"{private} is in the way, and was not made by an export; remove it")
    try:
        return (private / WHAT).read_text()
    except FileNotFoundError:
        return ""


def remove_tree(top: Path) -> None:
    """Remove a directory of our own and all in it, however deep, also where modes forbid its owner.

    One directory is open at a time: shutil.rmtree needs a descriptor for each level.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    os.chmod(top, stat.S_IRWXU)
    here = os.open(top, flags)
    path, left = [str(top)], [os.listdir(here)]
    try:
        while left:
            if left[-1]:
                name = left[-1].pop()
                try:
                    os.unlink(name, dir_fd=here)
                    continue
                except IsADirectoryError:
                    os.chmod(name, stat.S_IRWXU, dir_fd=here)
                inner = os.open(name, flags, dir_fd=here)
                path.append(name)
                left.append(os.listdir(inner))
            else:
                left.pop()
                inner = os.open("..", flags, dir_fd=here)
                os.rmdir(path.pop(), dir_fd=inner if left else None)
            os.close(here)
            here = inner
    finally:
        os.close(here)
