"""One recording from beginning to end: `record()`.

Owns the order of things and the promise that the command is never harmed: whatever fails here, it
runs on with its own exit code. The parts are in this package's other modules; indexing is done by a
process of its own (`diffkeeper.store.indexer`), beside the command and at the lowest priority.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .. import __version__
from ..errors import CommandNotExecutableError, CommandNotFoundError, DiffKeeperError, TraceExistsError
from ..journal import JournalWriter
from ..model import Session
from ..plugins import EventFilter
from ..progress import Progress
from ..store.indexer import index
from ..store.reader import open_reader
from ..store.session import FACTS_FILE, FORMAT, write_facts
from ..wire import WireOp, encode
from . import child, scope
from .baseline import Baseline
from .kernel import Control, Kernel, check_kernel
from .pump import Pump
from .ring import Ring
from .verify import Verifier

RING_BYTES = 64 << 20
IDLE_WAIT = 0.01
"""Seconds between two looks at the ring when nothing wakes us: what bounds the batch that a crash loses."""

SETTLE_TIME = 0.5


def record(
    command: Sequence[str],
    *,
    trace: Path,
    roots: Sequence[Path],
    filters: Sequence[EventFilter] = (),
    force: bool = False,
    ui: Progress,
    ring_bytes: int = RING_BYTES,
) -> int:
    """Run `command` and record what it does to files into the directory `trace`. Returns its exit code.

    Raises DiffKeeperError only before the command has begun; after that, what goes wrong is told
    through `ui.note` and stands in the trace.
    """
    check_kernel()
    child.find_command(command)
    resolved = scope.resolve_roots(roots)
    user = child.invoking_user()
    _make_trace(trace, force, user)
    recording = _Recording(command, trace, resolved, filters, user, ui, ring_bytes)
    try:
        recording.prepare()
    except BaseException:
        recording.abandon()
        raise
    return recording.run()


def _make_trace(trace: Path, force: bool, user: child.User) -> None:
    if trace.is_symlink() or trace.exists():
        is_trace = (trace / FACTS_FILE).is_file()
        is_empty = trace.is_dir() and not any(trace.iterdir())
        if not is_empty and not (force and is_trace):
            hint = "use --force to replace it, or -o for another place" if is_trace else "choose another place with -o"
            raise TraceExistsError(f"{trace} exists already and was kept: {hint}")
        if not is_empty:
            shutil.rmtree(trace)
    try:
        trace.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise TraceExistsError(f"{trace} cannot be made: {error.strerror}") from error
    trace.chmod(0o700)
    os.chown(trace, user.uid, user.gid)


class _Recording:
    def __init__(
        self,
        command: Sequence[str],
        trace: Path,
        roots: tuple[bytes, ...],
        filters: Sequence[EventFilter],
        user: child.User,
        ui: Progress,
        ring_bytes: int,
    ) -> None:
        self._command = list(command)
        self._trace = trace.resolve()
        self._roots = roots
        self._filters = filters
        self._user = user
        self._ui = ui
        self._ring_bytes = ring_bytes
        self._indexer: subprocess.Popen[bytes] | None = None
        self._kernel: Kernel | None = None
        self._began = 0

    # ---- before the command ----

    def prepare(self) -> None:
        """Everything up to the moment when the command may begin. Any error here means it never ran."""
        facts = Session(
            format=FORMAT,
            version=__version__,
            command=tuple(self._command),
            cwd=os.getcwdb(),
            roots=self._roots,
            trace=os.fsencode(self._trace),
            started=time.time_ns(),
            host=os.uname().nodename,
            kernel=os.uname().release,
        )
        write_facts(self._trace, facts)
        self._journal = JournalWriter(self._trace / "journal")
        self._pump = Pump(self._journal, self._trace)
        self._give_away()
        # The baseline comes before the compiler: a root that is changed by others meanwhile is not our
        # command's doing, and the indexer has something to do while clang runs.
        self._take_baseline()
        self._start_indexer()
        self._kernel = Kernel(self._ring_bytes)
        self._kernel.skip_devices(scope.pseudo_devices())
        self._ring = Ring(self._kernel.ring_fd, self._ring_bytes)
        self._pump.connect(self._kernel, self._ring)
        self._kernel.attach()

    def _take_baseline(self) -> None:
        ui, count = self._ui, 0

        def keep(path: bytes, is_dir: bool) -> bool:
            nonlocal count
            count += 1
            if count % 512 == 0:
                ui.progress("baseline", count, 0)
            return all(chosen.keep_path(path, is_dir) for chosen in self._filters)

        self._baseline = Baseline(self._roots, os.fsencode(self._trace), self._pump.emit, keep)
        self._baseline.run()
        self._pump.flush()
        ui.finish()
        if self._pump.failure:
            raise TraceExistsError(f"the baseline does not fit: {self._trace}: {self._pump.failure}")

    def _give_away(self) -> None:
        """The trace belongs to the user who called sudo, also when we are killed."""
        if not self._user.is_caller:
            for path in (self._trace, *self._trace.rglob("*")):
                with suppress(FileNotFoundError):
                    os.chown(path, self._user.uid, self._user.gid, follow_symlinks=False)

    def _start_indexer(self) -> None:
        def lower() -> None:
            os.setsid()
            os.nice(19)
            with suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._indexer = subprocess.Popen(
            [sys.executable, "-m", "diffkeeper.store.indexer", str(self._trace)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=open(self._trace / "indexer.log", "wb"),
            env=environment,
            preexec_fn=lower,
            user=None if self._user.is_caller else self._user.uid,
            group=None if self._user.is_caller else self._user.gid,
            cwd="/",
        )

    def abandon(self) -> None:
        """The command was never begun: leave nothing behind."""
        if self._kernel:
            self._kernel.close()
        if self._indexer:
            self._indexer.kill()
            self._indexer.wait()
        shutil.rmtree(self._trace, ignore_errors=True)

    # ---- the command ----

    def run(self) -> int:
        """Begin, follow and end. Only a command that could not be executed raises."""
        kernel = self._kernel
        assert kernel is not None
        guardian = child.Guardian(
            disable=lambda: kernel.control.__setitem__(Control.DISABLED, 1), take_stopped=kernel.take_stopped
        )
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, child.HANDLED)
        process = child.Child(self._command, self._user)
        kernel.track(process.pid)
        self._began = time.monotonic_ns()
        self._pump.emit(
            (encode(WireOp.BEGIN, time=self._began, pid=process.pid, offset=time.time_ns(), length=self._user.uid),)
        )
        self._pump.flush()
        process.release()
        if error := process.exec_error():
            os.waitpid(process.pid, 0)
            guardian.dismiss()
            self.abandon()
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
            kind = CommandNotFoundError if error == 2 else CommandNotExecutableError
            raise kind(f"{self._command[0]}: {os.strerror(error)}")
        self._ring.register(process.pidfd)
        try:
            status = self._follow(process)
            self._stop_capture(kernel)
        finally:
            guardian.dismiss()
        ended = time.monotonic_ns()
        self._pump.last_words(
            *self._losses(kernel, ended),
            encode(WireOp.END, time=ended, pid=process.pid, offset=status),
            *(encode(WireOp.SETTLE, time=ended, payload=f"note={note}".encode()) for note in self._notes(kernel)),
        )
        self._ring.close()
        kernel.close()
        self._kernel = None
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        self._finish(status)
        return 128 + (status & 0x7F) if status & 0x7F else status >> 8 & 0xFF

    def _follow(self, process: child.Child) -> int:
        failure_told = False
        while True:
            try:
                busy = self._pump.step()
            except Exception as error:  # whatever is wrong with us, the command goes on
                self._pump.give_up(error)
                busy = False
            while (received := signal.sigtimedwait(child.HANDLED, 0)) is not None:
                # What the terminal sends reaches the command by itself; only a kill(2) is passed on.
                if received.si_code <= 0:
                    process.send(received.si_signo)
            if self._pump.failure and not failure_told:
                failure_told = True
                self._ui.note(f"recording stopped, the command runs on: {self._pump.failure}")
            status = process.poll()
            if status is not None:
                return status
            if not busy:
                self._ring.wait(IDLE_WAIT)

    def _stop_capture(self, kernel: Kernel) -> None:
        """Take what the command's last calls left, and let go of whatever outlives it."""
        self._ring.settle(SETTLE_TIME)
        self._pump.step()
        kernel.control[Control.DISABLED] = 1
        self._left_behind = [pid for pid in kernel.tracked() if os.path.exists(f"/proc/{pid}")]
        deadline = time.monotonic() + SETTLE_TIME
        while self._pump.step() and time.monotonic() < deadline:
            continue
        child.resume(kernel.take_stopped())

    def _losses(self, kernel: Kernel, now: int) -> list[bytes]:
        """A GAP record for each way in which something was missed."""
        control = kernel.control
        causes = {
            "ring full": control[Control.LOST],
            "32-bit system call": control[Control.COMPAT],
            "user memory not readable": control[Control.UNREAD],
        }
        return [
            encode(WireOp.GAP, time=now, offset=number, payload=cause.encode())
            for cause, number in causes.items()
            if number
        ]

    def _notes(self, kernel: Kernel) -> list[str]:
        notes = [*kernel.notes]
        if stops := kernel.control[Control.STOPS]:
            notes.append(f"writers were held {stops} times so that nothing was lost")
        if self._left_behind:
            notes.append(f"recording ended with the command; still running: {', '.join(map(str, self._left_behind))}")
        notes += [f"not readable: {os.fsdecode(path)}" for path in self._baseline.unreadable[:20]]
        return notes

    # ---- after the command ----

    def _finish(self, status: int) -> None:
        """Index, verify, heal, and say how it went. Nothing here may change the exit code."""
        try:
            self._index_rest()
            self._verify()
        except (DiffKeeperError, OSError) as error:
            self._ui.note(f"the trace is recorded but not indexed yet: {error}")
        finally:
            self._ui.finish()
            self._journal.close()
            with suppress(OSError):
                self._give_away()

    def _index_rest(self) -> None:
        """Let the indexer come to the end; what it leaves, we do."""
        indexer = self._indexer
        if indexer is not None:
            assert indexer.stdin is not None
            with suppress(OSError):
                os.sched_setscheduler(indexer.pid, os.SCHED_OTHER, os.sched_param(0))
                os.setpriority(os.PRIO_PROCESS, indexer.pid, 0)
            with suppress(BrokenPipeError):
                indexer.stdin.close()
            while indexer.poll() is None:
                self._ui.progress("indexing", 0, 0)
                with suppress(subprocess.TimeoutExpired):
                    indexer.wait(0.1)
            log = self._trace / "indexer.log"
            if not log.stat().st_size:
                log.unlink()
        index(self._trace, progress=lambda done, total: self._ui.progress("indexing", done, total))

    def _verify(self) -> None:
        now = time.monotonic_ns()
        with open_reader(self._trace) as reader:
            verifier = Verifier(reader, self._pump.emit, now)
            verifier.run(self._ui)
        facts = {"verified_paths": verifier.paths}
        self._pump.last_words(
            *(encode(WireOp.SETTLE, time=now, payload=f"{key}={value}".encode()) for key, value in facts.items())
        )
        index(self._trace)
