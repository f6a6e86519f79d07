"""One recording from beginning to end: `record()`.

Owns the order of things and the promise that the command is never harmed: whatever fails here, it
runs on with its own exit code. The parts are in this package's other modules.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from msgspec import structs

from .. import __version__, arrays
from ..errors import CommandNotExecutableError, CommandNotFoundError, DiffKeeperError
from ..filtering import Filters, Spec, read_at, settled
from ..journal import JournalWriter
from ..model import Session
from ..progress import Progress
from ..store import differing, indexer
from ..store.reader import open_reader
from ..store.session import FORMAT, write_facts
from ..wire import WireOp, encode
from . import child, earlier, place, scope
from .aside import Aside
from .baseline import Baseline
from .caller import User, called_by
from .kernel import Control, Kernel, Loading
from .losses import Losses
from .namespaces import kernel_time
from .others import Fingerprints
from .pace import Pace
from .pump import Pump
from .ring import Ring
from .verdicts import Verdicts
from .verify import Verifier

MMAP_INTERVAL = 0.1
"""Seconds between two looks at files that are mapped and writable."""

SETTLE_TIME = 0.5


def record(
    command: Sequence[str],
    *,
    trace: Path,
    roots: Sequence[Path],
    filters: Sequence[Spec] = (),
    differ: differing.Choice | None = None,
    force: bool = False,
    ui: Progress,
    mmap_interval: float = MMAP_INTERVAL,
    wait_tree: bool = False,
    ignored: Sequence[signal.Signals] = (),
    closed: Sequence[int] = (),
    loading: Loading | None = None,
) -> int:
    """Run `command` and record what it does to files into the directory `trace`. Returns its exit code.

    Raises DiffKeeperError only before the command has begun; after that, what goes wrong is told
    through `ui.note` and stands in the trace. `mmap_interval`: seconds between two looks at files that are
    written through memory; 0: only when the program syncs or unmaps them, or ends. `wait_tree`: record on
    until everything that the command started has ended, or a signal says that it is enough. `ignored`: signals that
    the command finds ignored, `closed`: standard streams that it finds closed, as our caller had them. `loading`: the
    programs, if they were begun to be loaded before.
    """
    loading = loading or Loading(ui)
    recording = None
    try:
        caller = called_by(loading.limits)
        child.find_command(command, caller.environment)
        resolved = scope.resolve_roots(roots)
        user = caller.user
        differ = differ or differing.Choice()
        if differ != differing.Choice() or not user.is_caller:  # to whom the modules of differs may be closed
            differing.check(differ)
        filters = settled(filters, lambda name: read_at(resolved, name))  # one that cannot be made ends it here
        arrays.load()  # for the indexer, to whom its files may be closed
        kernel = loading.wait()
        place.make(trace, user, force=force)
        recording = _Recording(
            command, trace, resolved, filters, differ, user, ui, mmap_interval, wait_tree,
            partial(child.Child, command, caller, ignored=ignored, closed=closed), kernel,
        )
        recording.prepare()
    except BaseException:
        if recording:
            recording.abandon()
        else:
            loading.abandon()
        raise
    return recording.run()


class _Recording:
    def __init__(
        self,
        command: Sequence[str],
        trace: Path,
        roots: tuple[bytes, ...],
        filters: Sequence[Spec],
        differ: differing.Choice,
        user: User,
        ui: Progress,
        mmap_interval: float,
        wait_tree: bool,
        fork: Callable[[Iterable[int]], child.Child],
        kernel: Kernel,
    ) -> None:
        self._command = list(command)
        self._trace = trace.resolve()
        self._shown = shlex.quote(str(trace))  # as the user typed it; the working directory may be gone by the end
        self._roots = roots
        self._filters = tuple(filters)
        self._differ = differ
        self._judges = Filters(filters, roots)
        self._user = user
        self._ui = ui
        self._mmap_interval = mmap_interval
        self._wait_tree = wait_tree
        self._fork = fork
        self._indexer: Aside | None = None
        self._kernel: Kernel | None = kernel
        self._baseline: Baseline
        self._losses = Losses()
        self._fingerprints = Fingerprints()

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
            filters=self._filters,
            differ=self._differ,
        )
        write_facts(self._trace, facts)
        owner = None if self._user.is_caller else (self._user.uid, self._user.gid)
        self._journal = JournalWriter(self._trace / "journal", owner)
        self._verdicts = Verdicts(self._judges, self._roots, self._another_pass)
        self._pump = Pump(self._journal, self._trace, self._mmap_interval, self._verdicts, self._roots)
        place.give(self._trace, self._user)
        self._indexer = Aside(self._trace, self._user)  # beside the baseline already
        self._take_baseline()
        kernel = self._kernel
        assert kernel is not None
        kernel.skip_devices(scope.pseudo_devices())
        self._ring = Ring(kernel.ring_fd, kernel.ring_bytes)
        self._ring.register(kernel.questions_fd)
        self._pump.connect(kernel, self._ring)
        kernel.attach()

    def _another_pass(self) -> Baseline:
        """Over something that comes to be recorded only now. Who is a link of whom is another matter by then."""
        traces, keep = self._baseline.traces, self._judges.keeps_path
        self._baseline = Baseline(self._roots, traces, self._pump.emit, keep, before=self._baseline)
        return self._baseline

    def _take_baseline(self) -> None:
        ui, count = self._ui, 0

        def keep(path: bytes, is_dir: bool) -> bool:
            nonlocal count
            count += 1
            if count % 512 == 0:
                ui.progress("baseline", count, 0)
            kept = self._judges.keeps_path(path, is_dir)
            if not kept:
                self._judges.count(path, is_dir, before=True)
            return kept

        before = earlier.Earlier(self._trace)
        self._baseline = Baseline(
            self._roots, [os.fsencode(self._trace)], self._pump.emit, keep, before, fingerprints=self._fingerprints
        )
        with self._pump.beside():
            self._baseline.run()
            before.write()
        self._recalled = before.same
        ui.finish()
        if self._pump.failure:
            raise DiffKeeperError(
                f"the baseline does not fit at {self._shown} ({self._pump.failure}): choose another place with -o"
            )

    def abandon(self) -> None:
        """The command was never begun: leave nothing behind."""
        if self._kernel:
            self._kernel.close()
        if self._indexer:
            self._indexer.kill()
        shutil.rmtree(self._trace, ignore_errors=True)

    # ---- the command ----

    def run(self) -> int:
        """Begin, follow and end. Only a command that could not be executed raises."""
        kernel = self._kernel
        assert kernel is not None

        def detach() -> None:
            kernel.detach()
            self._journal.close()  # whose lock says that a recorder is at work

        guardian = child.Guardian(
            detach=detach,
            disable=lambda: kernel.control.__setitem__(Control.DISABLED, 1),
            # All that stand still: the recorder may die between taking a process off the list and continuing it.
            stopped=lambda: (pid for pid in kernel.tracked() if child.state(pid) == "T"),
        )
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, child.HANDLED)
        process = self._fork(previous)
        kernel.track(process.pid)
        began = kernel_time()
        self._pump.emit(
            (encode(WireOp.BEGIN, time=began, pid=process.pid, offset=time.time_ns(), length=self._user.uid),)
        )
        self._pump.flush()
        process.release()
        if error := process.exec_error():
            os.waitpid(process.pid, 0)
            guardian.dismiss()
            guardian.gone()
            self.abandon()
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
            kind = CommandNotFoundError if error == 2 else CommandNotExecutableError
            raise kind(f"{self._command[0]}: {os.strerror(error)}")
        self._ring.register(process.pidfd)
        try:
            status = self._follow(process, guardian)
            self._stop_capture(kernel)
        finally:
            guardian.dismiss()
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        try:
            self._close_recording(kernel, process.pid, status)
            summary = self._finish()
        except Exception as error:  # noqa: BLE001  the command has ended well: its exit code is all that counts now
            if self._trace.is_dir():
                summary = f"recorded, but not finished ({error}); next: diffkeeper info {self._shown}"
            else:
                summary = f"the recording is gone: {self._shown} was removed; record to another place with -o"
        guardian.gone()
        self._ui.finish()
        self._ui.note(summary)
        return 128 + (status & 0x7F) if status & 0x7F else status >> 8 & 0xFF

    def _follow(self, process: child.Child, guardian: child.Guardian) -> int:
        """Until the command has ended, and with `wait_tree` all that it started. Returns the command's wait status."""
        assert self._indexer is not None
        failure_told = enough = waiting_told = False
        ours = (process.pid, guardian.pid, self._indexer.pid)
        pace = Pace(self._ring)
        while True:
            try:
                busy = self._pump.step()
            except Exception as error:  # noqa: BLE001  whatever is wrong with us, the command goes on
                self._pump.give_up(error)
                busy = False
            if self._kernel and not self._pump.failure:
                self._pump.emit(self._losses.since(self._kernel, kernel_time()))
                self._pump.flush()  # now: we may be killed
            while (received := signal.sigtimedwait(child.HANDLED, 0)) is not None:
                # What the terminal sends reaches the command by itself; only a kill(2) is passed on.
                if received.si_code <= 0:
                    process.send(received.si_signo)
                enough = True
            if self._pump.failure and not failure_told:
                failure_told = True
                self._ui.note(f"recording stopped, the command runs on: {self._pump.failure}")
            if os.getpid() == 1:
                child.reap(ours)
            status = process.poll()
            if status is not None and (not self._wait_tree or enough or not self._alive()):
                return status
            if status is not None and not waiting_told:
                waiting_told = True
                self._ui.note("the command has ended; recording until all that it started has, too (Ctrl-C ends this)")
            self._indexer.let(self._journal.bytes_written)
            pace.rest(busy=busy)

    def _alive(self) -> list[int]:
        """Processes of the recording that have not ended."""
        assert self._kernel is not None
        return [pid for pid in self._kernel.tracked() if child.state(pid) not in "ZX"]

    def _stop_capture(self, kernel: Kernel) -> None:
        """Take what the command's last calls left, and let go of whatever outlives it."""
        self._ring.settle(SETTLE_TIME)
        self._pump.step()
        kernel.control[Control.DISABLED] = 1
        self._left_behind = self._alive()
        deadline = time.monotonic() + SETTLE_TIME
        while self._pump.step() and time.monotonic() < deadline:
            continue
        self._pump.look_at_mapped()
        child.resume(kernel.take_stopped())

    def _notes(self, kernel: Kernel) -> list[str]:
        notes = [*kernel.notes]
        if self._recalled:
            notes.append(f"{self._recalled:,} files were as in the recording that was replaced, and not read again")
        if stops := kernel.control[Control.STOPS]:
            notes.append(f"held writers {stops:,} times, so that nothing was lost")
        if unstoppable := kernel.control[Control.UNSTOPPABLE]:
            notes.append(f"{unstoppable:,} times a writer could not be held: its parent would take it for suspended")
        if self._left_behind:
            notes.append(f"recording ended with the command; still running: {', '.join(map(str, self._left_behind))}")
        notes += [f"not readable: {os.fsdecode(path)}" for path in self._baseline.unreadable[:20]]
        return notes

    # ---- after the command ----

    def _close_recording(self, kernel: Kernel, pid: int, status: int) -> None:
        """The journal's last records; then the kernel is as it was."""
        ended = kernel_time()
        self._judges.count_events(kernel.left_out())
        filtered = json.dumps([structs.asdict(each) for each in self._judges.report()])
        self._pump.last_words(
            *self._losses.since(kernel, ended),
            encode(WireOp.END, time=ended, pid=pid, offset=status),
            *(encode(WireOp.SETTLE, time=ended, payload=f"note={note}".encode()) for note in self._notes(kernel)),
            encode(WireOp.SETTLE, time=ended, payload=f"filtered={filtered}".encode()),
        )
        assert self._indexer is not None
        self._indexer.hurry()  # and meanwhile:
        self._ring.close()
        self._verdicts.close()
        kernel.close()
        self._kernel = None

    def _finish(self) -> str:
        """Index, verify and heal; says how it went."""
        assert self._indexer is not None
        try:
            changed = [*self._fingerprints.changed(partial(self._ui.progress, "verifying"))]  # beside the indexer
            self._indexer.finish(self._ui)
            if self._pump.failure:  # perhaps between the pieces of a call: nobody waits for the rest any more
                self._journal.close()
                indexer.index(self._trace, trusted=True)
            else:
                self._verify(changed)
            with open_reader(self._trace, trusted=True) as reader:
                return self._summary(reader.session)
        finally:
            self._journal.close()
            with suppress(OSError):
                place.give(self._trace, self._user)

    def _summary(self, session: Session) -> str:
        lost = sum(session.lost.values())
        parts = [
            f"{session.events:,} events in {(session.duration or 0) / 1e9:.2f} s",
            f"{lost:,} lost ({', '.join(session.lost)})" if lost else "0 lost",
        ]
        if healed := session.mismatches - session.others:
            told = f"{healed:,} of {session.verified_paths:,} paths healed"
            parts.append(f"{told} ({', '.join(session.wrong)})" if session.wrong else told)
        if session.others:
            parts.append(f"{session.others:,} path{'s' * (session.others > 1)} changed from outside")
        if self._pump.failure:
            parts.append(f"incomplete: {self._pump.failure}")
        return f"{', '.join(parts)}; next: diffkeeper timeline {self._shown}"

    def _verify(self, changed: Sequence[bytes]) -> None:
        self._journal.rotate()  # the segment that ended with END is indexed and gone
        now = kernel_time()
        with open_reader(self._trace, trusted=True) as reader:
            keeps, lost = self._judges.keeps_path, bool(reader.session.lost)
            verifier = Verifier(reader, self._pump.emit, keeps, now, changed=changed, everything=lost)
            verifier.run(self._ui)
        facts = {"verified_paths": verifier.paths}
        self._pump.last_words(
            *(encode(WireOp.SETTLE, time=now, payload=f"{key}={value}".encode()) for key, value in facts.items())
        )
        indexer.index(self._trace, trusted=True)
