"""Record a command into TRACE as if all but one of the processes that can be followed were there already.

python -m tests.system.many_processes TRACE CMD...
"""

from __future__ import annotations

import sys
from pathlib import Path

from diffkeeper.progress import Silent
from diffkeeper.record.kernel import Kernel, Loading
from diffkeeper.record.session import record

PROCESSES = 65536  # `tracked` in bpf/maps.h
NOBODY = 1 << 23  # above all process numbers of Linux


class Crowded(Loading):
    def wait(self) -> Kernel:
        kernel = super().wait()
        for number in range(PROCESSES - 1):
            kernel.track(NOBODY + number)
        return kernel


if __name__ == "__main__":
    trace, *command = sys.argv[1:]
    sys.exit(record(command, trace=Path(trace), roots=[], ui=Silent(), loading=Crowded()))
