"""Record a command as on an older kernel: `python -m tests.system.old_kernel TRACE CMD...`.

It has no functions to call; with `--untold` before TRACE no tracepoints that tell which inodes a call changed, nor of
what is asked of an io_uring.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path

from diffkeeper.progress import Silent
from diffkeeper.record import bpf, kernel, layout
from diffkeeper.record.session import record

UNTOLD = (kernel.CHANGES, "ctime_ns_xchg", "ctime_xchg_skip", kernel.URING[0])


def untold() -> None:
    """From now on these tracepoints are not there."""
    attach = bpf.attach_raw_tracepoint

    def attach_some(name: str, program: int) -> int:
        if name in UNTOLD:
            raise OSError(errno.ENOENT, "not on an old kernel")
        return attach(name, program)

    bpf.attach_raw_tracepoint = attach_some


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[0] == "--untold":
        untold()
        words = words[1:]
    trace, *command = words
    found = layout.load()
    layout.load = lambda: found | dict.fromkeys(layout.FUNCTIONS, 0)
    sys.exit(record(command, trace=Path(trace), roots=[], ui=Silent()))
