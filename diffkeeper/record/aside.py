"""The process that indexes beside the command, at the lowest priority and as the trace's owner.

Owns when it may work: it stands back while the command does much to files. What indexing is belongs to
`diffkeeper.store.indexer`.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import time
import traceback
from contextlib import suppress
from pathlib import Path

from ..progress import Progress
from ..store import indexer
from .caller import User, become

PROGRESS = 0.1
"""Seconds between two signs of life while it comes to the end."""

LOOK = 0.1
"""Seconds over which it is seen how much the command does."""

MUCH = 24 << 20
"""Bytes of journal in a second from which on indexing stands back."""

UNINDEXED_MOST = 1 << 30
"""Bytes of journal that may come at such a rate until they are indexed all the same."""

INDEXER_LOG = "indexer.log"


class Aside:
    """One indexer. It ends when its stdin does: with `hurry`, or with us."""

    def __init__(self, trace: Path, user: User) -> None:
        """Forked, not executed: the owner may not be allowed to execute the Python that runs us.

        For the same reason all that it may want to import is to be imported by now.
        """
        self._trace = trace
        self._crowded = mmap.mmap(-1, 1)
        self._looked, self._seen = 0.0, 0  # when, and bytes of journal by then
        self._much, self._indexable = True, 0
        hold, self._input = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(hold)
        else:
            self._serve(hold, user)

    def _serve(self, hold: int, user: User) -> None:
        status = 1
        try:
            os.setpgid(0, 0)  # no Ctrl-C; in a session of its own it would be as urgent as the command (autogroup)
            os.nice(19)
            with suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            with suppress(OSError):  # where memory is short nobody is missed less: the recorder does what is left
                Path("/proc/self/oom_score_adj").write_text("1000")
            log = os.open(self._trace / INDEXER_LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            null = os.open(os.devnull, os.O_WRONLY)
            for fd, number in ((hold, 0), (null, 1), (log, 2)):
                os.dup2(fd, number)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            become(user)
            status = indexer.main([str(self._trace)], lambda: self._crowded[0] != 0)
        except BaseException:  # noqa: BLE001  nothing of ours may run on in a forked copy
            traceback.print_exc()
        finally:
            os._exit(status)

    def let(self, written: int) -> None:
        """Indexing stands back while the command does much to files, but not for ever.

        Even at idle priority it takes memory bandwidth, and a processor where the kernel is not preempted. Who does
        little does not notice. `written`: bytes of journal so far.
        """
        now = time.monotonic()
        if not self._looked:
            self._looked, self._seen = now, written
        if written - self._seen > MUCH * LOOK:
            self._much = True
        if now - self._looked > LOOK:
            self._much = written - self._seen > MUCH * (now - self._looked)
            self._looked, self._seen = now, written
        if not self._much:
            self._indexable = written
        self._crowded[0] = self._much and written - self._indexable < UNINDEXED_MOST

    def hurry(self) -> None:
        """The journal is whole, and the command has ended: nobody is in its way any more."""
        with suppress(OSError):
            os.sched_setscheduler(self.pid, os.SCHED_OTHER, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, self.pid, 0)
        os.close(self._input)

    def finish(self, ui: Progress) -> None:
        """After `hurry`: wait until it comes to the end; what it leaves, we do."""
        ended = os.pidfd_open(self.pid)
        while not select.select([ended], [], [], PROGRESS)[0]:
            ui.progress("indexing", 0, 0)
        os.close(ended)
        _, status = os.waitpid(self.pid, 0)
        log = self._trace / INDEXER_LOG
        if not log.stat().st_size:
            log.unlink()
        if status:
            indexer.index(self._trace, trusted=True, progress=lambda done, total: ui.progress("indexing", done, total))

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
