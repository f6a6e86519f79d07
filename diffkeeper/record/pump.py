"""From the ring to the journal while the command runs: drain, re-read, continue whoever was stopped.

Owns the loop's one step and what happens when the disk is full. Does not know when to end.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ..journal import JournalWriter
from ..wire import WireOp, encode
from . import child, reread
from .baseline import Piece
from .kernel import Control, Kernel
from .mapped import Mapped
from .mounting import Mounting
from .namespaces import kernel_time
from .requests import Ask, Request
from .ring import Ring
from .verdicts import Verdicts

RESERVE = 1 << 20
BATCH = 4 << 20
MANY, LATE = 4096, 1_000_000_000  # processes that were continued, and for how many ns that is remembered at least
ROUNDS = 16  # looks for more requests, before those who are stopped have waited long enough
SETTLE_TIME = 0.05  # seconds that a half-written record is waited for before its reader goes on without


class Pump:
    """Moves records into a journal. After a write error it only keeps the command going: `failure` says why."""

    def __init__(
        self, journal: JournalWriter, trace: Path, mmap_interval: float, verdicts: Verdicts, roots: Sequence[bytes]
    ) -> None:
        """`mmap_interval`: seconds between two looks at files that are mapped; 0: none but when they are synced."""
        self._verdicts = verdicts
        self._mapped = Mapped(mmap_interval)
        self._journal = journal
        self._kernel: Kernel | None = None
        self._ring: Ring | None = None
        self._noticed = 0
        self._continued: dict[int, int] = {}  # process -> monotonic ns at which it was, the last time
        self._batch: list[Piece] = []
        self._batched = 0
        self._beside: ThreadPoolExecutor | None = None
        self._written: Future[None] | None = None
        self.failure: Exception | None = None
        # Room for the last words of a recording that fills the disk.
        self._reserve = trace / "reserve"
        with open(self._reserve, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            os.posix_fallocate(file.fileno(), 0, RESERVE)
        self._mounting = Mounting(roots, self.emit)

    def connect(self, kernel: Kernel, ring: Ring) -> None:
        self._kernel, self._ring = kernel, ring
        self._mapped.connect(kernel, partial(self._drain_all, ring))
        self._mounting.connect(kernel)
        self._verdicts.connect(kernel, self._mounting)

    def emit(self, pieces: Iterable[Piece]) -> None:
        """Add a user-space record; it reaches the journal with `flush` or when enough are waiting."""
        for piece in pieces:
            self._batch.append(piece)
            self._batched += len(piece)
        if self._batched >= BATCH:
            self.flush()

    def flush(self) -> None:
        if self._batch:
            batch, self._batch, self._batched = self._batch, [], 0
            if self._beside is None:
                self._append(*batch)
            else:
                self._wait()
                self._written = self._beside.submit(self._append, *batch)

    @contextmanager
    def beside(self) -> Iterator[None]:
        """In the block, what is emitted is written by a thread, while its caller reads on. It has ended after that."""
        with ThreadPoolExecutor(1) as pool:
            self._beside = pool
            try:
                yield
                self.flush()
            finally:
                self._wait()
                self._beside = None

    def _wait(self) -> None:
        """For one batch at a time, or they would fill the memory."""
        if self._written is not None:
            self._written.result()
            self._written = None

    def _append(self, *pieces: Piece) -> None:
        if self.failure:
            return
        try:
            self._journal.append(*pieces)
        except OSError as error:
            self.give_up(error)

    def give_up(self, error: Exception) -> None:
        """Nothing more can be recorded: let everybody go, and write from where on the trace is incomplete."""
        if self.failure:
            return
        self.failure = error.with_traceback(None)  # its frames hold on to the ring's memory
        if self._kernel:
            self._kernel.control[Control.DISABLED] = 1
            self._kernel.control[Control.THRESHOLD] = (1 << 63) - 1  # nobody is woken up for a ring that stays full
            child.resume(self._kernel.take_stopped())
        self._reserve.unlink(missing_ok=True)
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        cause = "disk full" if full else f"recorder failed: {error}"
        try:
            self._journal.cut()
            self._journal.append(encode(WireOp.GAP, time=kernel_time(), payload=cause.encode()))
        except OSError:
            return  # not even that: the missing END says it

    def last_words(self, *records: bytes) -> None:
        """Append even after a failure, from what the reserve left."""
        self.flush()
        self._reserve.unlink(missing_ok=True)
        try:
            self._journal.append(*records)
        except OSError as error:
            self.failure = self.failure or error.with_traceback(None)

    def step(self) -> bool:
        """Drain what is finished and serve what is waiting. Says whether anything was there."""
        kernel, ring = self._kernel, self._ring
        if kernel is None or ring is None:
            return False
        if self.failure:
            child.resume(kernel.take_stopped())  # who was on the way to a stop when we gave up
            return False
        # Read in this order: whatever came before one of these records and asks for something, has asked by now.
        asked, end, stopped = self._verdicts.asked, ring.produced, kernel.control[Control.STOPPED]
        served = stopped != self._noticed
        if served:
            self._noticed = stopped
            self._serve(kernel, ring)
        drained = self._drain(ring, end)
        if ring.consumed >= end:
            self._verdicts.answer(asked)
            self.flush()
        if self._mapped.is_due():
            self._mapped.look(self.emit)
            self.flush()
        return drained or served

    def _drain(self, ring: Ring, end: int) -> bool:
        """Up to the position `end`, or to a record that is not finished. Says whether anything was there."""
        drained = False
        while ring.consumed < end and (span := ring.span(end)) is not None:
            self.flush()
            self._append(span)
            ring.release(span)
            drained = True
        return drained

    def _drain_all(self, ring: Ring, end: int | None) -> bool:
        """The same, but records that are not finished are waited for; None: all. Says whether nothing is left."""
        produced = ring.produced
        end = produced if end is None else end
        while ring.consumed < end:
            if not self._drain(ring, end) and not ring.settle(SETTLE_TIME):
                break
        return ring.consumed >= produced

    def _serve(self, kernel: Kernel, ring: Ring) -> None:
        """Look at what was asked for, then continue who was stopped: SIGCONT is for all of a process's threads.

        It takes back the stop of a thread that has asked for something just now, too: it is stopped once more,
        and is still listed.
        """
        stopped = kernel.take_stopped()
        try:
            self._answer_all(kernel, ring)
        finally:
            self._resume(stopped)  # nobody else knows of them any more
        if stopped:
            child.stop(set(stopped).intersection(kernel.stopped()))

    def _resume(self, pids: Sequence[int]) -> None:
        now = kernel_time()
        if len(self._continued) > MANY:  # what was asked before they were continued is known by now
            self._continued = {pid: when for pid, when in self._continued.items() if when > now - LATE}
        for pid in pids:
            self._continued[pid] = kernel_time()
            child.resume((pid,))

    def _answer_all(self, kernel: Kernel, ring: Ring) -> None:
        for _ in range(ROUNDS):
            requests = kernel.take_requests()
            if not requests:
                break
            for request in map(self._mounting.placed, requests):
                self._drain_all(ring, request.position)
                self._answer(kernel, request)
                if request.fd < 0 and request.kind is Ask.RANGE:
                    kernel.release(request)
            self.flush()

    def _answer(self, kernel: Kernel, request: Request) -> None:
        if request.time < self._continued.get(request.pid, 0):  # one SIGCONT takes back all stops, also its own
            request = request._replace(stopped=False)
        if request.kind is Ask.RANGE:
            for record in reread.fills(request, kernel.tracked):
                self.emit(record)
        elif request.kind is Ask.MOUNTS:
            self._mounting.look(request.time)
        elif request.kind is Ask.JUDGE:
            self._verdicts.answer(request.offset)
        else:
            self._mapped.answer(request, self.emit)

    def look_at_mapped(self) -> None:
        """What was written to memory by now, whoever has it mapped."""
        self._mapped.look(self.emit)
        self.flush()
