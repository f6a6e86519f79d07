"""Every error DiffKeeper raises on purpose, each with the exit code it ends a command with.

A message says what failed, where, and what to do next, in one line. This module does not print;
`diffkeeper.cli` catches `DiffKeeperError` in one place. Codes 126 and 127 are the shell's own
for a command that could not be started.
"""

from __future__ import annotations


class DiffKeeperError(Exception):
    """Base of everything raised on purpose; `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(DiffKeeperError):
    """Options that do not fit together or are misspelt."""

    exit_code = 2


class NotPermittedError(DiffKeeperError):
    """Recording needs root (or CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE) and does not have it."""

    exit_code = 77


class KernelTooOldError(DiffKeeperError):
    """The kernel is older than 5.8, the first with a BPF ring buffer."""

    exit_code = 80


class NoBtfError(DiffKeeperError):
    """The kernel does not describe its own types in /sys/kernel/btf/vmlinux."""

    exit_code = 81


class NoBccError(DiffKeeperError):
    """The system's bcc cannot be imported, or its compiler failed."""

    exit_code = 82


class NoFuseError(DiffKeeperError):
    """/dev/fuse or fusermount3 is missing."""

    exit_code = 83


class TraceExistsError(DiffKeeperError):
    """`record` would overwrite something that is there."""

    exit_code = 84


class TraceMissingError(DiffKeeperError):
    """There is nothing at the path given for the trace."""

    exit_code = 85


class NotATraceError(DiffKeeperError):
    """What is there is not a trace."""

    exit_code = 86


class TraceTooNewError(DiffKeeperError):
    """The trace was made by a newer DiffKeeper than this one."""

    exit_code = 87


class TraceDamagedError(DiffKeeperError):
    """The trace's bytes contradict themselves. The only error that decoders raise."""

    exit_code = 88


class MomentError(DiffKeeperError):
    """A moment that is misspelt, unknown or out of range."""

    exit_code = 89


class MountpointError(DiffKeeperError):
    """A mountpoint that is missing, busy, not empty, or overlaps the trace or its roots."""

    exit_code = 90


class DestinationError(DiffKeeperError):
    """An export destination that exists or cannot be written."""

    exit_code = 91


class PluginError(DiffKeeperError):
    """A plugin that is unknown, broken, named twice, or was given options it does not take."""

    exit_code = 92


class PathError(DiffKeeperError):
    """A path that does not exist at the moment asked for, or is not of the kind needed."""

    exit_code = 93


class CommandNotExecutableError(DiffKeeperError):
    """The command to record is there but cannot be executed."""

    exit_code = 126


class CommandNotFoundError(DiffKeeperError):
    """The command to record does not exist."""

    exit_code = 127


class Stopped(SystemExit):
    """A signal ends the program, whatever it is at: nobody may take this for a plugin's own sys.exit()."""
