"""Paths, sizes and times in words: text that is safe to print, on one line.

Owns how a byte string that may hold anything is shown to people. Knows no terminal.
"""

from __future__ import annotations

from datetime import UTC, datetime

_NAMED_ESCAPES = {"\n": r"\n", "\t": r"\t", "\r": r"\r", "\x1b": r"\e"}


def printable(text: bytes | str) -> str:
    r"""`text` on one line with nothing in it that a terminal would obey.

    Bytes are taken as UTF-8. What is not UTF-8 and what is not printable (control characters,
    direction overrides, line separators) is shown as an escape such as `\xff` or `\n`.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    code = ord(char)
    if char in _NAMED_ESCAPES:
        return _NAMED_ESCAPES[char]
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def date_of(nanoseconds: int) -> datetime | None:
    """A time since 1970, in UTC. None: no calendar has it; the clock of a stranger may have been anything."""
    try:
        moment = datetime.fromtimestamp(nanoseconds / 1e9, UTC)
        moment.astimezone()  # at the ends of the calendar not everywhere
    except (ValueError, OverflowError, OSError):
        return None
    return moment


def human_size(count: int) -> str:
    """Bytes as at most four significant characters and a unit: `17 B`, `4.0 KiB`, `1.2 GiB`."""
    if count < 1024:
        return f"{count} B"
    amount = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        amount /= 1024
        if amount < 1023.95:
            return f"{amount:.1f} {unit}" if amount < 99.95 else f"{amount:.0f} {unit}"
    return f"{amount / 1024:.1f} PiB"


def human_duration(nanoseconds: int) -> str:
    """`350ms`, `12.350s`, `2m14.350s`, `1h02m03s`."""
    milliseconds = nanoseconds // 1_000_000
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02}m{seconds:02}s"
    if minutes:
        return f"{minutes}m{seconds:02}.{milliseconds:03}s"
    return f"{seconds}.{milliseconds:03}s" if seconds else f"{milliseconds}ms"
