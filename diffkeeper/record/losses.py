"""What the kernel half has missed, by cause: the GAP records of a recording."""

from __future__ import annotations

from pathlib import Path

from ..wire import WireOp, encode
from .kernel import Control, Kernel

_CAUSES = {
    "ring full": Control.LOST,
    "32-bit program": Control.COMPAT,
    "user memory not readable": Control.UNREAD,
    "io_uring or AIO call not followed": Control.ASYNC,
    "call not followed to its end": Control.CUT_SHORT,
    "change by a call that is not followed": Control.UNSEEN,
    "file given to the kernel (loop device, swap, accounting)": Control.GIVEN,
    "process not followed": Control.UNFOLLOWED,
    "core dump": Control.CORES,
    "too many ranges to read": Control.UNASKED,
    "too many processes with mapped files": Control.UNMAPPED,
}
_CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")


def _dumps_to_files() -> bool:
    """And not to a program or a socket, see core(5)."""
    try:
        return not _CORE_PATTERN.read_bytes().startswith((b"|", b"@"))
    except OSError:  # no /proc/sys in this container: they may
        return True


class Losses:
    """Remembers what it has told."""

    def __init__(self) -> None:
        self._told = dict.fromkeys(_CAUSES, 0)

    def since(self, kernel: Kernel, now: int) -> list[bytes]:
        """A record for each cause that had more losses since the last look. `now`: monotonic ns."""
        gaps = []
        for cause, slot in _CAUSES.items():
            new = kernel.control[slot] - self._told[cause]
            self._told[cause] += new
            if new and (slot != Control.CORES or _dumps_to_files()):
                gaps.append(encode(WireOp.GAP, time=now, offset=new, payload=cause.encode()))
        return gaps
