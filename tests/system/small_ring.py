"""Record a command into TRACE with a ring of BYTES: `python -m tests.system.small_ring TRACE BYTES CMD...`."""

from __future__ import annotations

import sys
from pathlib import Path

from diffkeeper.progress import Silent
from diffkeeper.record.kernel import Loading
from diffkeeper.record.session import record

if __name__ == "__main__":
    trace, ring_bytes, *command = sys.argv[1:]
    sys.exit(record(command, trace=Path(trace), roots=[], ui=Silent(), loading=Loading(ring_bytes=int(ring_bytes))))
