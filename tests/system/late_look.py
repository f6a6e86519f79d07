"""Record a command that stores to memory between a drained ring and a look.

    python -m tests.system.late_look TRACE SIGNS CMD...

When there is SIGNS/ready the ring is drained; then SIGNS/go is made, SIGNS/stored is waited for, and mapped files are
looked at.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from diffkeeper.progress import Silent
from diffkeeper.record.pump import Pump
from diffkeeper.record.ring import Ring
from diffkeeper.record.session import record

drain = Pump._drain


def drain_and_wait(self: Pump, ring: Ring, end: int) -> bool:
    drained = drain(self, ring, end)
    if (signs / "ready").exists() and not (signs / "go").exists():
        (signs / "go").touch()
        while not (signs / "stored").exists():
            time.sleep(0.001)
        self._mapped._next = 0.0
    return drained


if __name__ == "__main__":
    trace, signs, *command = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
    Pump._drain = drain_and_wait  # type: ignore[method-assign]  # that is what this program is for
    sys.exit(record(command, trace=trace, roots=[], ui=Silent()))
