"""Filters at work: several asked as one, what they left out, and what they cost.

Owns the order of asking, the memory of verdicts on directories, what happens when a filter raises,
and the settling of options before a recording. What a filter is, and how it is found and made, is
`diffkeeper.plugins`. Used by the recorder, the indexer, and whatever reads a trace.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import structs

from .errors import DiffKeeperError, PluginError
from .model import NO_SEQ, Event, Filtered, Op
from .paths import below_root, paths_of
from .plugins import EventFilter, make_filter, warn

if TYPE_CHECKING:
    from .trace import Trace

Spec = tuple[str, Mapping[str, str]]
"""Name of a filter plugin, and its options."""

KEPT = -1
EXAMPLES = 5
LONGEST = 1 << 20
"""Bytes of a file that a filter may read: a trace may come from a stranger."""

_KNOWN_VERDICTS = 100_000  # directories whose verdict is remembered


class Filters:
    """The filters in force, in order: what one rejects the next is not asked about. For one thread."""

    def __init__(self, specs: Sequence[Spec], roots: Sequence[bytes]) -> None:
        """Each is made from its name and options. Raises PluginError."""
        self._asked = [_Asked(name, make_filter(name, options)) for name, options in specs]
        self._path_judges = [(index, each) for index, each in enumerate(self._asked) if each.judges_paths]
        self._event_judges = [each for each in self._asked if each.judges_events]
        self._roots = roots
        self._known: dict[bytes, int] = {}

    @classmethod
    def of(cls, trace: Trace, specs: Sequence[Spec], *, only_paths: bool = False) -> Filters:
        """To be asked about a trace's paths and events, from any event on, in order. Raises PluginError.

        `only_paths`: not about events, for which a filter may have to look at the whole trace first.
        """
        filters = cls(settled(specs, lambda name: _recorded(trace, name)), trace.roots)
        for each in filters._asked if not only_paths else ():
            each.begin(trace)
        return filters

    def __bool__(self) -> bool:
        return bool(self._asked)

    @property
    def judges_paths(self) -> bool:
        """Whether a path can be rejected."""
        return bool(self._path_judges)

    @property
    def judges_events(self) -> bool:
        """Whether an event can be rejected though its path is kept."""
        return bool(self._event_judges)

    def only_events(self) -> list[str]:
        """The names of those that have no verdict on paths."""
        return [each.name for each in self._asked if not each.judges_paths]

    def keeps_path(self, path: bytes, is_dir: bool) -> bool:
        """Whether all keep an absolute path, and all directories above it up to the root."""
        return self.rejected_by(path, is_dir) == KEPT

    def rejected_by(self, path: bytes, is_dir: bool) -> int:
        """Which filter rejects the path, or a directory above it; KEPT: none does."""
        if not self._path_judges:
            return KEPT
        if is_dir and path in self._known:
            return self._known[path]
        below = below_root(path, self._roots)
        if below is None and any(below_root(root, (path,)) is not None for root in self._roots):
            return KEPT  # what is above a root is no matter of taste
        above = path.rpartition(b"/")[0]
        verdict = self.rejected_by(above, True) if below and above else KEPT
        if verdict == KEPT:
            asked = path if below is None else below
            verdict = next((index for index, each in self._path_judges if not each.keep_path(asked, is_dir)), KEPT)
        if is_dir:
            if len(self._known) >= _KNOWN_VERDICTS:
                self._known.clear()
            self._known[path] = verdict
        return verdict

    def keeps(self, event: Event) -> bool:
        """Whether all keep an event, and one of its paths where it has any. Events are asked about in order."""
        if not self._asked:
            return True
        is_dir = event.op in (Op.MKDIR, Op.RMDIR)
        paths = paths_of(event)
        if paths and not any(self.keeps_path(path, is_dir) for path in paths):
            return False
        return all(each.keep(event) for each in self._event_judges)

    def count(self, path: bytes, is_dir: bool, *, before: bool = False) -> None:
        """Something at this path is left out, if it is rejected. `before`: it stood there before the command."""
        index = self.rejected_by(path, is_dir)
        if index == KEPT:
            return
        asked = self._asked[index]
        if before:
            asked.before += 1
        else:
            asked.events += 1
        self.name(path, is_dir)

    def count_events(self, numbers: Sequence[int]) -> None:
        """So many calls were left out by each filter, in their order."""
        for asked, number in zip(self._asked, numbers, strict=False):
            asked.events += number

    def name(self, path: bytes, is_dir: bool) -> None:
        """Something at this path is left out: an example of it, if there are not enough."""
        index = self.rejected_by(path, is_dir)
        asked = self._asked[index]
        if index != KEPT and len(asked.examples) < EXAMPLES:
            while (above := path.rpartition(b"/")[0]) and self.rejected_by(above, True) != KEPT:
                path, is_dir = above, True
            below = below_root(path, self._roots)
            name = os.fsdecode(path if below is None else below) + ("/" if is_dir else "")
            asked.examples = tuple(dict.fromkeys((*asked.examples, name)))

    def report(self) -> tuple[Filtered, ...]:
        """For each filter, what was counted so far."""
        return tuple(
            Filtered(each.name, each.before, each.events, each.examples, each.time, each.error) for each in self._asked
        )


class _Asked:
    """One filter, with the time that it takes and what it left out. What it raises means "keep"."""

    def __init__(self, name: str, made: EventFilter) -> None:
        self.name, self._made = name, made
        kind = type(made)
        self.judges_paths = kind.keep_path is not EventFilter.keep_path
        self.judges_events = kind.keep is not EventFilter.keep
        self.before = self.events = self.time = 0
        self.examples: tuple[str, ...] = ()
        self.error = ""

    def begin(self, trace: Trace) -> None:
        try:
            self._made.begin(trace)
        except DiffKeeperError:
            raise
        except Exception as error:
            raise PluginError(f"the filter {self.name!r} cannot begin: {type(error).__name__}: {error}") from error

    def keep_path(self, path: bytes, is_dir: bool) -> bool:
        return self._answer(lambda: self._made.keep_path(path, is_dir))

    def keep(self, event: Event) -> bool:
        return self._answer(lambda: self._made.keep(event))

    def _answer(self, question: Callable[[], bool]) -> bool:
        began = time.perf_counter_ns()
        try:
            return bool(question())
        except Exception as error:  # noqa: BLE001  a plugin may raise anything, and must not cost a recording
            if not self.error:
                self.error = f"{type(error).__name__}: {error}"
                warn("the filter %r failed, what it was asked about is kept: %s", self.name, self.error)
            return True
        finally:
            self.time += time.perf_counter_ns() - began


def settled(specs: Sequence[Spec], read: Callable[[str], Sequence[bytes]]) -> tuple[Spec, ...]:
    """The specs with options that say all, so that nothing has to be read again to make the same filters.

    `read`: what `EventFilter.settled` is given. Raises PluginError.
    """
    found = []
    for name, options in specs:
        made = make_filter(name, options)
        try:
            found.append((name, dict(made.settled(options, read))))
        except DiffKeeperError:
            raise
        except Exception as error:
            raise PluginError(f"the filter {name!r} cannot be set up: {type(error).__name__}: {error}") from error
    return tuple(found)


def event_filters(trace: Trace) -> tuple[Spec, ...]:
    """Of the filters of a recording those that judge events: the trace has what they reject. Raises PluginError."""
    return tuple(spec for spec in trace.session.filters if Filters([spec], trace.roots).judges_events)


def read_at(roots: Sequence[bytes], name: str) -> list[bytes]:
    """The content of the files of a name at the top of each root, as they are now; those that can be read."""
    found = []
    for root in roots:
        try:
            fd = os.open(os.path.join(root, os.fsencode(name)), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            continue
        with open(fd, "rb") as file:
            found.append(_short(name, file.read(LONGEST + 1)))
    return found


def merged(one: Sequence[Filtered], other: Sequence[Filtered]) -> tuple[Filtered, ...]:
    """What two that were asked at different times have counted together; either may be empty."""
    if not one or not other:
        return tuple(one or other)
    return tuple(
        structs.replace(
            a, before=a.before + b.before, events=a.events + b.events, time=a.time + b.time, error=a.error or b.error,
            examples=tuple(dict.fromkeys((*a.examples, *b.examples)))[:EXAMPLES],
        )
        for a, b in zip(one, other, strict=True)
    )  # fmt: skip


def _recorded(trace: Trace, name: str) -> list[bytes]:
    """As `read_at`, from a trace: as it was at the start, or if it was not there yet, at the end."""
    found = []
    for root in trace.roots:
        for seq in (NO_SEQ, trace.reader.last_seq):
            node = trace.reader.resolve(os.path.join(root, os.fsencode(name)), seq)
            attrs = trace.reader.attrs(node, seq) if node else None
            if node and attrs is not None and attrs.is_file:
                found.append(_short(name, trace.reader.read(node, seq, 0, LONGEST + 1)))
                break
    return found


def _short(name: str, content: bytes) -> bytes:
    if len(content) > LONGEST:
        raise PluginError(f"{name} is longer than {LONGEST >> 20} MiB: that is no list of patterns")
    return content
