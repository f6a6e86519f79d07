"""What a plugin is, and how plugins are found: the ABCs Differ, EventFilter and Exporter.

Owns the three interfaces, the look-up of plugins by name through entry points, and the making of
an instance from `key=value` options. It runs no plugin: differs are used by `diffkeeper.store`,
filters by `diffkeeper.filtering`, exporters by `diffkeeper.exporting`. The only importer of
stevedore, and only when a plugin is asked for.

Entry point groups: `diffkeeper.differs`, `diffkeeper.filters`, `diffkeeper.exporters`. The entry
point's name is the plugin's name; its object is a class derived from the ABC. Options are the
keyword parameters of the constructor, typed `str`, `int`, `float`, `bool` or `tuple[str, ...]`
(written with commas between).
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, ClassVar

from msgspec import Struct

from .errors import PluginError, Stopped

if typing.TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from .exporting import Exported, Selection
    from .model import Event
    from .progress import Progress
    from .trace import Trace


class Differ(ABC):
    """Makes and applies patches between two versions of a file's content.

    Pure and deterministic: the same arguments give the same bytes, and every later version of the
    plugin that keeps `name` applies what earlier ones made. One instance is used by one thread at a time.
    """

    name: ClassVar[str]
    """Stored with every patch: the entry point's name, "/", and a number that changes whenever
    old patches could no longer be applied, e.g. `bsdiff4/1`."""

    @abstractmethod
    def diff(self, base: bytes, target: bytes) -> bytes | None:
        """The patch that turns `base` into `target`; None where it would not pay or cost too much.

        Called while a trace is indexed, once for a file that was rewritten as a whole. The core
        compares the patch with the compressed target and keeps the smaller. Must not raise.
        """

    @abstractmethod
    def apply(self, base: bytes, patch: bytes) -> bytes:
        """The target. Called whenever a stored content is read; the core checks its digest.

        `patch` comes from a file that may be damaged or hostile: raises ValueError for a patch
        that does not fit, and takes memory in proportion to what `diff` can have made. Asked of an instance
        that was made without options, whatever options that one had which made the patch.
        """


class EventFilter:
    """Decides what is recorded or shown. Both verdicts are pure; override one or both.

    `keep_path` decides about files. `record --filter` asks it: what it rejects is in no moment, and below a rejected
    directory not even copied by the kernel. `keep` decides
    about events, and is asked by `timeline`, `export` and `diff`, about events of files that are kept; a
    recording has every event all the same, or its moments would be wrong, and only its timeline leaves out what
    `keep` rejects. A verdict that raises means "keep": the user is told once, and `info` says so. One instance
    is used by one thread at a time; the recorder and the indexer, which are two processes, have one each.
    """

    def settled(self, given: Mapping[str, str], read: Callable[[str], Sequence[bytes]]) -> Mapping[str, str]:
        """Options that make this very filter again, later and elsewhere, when nothing can be read any more.

        Called once, before the filter that is used is made from what is returned. `given`: the options as
        the user wrote them, to be returned by a filter that reads no files. `read(name)` gives the content
        of the file `name` at the top of each root that has one: before a recording the real file, later what
        the trace has at the start, or else at the end. May raise PluginError.
        """
        del read
        return given

    def begin(self, trace: Trace) -> None:
        """Called once before the first `keep`, with the trace (open, complete) whose events it will be asked about.

        Not called where only paths are judged, as while recording. May raise PluginError.
        """
        del trace

    def keep_path(self, path: bytes, is_dir: bool) -> bool:
        """Whether the file at `path` matters at all. Called any number of times for one path, in any order.

        `path` is relative to the root it lies under, without a leading slash (`build/x.o`, and
        empty for the root itself), or absolute when it is outside every root. False for a
        directory leaves out everything beneath it, unasked. Should take microseconds: `info` shows what it took.
        """
        del path, is_dir
        return True

    def keep(self, event: Event) -> bool:
        """Whether this event matters. `event.path` is absolute, `event.time` in nanoseconds since the command's
        start. Called in the order of events, not always from the first one on."""
        del event
        return True


class Exporter(ABC):
    """Turns a moment of a trace into something else. Used through `diffkeeper.exporting.export`.

    The entry point's name is the format: an exporter named `tar` is the one for DEST `x.tar`. One
    instance does one export, in one thread.
    """

    streams: ClassVar[bool] = False
    """Whether `destination` may be an open binary file (`--out -`), which may not be seekable."""

    of_range: ClassVar[bool] = False
    """Whether it is made of the events from `selection.first` to the moment (`--since`, `--until`);
    else of what stands at the moment (`--time`)."""

    resumes: ClassVar[bool] = False
    """Whether `destination` may be there, with what an earlier attempt at the very same export has made
    before it was stopped (`--resume`)."""

    unit: ClassVar[str] = "entries"
    """What `Exported.entries` counts, for the line that says what was done."""

    given: tuple[str, Mapping[str, str]] = "", MappingProxyType({})
    """Name and options it was made from; set by whoever made it."""

    @abstractmethod
    def export(self, trace: Trace, selection: Selection, destination: Path | BinaryIO, progress: Progress) -> Exported:
        """Write the selection to `destination` and say what was written.

        A path does not exist yet (but see `resumes`), and lies in a private place: the caller moves the result where
        the user wants it once this returns, and removes it if this raises. So write straight to
        it, and to nowhere else. A binary file is written to and left open. Memory must not grow
        with the content. Tells `progress` how far it is, and lets through what that raises. Raises DiffKeeperError
        or OSError.
        """


class Option(Struct, frozen=True):
    """A constructor parameter. `default` is its source text, None: it must be given."""

    name: str
    type: str
    default: str | None


class PluginInfo(Struct, frozen=True):
    """One entry point as found. `error`: why it cannot be used; None: it can."""

    kind: str  # "differ", "filter" or "exporter"
    name: str
    distribution: str
    version: str
    options: tuple[Option, ...] = ()
    summary: str = ""  # first line of the class's docstring
    error: str | None = None


KINDS: dict[str, tuple[str, type]] = {
    "differ": ("diffkeeper.differs", Differ),
    "filter": ("diffkeeper.filters", EventFilter),
    "exporter": ("diffkeeper.exporters", Exporter),
}
"""Kind -> entry point group and the class its plugins derive from."""

CORE_DIFFERS = "auto", "raw"
"""What `--differ` takes that is no plugin: the policy, and none at all. No plugin may have these names."""

_TRUE, _FALSE = frozenset({"true", "yes", "on", "1"}), frozenset({"false", "no", "off", "0"})


def make_differ(name: str, options: Mapping[str, str]) -> Differ:
    """A new differ, to make patches with. Raises PluginError: unknown, broken, or not to be made with these options."""
    made: Differ = _make("differ", name, options)
    return made


def home(kind: str, name: str) -> str:
    """The distribution that brings a plugin; empty when none is known."""
    entry = next((entry for entry in _entries(KINDS[kind][0]) if entry.name == name), None)
    return entry.dist.name if entry and entry.dist else ""


@functools.cache
def differ(stored_name: str) -> Differ:
    """The differ that made the patches stored under `stored_name`, e.g. "bsdiff4/1".

    Raises PluginError, naming what is missing.
    """
    name = stored_name.partition("/")[0]
    if name not in names("differ"):
        raise PluginError(f"this needs the differ {stored_name!r}, which is not installed")
    found: Differ = _make("differ", name, {})
    if found.name != stored_name:
        raise PluginError(f"this needs the differ {stored_name!r}, but what is installed is {found.name!r}")
    return found


def make_filter(name: str, options: Mapping[str, str]) -> EventFilter:
    """A new filter. Raises PluginError: unknown, broken, or not to be made with these options."""
    made: EventFilter = _make("filter", name, options)
    return made


def exporter(name: str, options: Mapping[str, str]) -> Exporter:
    """A new exporter. Raises PluginError: unknown, broken, or not to be made with these options."""
    made: Exporter = _make("exporter", name, options)
    made.given = name, dict(options)
    return made


def names(kind: str) -> list[str]:
    """The names of all plugins of a kind, sorted, without loading any."""
    return sorted({entry.name for entry in _entries(KINDS[kind][0])})


def available() -> list[PluginInfo]:
    """Every plugin that is installed, broken ones with their error; sorted by kind, then name."""
    found = []
    for kind, (group, _) in KINDS.items():
        for entry in sorted(_entries(group), key=lambda entry: entry.name):
            source = entry.dist
            distribution, version = (source.name, source.version) if source else ("?", "?")
            try:
                plugin = _load(kind, entry.name)
                options, error = _options(plugin), None
                summary = (inspect.getdoc(plugin) or "").partition("\n")[0]
            except PluginError as broken:
                options, summary, error = (), "", str(broken)
            found.append(PluginInfo(kind, entry.name, distribution, version, options, summary, error))
    return found


@functools.cache
def _entries(group: str) -> list[EntryPoint]:
    """Entry points of a group.

    Handed to stevedore as its in-process cache, because what it would read them with itself writes
    a file below the user's home, which may be the very tree that is recorded.
    """
    from importlib.metadata import entry_points

    from stevedore import ExtensionManager

    found = list(dict.fromkeys(entry_points(group=group)))
    ExtensionManager.ENTRY_POINT_CACHE[group] = found
    return found


@functools.cache
def _load(kind: str, name: str) -> type:
    """The class a plugin's entry point names; nothing else of its group is imported."""
    from stevedore import NamedExtensionManager

    group, base = KINDS[kind]
    entries = [entry for entry in _entries(group) if entry.name == name]
    if not entries:
        there_are = ", ".join([*(CORE_DIFFERS if kind == "differ" else ()), *names(kind)]) or "none"
        raise PluginError(f"there is no {kind} {name!r}; there are: {there_are}. Is its distribution installed?")
    if len(entries) > 1:
        homes = " and ".join(sorted(entry.dist.name if entry.dist else entry.value for entry in entries))
        raise PluginError(f"two {kind}s are named {name!r}, by {homes}; uninstall one")
    failures: list[BaseException] = []
    manager: NamedExtensionManager[Any] | None = None
    try:
        manager = NamedExtensionManager(
            group,
            [name],
            on_load_failure_callback=lambda _manager, _entry, error: failures.append(error),
            on_missing_entrypoints_callback=None,
        )
    except Stopped:
        raise
    except (AssertionError, SystemExit) as unwilling:  # stevedore does not take these for failures to load
        failures.append(unwilling)
    if failures:
        error = failures[0]
        raise PluginError(f"cannot load the {kind} {name!r}: {type(error).__name__}: {error}") from error
    assert manager is not None
    plugin = manager[name].plugin
    if not (isinstance(plugin, type) and issubclass(plugin, base)):
        raise PluginError(f"the {kind} {name!r} does not derive from {base.__module__}.{base.__name__}: {plugin!r}")
    if inspect.isabstract(plugin):
        lacking = ", ".join(sorted(getattr(plugin, "__abstractmethods__", ())))
        raise PluginError(f"the {kind} {name!r} cannot be used: {plugin.__name__} does not define {lacking}")
    if kind == "differ":
        _check_readable(name, plugin)
    return plugin


