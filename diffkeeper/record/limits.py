"""Resource limits: those that we were given are the command's, and end no recording.

Owns which of them could end a recorder or its indexer, and that these are lifted when a recording begins, or as high as
they may be where we have no privilege. The command finds each as it was (setrlimit(2)).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from resource import (
    RLIM_INFINITY,
    RLIMIT_AS,
    RLIMIT_CPU,
    RLIMIT_DATA,
    RLIMIT_FSIZE,
    RLIMIT_MEMLOCK,
    RLIMIT_NOFILE,
    RLIMIT_NPROC,
    getrlimit,
    prlimit,
    setrlimit,
)

from ..errors import NotPermittedError

Limits = Mapping[int, tuple[int, int]]
"""RLIMIT_... -> soft and hard limit."""

FILES = 1 << 20
"""Descriptors that anybody may have, unless fs.nr_open was set."""

_LIFTED = (
    RLIMIT_AS,
    RLIMIT_CPU,
    RLIMIT_DATA,
    RLIMIT_FSIZE,  # of the journal's segments, and of the index
    RLIMIT_MEMLOCK,  # before Linux 5.11 maps and programs count; bcc lifts it as well, and leaves it so
    RLIMIT_NOFILE,
    RLIMIT_NPROC,  # of the trace's owner, whom the indexer becomes
)

_NEEDED = {
    RLIMIT_CPU: (60, "seconds of processor time", "t"),  # the kernel kills who reaches the hard limit
    RLIMIT_AS: (10 << 30, "address space", "v"),  # the index is mapped: 8 GiB where more cannot be
    RLIMIT_DATA: (1 << 30, "data", "d"),
    RLIMIT_NOFILE: (128, "open files", "n"),  # one for each map and each program, and some ten
}
"""With less there is no recording: seconds, bytes or files, what they are, and how ulimit calls it."""


def lift() -> Limits:
    """Raise ours; returns those that there were. NotPermittedError where we may not, and there is too little of one."""
    given = {number: getrlimit(number) for number in _LIFTED}
    for number, (_, hard) in given.items():
        wanted = FILES if number == RLIMIT_NOFILE else RLIM_INFINITY
        for value in (wanted, hard):  # the second needs no privilege
            with suppress(OSError, ValueError):
                setrlimit(number, (value, value))
                break
    for number, (least, what, letter) in _NEEDED.items():
        if 0 <= (soft := getrlimit(number)[0]) < least:
            raise NotPermittedError(
                f"the limit on {what} is {soft:,} (ulimit -{letter}): recording needs {least:,} and may not raise it"
            )
    return given


def of(pid: int) -> Limits:
    """Those of another process. OSError."""
    return {number: prlimit(pid, number) for number in _LIFTED}


def restore(limits: Limits) -> None:
    """Take them on for good. No privilege is needed: ours are higher."""
    for number, pair in limits.items():
        with suppress(OSError, ValueError):
            setrlimit(number, pair)
