"""Facts about the recording: session.json, and the totals that grow while it is indexed.

Owns TRACE/session.json (what is known when the command starts, written by whoever records) and
the META entry `session` (the whole, as far as indexed). Bytes that are not UTF-8 stand in the
JSON as surrogate escapes. Facts that are damaged are unknown, and that is noted; a trace can be
read without them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from ..errors import DiffKeeperError, NotATraceError, TraceDamagedError, TraceMissingError, TraceTooNewError
from ..model import Session
from .db import Txn
from .tables import Table

FORMAT = 3
"""Of the store. 1 had no XATTRS, 2 no PACKED content; they are read, and finished, as ever."""
FACTS_FILE = "session.json"
_FACTS_LIMIT = 16 << 20
_FACTS = ("format", "version", "command", "cwd", "roots", "trace", "host", "kernel", "filters", "differ")
_KEY = b"session"


def write_facts(trace_dir: Path, session: Session) -> None:
    """Write session.json, mode 0600, whole or not at all."""
    facts = {name: _text(getattr(session, name)) for name in _FACTS}
    temporary = trace_dir / (FACTS_FILE + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="ascii") as out:
        json.dump(facts, out, indent=1)
    temporary.rename(trace_dir / FACTS_FILE)


def sync_facts(trace_dir: Path) -> None:
    """Return when session.json would survive a power cut."""
    for path in (trace_dir / FACTS_FILE, trace_dir):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def read_facts(trace_dir: Path) -> Session:
    """What session.json says; where that is damaged, what can be said without, with a note.

    Raises TraceMissingError, NotATraceError, TraceTooNewError.
    """
    data = _read(trace_dir)
    try:
        return _decode(data, str(trace_dir / FACTS_FILE))
    except TraceDamagedError as error:
        return Session(
            format=FORMAT, version="", command=(), cwd=b"/", roots=(b"/",), trace=os.fsencode(trace_dir.resolve()),
            started=0, notes=(_noted(error),),
        )  # fmt: skip


def damage(trace_dir: Path) -> str:
    """What is wrong with session.json, as a note; empty: nothing. Raises what `read_facts` does."""
    try:
        _decode(_read(trace_dir), str(trace_dir / FACTS_FILE))
    except TraceDamagedError as error:
        return _noted(error)
    return ""


def is_trace(directory: bytes) -> bool:
    """Whether a trace lies in a directory, be it one that is being recorded."""
    try:
        os.lstat(os.path.join(directory, os.fsencode(FACTS_FILE)))  # most directories have none
        return not damage(Path(os.fsdecode(directory)))
    except TraceTooNewError:
        return True
    except (OSError, DiffKeeperError):
        return False


def _noted(error: TraceDamagedError) -> str:
    return f"{error}; what only it says of the recording is not known"


def _read(trace_dir: Path) -> bytes:
    path = trace_dir / FACTS_FILE
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a stranger's may be a link, or a pipe
        with open(os.open(path, flags), "rb") as file:
            return file.read(_FACTS_LIMIT + 1)
    except FileNotFoundError as error:
        if not trace_dir.exists():
            raise TraceMissingError(f"{trace_dir}: there is no trace here") from error
        raise NotATraceError(f"{trace_dir} is not a trace: it has no {FACTS_FILE}") from error
    except NotADirectoryError as error:
        raise NotATraceError(f"{trace_dir} is not a trace: it is not a directory") from error
    except OSError as error:
        raise NotATraceError(f"{trace_dir} cannot be read as a trace: {error.strerror}") from error


def check_format(number: object, where: str) -> None:
    if not isinstance(number, int) or number < 1:
        raise TraceDamagedError(f"damaged trace: {where}: its format is given as {number!r}")
    if number > FORMAT:
        raise TraceTooNewError(f"this trace has format {number}, newer than this DiffKeeper ({FORMAT}): update it")


def save(txn: Txn, session: Session) -> None:
    facts = {name: _text(value) for name, value in structs.asdict(session).items()}
    facts["format"] = FORMAT  # what writes now says what is written, whatever recorded
    txn.put(Table.META, _KEY, json.dumps(facts).encode("ascii"))


def load(txn: Txn) -> Session | None:
    """As saved by the last transaction; None before the first. Raises TraceTooNewError, TraceDamagedError."""
    data = txn.get(Table.META, _KEY)
    return None if data is None else _decode(data, "its session")


def known(txn: Txn, trace_dir: Path, events: int) -> Session:
    """The session as far as it is not damaged, with a note of what is. `events`: there are, by the timeline."""
    notes = [damage(trace_dir)]
    try:
        found = load(txn)
    except TraceDamagedError as error:
        notes.append(_noted(error))
        found = None
    found = found or structs.replace(read_facts(trace_dir), events=events)
    return structs.replace(found, notes=tuple(dict.fromkeys((*found.notes, *filter(None, notes)))))


def _decode(data: bytes, where: str) -> Session:
    if len(data) > _FACTS_LIMIT:
        raise TraceDamagedError(f"damaged trace: {where} is longer than {_FACTS_LIMIT} bytes")
    try:
        facts = json.loads(data)
        check_format(facts["format"], where)
        for name in ("cwd", "trace"):
            facts[name] = os.fsencode(facts[name])
        facts["roots"] = [os.fsencode(root) for root in facts["roots"]]
        facts["traces"] = [os.fsencode(path) for path in facts.get("traces", ())]
        session = msgspec.convert({"started": 0, **facts}, Session)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TraceDamagedError(f"damaged trace: {where}: {error}") from error
    if session.events < 0 or not all(root.startswith(b"/") for root in session.roots):
        raise TraceDamagedError(f"damaged trace: {where} makes no sense")
    if session.filtered and len(session.filtered) != len(session.filters):
        raise TraceDamagedError(f"damaged trace: {where} counts for other filters than it names")
    return session


def _text(value: object) -> object:
    """JSON has no bytes: surrogate escapes stand for what is not UTF-8."""
    if isinstance(value, bytes):
        return os.fsdecode(value)
    if isinstance(value, Struct):
        return _text(structs.asdict(value))
    if isinstance(value, Mapping):
        return {str(_text(key)): _text(item) for key, item in value.items()}
    return [_text(item) for item in value] if isinstance(value, tuple | list) else value
