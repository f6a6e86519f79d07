"""The mapped ring buffer: spans of finished records, without a callback per record.

Owns the layout of a BPF ring buffer's mapping (kernel/bpf/ringbuf.c: one page that we write, one
that the kernel writes, then the data twice in a row so that no record wraps) and the walk over its
record headers. Does not decode records.
"""

from __future__ import annotations

import mmap
import select
import time

from ..arrays import np
from ..wire import RING_BUSY

SPAN_LIMIT = 4 << 20
ALIKE = 16  # records of one length in a row, after which many more are looked at in one go


def finished(heads: memoryview, start: int, end: int) -> int:
    """Where the records from byte `start` on end that are finished and begin before `end`. `heads`: the data as u32.

    Runs of records of one length, which are most of a busy ring, are passed over in one go.
    """
    at, last, alike = start, -1, 0
    while at < end:
        length = heads[at >> 2]
        if length & RING_BUSY:
            break
        step = 8 + ((length & 0x3FFFFFFF) + 7 & ~7)
        at += step
        alike = alike + 1 if length == last else 0
        last = length
        if alike == ALIKE:
            same = np.frombuffer(heads[at >> 2 : max(at, end) >> 2], np.uint32)[:: step >> 2] == length
            at += step * (len(same) if same.all() else int(same.argmin()))
            alike = 0
    return at


class Ring:
    """One consumer of one ring. Not thread-safe."""

    def __init__(self, fd: int, size: int) -> None:
        """`fd`: of the map; `size`: its data area in bytes."""
        page = mmap.PAGESIZE
        self._size = size
        self._consumer_map = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._producer_map = mmap.mmap(fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        # Positions must be one aligned 64-bit access: struct.pack_into would write them byte by byte,
        # and the kernel would see torn ones.
        self._consumed = memoryview(self._consumer_map).cast("Q")
        self._produced = memoryview(self._producer_map)[:page].cast("Q")
        self._data = memoryview(self._producer_map)[page:]
        self._heads = self._data.cast("I")
        self._at = self._consumed[0]
        self._epoll = select.epoll()
        # Edge-triggered: only a forced wake-up ends the wait early, not each record.
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)

    def register(self, fd: int) -> None:
        """Let `wait` end early when `fd` becomes readable, too."""
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)

    def wait(self, seconds: float) -> None:
        """Sleep until a wake-up or the time is over."""
        try:
            self._epoll.poll(seconds)
        except InterruptedError:
            return

    @property
    def produced(self) -> int:
        """The position up to which there are records, finished or not; positions only grow."""
        return self._produced[0]

    @property
    def consumed(self) -> int:
        """The position up to which records were released."""
        return self._at

    @property
    def waiting(self) -> int:
        """Bytes produced and not yet consumed."""
        return self._produced[0] - self._at

    def span(self, upto: int) -> memoryview | None:
        """The next run of finished records before the position `upto`, of about SPAN_LIMIT bytes at most, or None.

        Valid until `release()` is called with it.
        """
        start = self._at % self._size
        at = finished(self._heads, start, start + min(upto - self._at, SPAN_LIMIT))
        return self._data[start:at] if at > start else None

    def release(self, span: memoryview) -> None:
        """Give the span's room back to the kernel."""
        self._at += len(span)
        span.release()
        self._consumed[0] = self._at

    def settle(self, seconds: float) -> bool:
        """Wait until no record is half written; False when one still is after `seconds`."""
        end = time.monotonic() + seconds
        while self.waiting and self._heads[self._at % self._size >> 2] & RING_BUSY:
            if time.monotonic() > end:
                return False
            time.sleep(0.0002)
        return True

    def close(self) -> None:
        self._epoll.close()
        for view in (self._heads, self._data, self._produced, self._consumed):
            view.release()
        self._producer_map.close()
        self._consumer_map.close()
