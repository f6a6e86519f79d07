"""Record a command as on a kernel that has no functions to call: `python -m tests.system.old_kernel TRACE CMD...`."""

from __future__ import annotations

import sys
from pathlib import Path

from diffkeeper.progress import Silent
from diffkeeper.record import layout
from diffkeeper.record.session import record

if __name__ == "__main__":
    trace, *command = sys.argv[1:]
    found = layout.load()
    layout.load = lambda: found | dict.fromkeys(layout.FUNCTIONS, 0)
    sys.exit(record(command, trace=Path(trace), roots=[], ui=Silent()))
