"""How our process begins and ends: what the caller left it with, which a recorded command is to find again."""

from __future__ import annotations

import io
import os
import signal
import sys
from contextlib import suppress
from typing import NamedTuple, NoReturn

from diffkeeper.errors import Stopped


class Inherited(NamedTuple):
    """What we changed of what we were left with. `ignored`: signals; `closed`: standard streams, by number."""

    ignored: tuple[signal.Signals, ...]
    closed: tuple[int, ...]


def begin() -> Inherited:
    """Be a process that can wait for its children, and has standard streams."""
    closed = tuple(fd for fd in (0, 1, 2) if _was_closed(fd))
    # Where a caller ignores SIGCHLD the kernel reaps our children before we can.
    ignored = (signal.SIGCHLD,) if signal.signal(signal.SIGCHLD, signal.SIG_DFL) is signal.SIG_IGN else ()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a locale that lacks a letter of a path is no failure
    return Inherited(ignored, closed)


def _was_closed(fd: int) -> bool:
    """It leads nowhere now, or the next file that is opened would be taken for it. The lowest of them first."""
    try:
        os.fstat(fd)
    except OSError:
        os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        os.set_inheritable(fd, True)
        name = ("stdin", "stdout", "stderr")[fd]
        setattr(sys, name, open(fd, "w" if fd else "r", closefd=False, encoding="utf-8"))
        return True
    return False


def unwind_on_signals() -> None:
    """End as by an exception where a signal would end us at once, so that what was begun is put away."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup stays as it is
            signal.signal(number, _stop)


def _stop(number: int, frame: object) -> NoReturn:
    del frame
    raise Stopped(128 + number)


def end(code: object) -> NoReturn:
    """At once: to take apart all that was imported takes 30 ms, and it goes with the process. `code`: of sys.exit()."""
    status = code if isinstance(code, int) else int(code is not None)
    with suppress(OSError):
        if status and not isinstance(code, int):
            print(code, file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError as error:
            status = status or 1
            print(f"diffkeeper: {error.strerror}", file=sys.stderr)
        sys.stderr.flush()
    os._exit(status)
