"""Record a command, and hold on to whoever is held for a range to be read: until there is SIGNS/go.

Guardians are slow to take their places, as they are where much runs.

    python -m tests.system.held TRACE SIGNS CMD...

SIGNS/held is made when somebody is.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from diffkeeper.progress import Silent
from diffkeeper.record import reread
from diffkeeper.record.requests import Request
from diffkeeper.record.session import record

fills = reread.fills
setpgid = os.setpgid


def take_place_late(pid: int, group: int) -> None:
    time.sleep(0.2)
    setpgid(pid, group)


def fills_in_time(request: Request, others: Callable[[], Iterable[int]]) -> Iterator[tuple[object, ...]]:
    (signs / "held").touch()
    while not (signs / "go").exists():
        time.sleep(0.001)
    return fills(request, others)


if __name__ == "__main__":
    trace, signs, *command = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
    reread.fills = fills_in_time  # type: ignore[assignment]  # that is what this program is for
    os.setpgid = take_place_late
    sys.exit(record(command, trace=trace, roots=[], ui=Silent()))
