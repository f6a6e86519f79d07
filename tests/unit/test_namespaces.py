"""What times mean where a recorder is."""

from __future__ import annotations

import time

from diffkeeper.record.namespaces import kernel_time


def test_the_clock_goes_on_while_the_machine_sleeps() -> None:
    """A moment by the clock on the wall is found from how long after the start it was, a laptop's sleep included."""
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert before <= kernel_time() <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
