"""How long the recorder sleeps between two looks at the ring.

Owns the choice alone. Whoever stands still, or finds the ring filling up, wakes it before (bpf/send.h).
"""

from __future__ import annotations

from .ring import Ring

IDLE_WAIT = 0.01
"""Seconds between two looks at the ring when nothing wakes us: what bounds the batch that a crash loses."""

DOZE, AWAKE = 0.05, 100
"""Seconds between two looks after so many that found nothing: a service may do nothing for days."""

BREATH, LITTLE = 0.004, 256 << 10
"""Seconds to the next look where fewer bytes are waiting: what is done for each span, here and by the indexer, is then
done for fewer, and a processor is free for the command."""


class Pace:
    """Of one recording."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._idle = 0  # looks in a row that found nothing

    def rest(self, *, busy: bool) -> None:
        """After a look. `busy`: it found something."""
        self._idle = 0 if busy else self._idle + 1
        if self._idle:
            self._ring.wait(IDLE_WAIT if self._idle < AWAKE else DOZE)
        elif self._ring.waiting < LITTLE:
            self._ring.wait(BREATH)