def _check_readable(name: str, plugin: type) -> None:
    """What a differ makes is read later, by one that is found by the stored name and made without options."""
    stored_name = str(getattr(plugin, "name", ""))
    if name in CORE_DIFFERS:
        raise PluginError(f"no differ can be named {name!r}: that is what --differ calls its own")
    if stored_name.partition("/")[0] != name:
        raise PluginError(f"the differ {name!r} calls itself {stored_name!r}: its patches could not be read again")
    for option in _options(plugin):
        if option.default is None:
            what = f"the differ {name!r} has no default for {option.name!r}"
            raise PluginError(f"{what}: patches are read without options")


def _make(kind: str, name: str, options: Mapping[str, str]) -> Any:
    """An instance of the plugin, its options checked against the constructor and converted to its types."""
    plugin = _load(kind, name)
    what = f"the {kind} {name!r}"
    known = {option.name: option for option in _options(plugin)}
    for key in options:
        if key not in known:
            takes = f"; it takes {', '.join(known)}" if known else ": it takes none"
            raise PluginError(f"{what} has no option {key!r}{takes}")
    missing = [option.name for option in known.values() if option.default is None and option.name not in options]
    if missing:
        raise PluginError(f"{what} needs the option {missing[0]!r}")
    hints = _hints(plugin)
    arguments = {key: _convert(what, key, text, hints.get(key, str)) for key, text in options.items()}
    try:
        return plugin(**arguments)
    except PluginError:
        raise
    except Exception as error:
        raise PluginError(f"{what} cannot be made: {str(error) or type(error).__name__}") from error


