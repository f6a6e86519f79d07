"""The command and the processes that look after it: starting it held, and never leaving it stopped.

Owns fork/exec of the command (as whoever called us, its terminal and descriptors its own),
and the guardians: processes that outlive a killed recorder just long enough to continue what was
stopped. Knows nothing of BPF beyond a few callables.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import stat
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from ..errors import CommandNotExecutableError, CommandNotFoundError
from . import limits
from .caller import Caller, become

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that a recorder passes on to the command."""

PR_SET_PDEATHSIG = 1  # after `become`, which clears it
_libc = ctypes.CDLL(None)
_RESTORED = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores these; a command expects the default


def find_command(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """The file that execvpe would run. CommandNotFoundError, CommandNotExecutableError as a shell has them."""
    name = command[0]
    directories = os.get_exec_path(environment)
    if found := shutil.which(name, path=os.pathsep.join(directories)):
        return found
    candidates = [Path(name)] if "/" in name else [Path(d, name) for d in directories]
    for path in candidates:
        try:
            mode = path.stat().st_mode
        except OSError:
            continue
        if "/" in name or not stat.S_ISDIR(mode):
            reason = "is a directory" if stat.S_ISDIR(mode) else "is not executable: try 'chmod +x'"
            raise CommandNotExecutableError(f"{path} {reason}")
    raise CommandNotFoundError(f"{name}: command not found")


class Child:
    """The command, forked but held before its exec until `release()`."""

    def __init__(
        self, command: Sequence[str], caller: Caller, blocked: Iterable[int], *, ignored: Iterable[signal.Signals] = (),
        closed: Iterable[int] = (),
    ) -> None:  # fmt: skip
        """`blocked`, `ignored`: signals as the command finds them, `closed`: its standard streams that are; all as they
        were left to the recorder.
        """
        hold, self._go = os.pipe()
        report, failed = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.close(self._go)
                os.close(report)
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
                for number in (*HANDLED, *_RESTORED):
                    if number in _RESTORED or signal.getsignal(number) is not signal.SIG_IGN:
                        signal.signal(number, signal.SIG_DFL)
                for number in ignored:
                    signal.signal(number, signal.SIG_IGN)
                if not os.read(hold, 1):
                    os._exit(125)  # the recorder died before the command began
                os.close(hold)
                become(caller.user)
                if caller.umask is not None:
                    os.umask(caller.umask)
                # Should nobody be left to continue what a dead recorder had stopped, the kernel continues the command.
                _libc.prctl(PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)
                for fd in closed:
                    os.close(fd)
                limits.restore(caller.limits)  # at the last: we may have more memory than they leave
                os.execvpe(command[0], list(command), caller.environment)
            except OSError as error:
                os.write(failed, str(error.errno or 1).encode())
            except MemoryError:
                os.write(failed, str(int(errno.ENOMEM)).encode())
            finally:
                os._exit(127)
        os.close(hold)
        os.close(failed)
        self._report = report
        self.pidfd = os.pidfd_open(self.pid)
        self.status: int | None = None

    def release(self) -> None:
        """Let the command begin."""
        os.write(self._go, b"x")
        os.close(self._go)

    def exec_error(self) -> int:
        """errno of an exec that failed, 0 when it went well; waits until either is known."""
        text = os.read(self._report, 16)
        os.close(self._report)
        return int(text) if text else 0

    def poll(self) -> int | None:
        """Wait status once the command has ended."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = status
        return self.status

    def send(self, number: int) -> None:
        """Pass a signal on; a command that has ended does not mind."""
        if self.status is None:
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:
                return


def state(pid: int) -> str:
    """A process's state as /proc shows it: T is stopped by a signal, Z a zombie; X when there is none."""
    try:
        return _status(pid)[0]
    except OSError:
        return "X"


def _status(pid: int) -> list[str]:
    """What /proc/PID/stat says after the name, which may hold anything: state, parent, ... (proc(5)). OSError."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def resume(pids: Iterable[int]) -> None:
    """SIGCONT to each; those that are gone are passed over."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            continue


def stop(pids: Iterable[int]) -> None:
    """SIGSTOP to each; those that are gone are passed over."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)


def reap(ours: Container[int]) -> None:
    """What the first process of a container is there for: orphans are its children, and who waits for the end of one
    looks whether it is still there. `ours`: children that are waited for in other ways.
    """
    while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid not in ours:
        os.waitpid(ended.si_pid, 0)


def _is_orphaned() -> bool:
    """Whether no one in our process group, from us upwards, has a parent in another group of the same session."""
    pid, group, session = os.getpid(), os.getpgrp(), os.getsid(0)
    while pid > 1:
        try:
            if os.getpgid(pid) != group:
                return os.getsid(pid) != session
            pid = int(_status(pid)[1])
        except OSError:
            break
    return True


class Guardian:
    """Processes that do nothing until the recorder is gone, then continue everything it had stopped.

    Two, for each may be killed along with the recorder. Where we are a job of a shell, the second one is in our process
    group, as a child of the first, which is not: so that group does not become an orphan, whoever else ends. The kernel
    would send SIGHUP to all of it if a process in it is stopped just then (setpgid(2)), the command among them. Where
    it is an orphan already nothing is sent; and no guardian must be in it, whose end would make it one anew.
    """

    COUNT = 2
    UNMINDED = (*HANDLED, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
    SWEEPS, PAUSE = 10, 0.02  # a task may be stopped a moment after the first look

    def __init__(
        self, detach: Callable[[], None], disable: Callable[[], None], stopped: Callable[[], Iterable[int]]
    ) -> None:
        """All run in the guardians. `detach`: let nobody be stopped on our account, and hold on to nothing else of the
        recorder's; `disable`: stop no one any more; `stopped`: who is.
        """
        watched, self._held = os.pipe()
        placed, tell = os.pipe()
        group = 0 if _is_orphaned() else os.getpgrp()
        self.pid = os.fork()
        if not self.pid:
            os.close(placed)
            self._serve(group, watched, tell, detach, disable, stopped)
        os.close(watched)
        os.close(tell)
        os.read(placed, 1)  # to its end: both are in their groups, or gone; nobody is stopped before
        os.close(placed)

    def _serve(
        self, group: int, watched: int, tell: int, detach: Callable[[], None], disable: Callable[[], None],
        stopped: Callable[[], Iterable[int]],
    ) -> NoReturn:  # fmt: skip
        second = 0
        try:
            os.close(self._held)
            if group:
                os.setpgid(0, 0)
            else:
                os.setsid()
            second = os.fork()
            if group and not second:
                os.setpgid(0, group)
            os.close(tell)
            _go_by("dk-guardian")
            for number in self.UNMINDED:
                signal.signal(number, signal.SIG_IGN)
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)  # a pipe that the recorder's reader waits on must not stay open for us
            detach()
            if not os.read(watched, 1):
                disable()
                for _ in range(self.SWEEPS):
                    resume(stopped())
                    time.sleep(self.PAUSE)
            if second:
                os.waitpid(second, 0)
        finally:
            os._exit(0)

    def dismiss(self) -> None:
        """The recording ended as it should. What is to be waited for is `gone`."""
        with suppress(BrokenPipeError):  # they were killed: nobody else may suffer for it
            os.write(self._held, b"x" * self.COUNT)
        os.close(self._held)

    def gone(self) -> None:
        """Return when they have ended."""
        os.waitpid(self.pid, 0)


def _go_by(name: str) -> None:
    """Take a name of our own, so that neither who kills all that are called like the recorder meets us, by name or
    by command line, nor who looks for memory.
    """
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name)
        begin, end = map(int, _status(os.getpid())[45:47])
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(begin)
            memory.write(name.encode()[: end - begin - 1].ljust(end - begin, b"\0"))
    with suppress(OSError):  # not even root may in some containers
        Path("/proc/self/oom_score_adj").write_text("-1000")