def _options(plugin: type) -> tuple[Option, ...]:
    """The named parameters of a plugin's constructor. Raises PluginError where they cannot be read."""
    if plugin.__init__ is object.__init__:  # type: ignore[misc]  # of a class, and its own
        return ()
    try:
        parameters = inspect.signature(plugin).parameters.values()
        hints = _hints(plugin)
    except (TypeError, ValueError, NameError) as error:
        raise PluginError(f"the constructor of {plugin.__name__} cannot be read: {error}") from error
    found = []
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            continue
        default = None if parameter.default is parameter.empty else repr(parameter.default)
        found.append(Option(parameter.name, _type_name(hints.get(parameter.name, str)), default))
    return tuple(found)


def _hints(plugin: type) -> dict[str, Any]:
    return typing.get_type_hints(plugin.__init__)  # type: ignore[misc]  # of a class, and its own


def _plain(hint: Any) -> Any:
    """`X` for `X | None`: an option that is given is never None."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next((part for part in typing.get_args(hint) if part is not type(None)), str)
    return hint


def _type_name(hint: Any) -> str:
    plain = _plain(hint)
    return "list" if typing.get_origin(plain) is tuple else str(getattr(plain, "__name__", plain))


def _convert(what: str, key: str, text: str, hint: Any) -> Any:
    plain = _plain(hint)
    if plain is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise PluginError(f"{what}: {key} is true or false, not {text!r}")
        return text.lower() in _TRUE
    if plain in (int, float):
        try:
            return plain(text)
        except ValueError:
            number = "a whole number" if plain is int else "a number"
            raise PluginError(f"{what}: {key} is {number}, not {text!r}") from None
    if typing.get_origin(plain) is tuple:
        return tuple(part for part in text.split(",") if part)
    return text


def warn(message: str, *arguments: object) -> None:
    """Tell of a plugin that failed, where failing ends nothing."""
    import logging  # not above: it takes 4 ms, and is needed when something is wrong

    logging.getLogger("diffkeeper").warning(message, *arguments)
