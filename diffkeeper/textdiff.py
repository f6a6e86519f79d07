"""Unified diffs of two contents, as `patch` reads them. Pure: bytes in, lines of bytes out.

Owns what counts as text and how much work a line-by-line comparison may be. What two files have in
common at their beginning and end costs nothing but reading, so an appended log of megabytes is fine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

CONTEXT = 3
SIZE_LIMIT = 16 << 20
"""Bytes; longer contents are not compared line by line."""
DIFFERING_LIMIT = 20_000
"""Lines between the common beginning and end, of both contents together."""


def is_text(content: bytes) -> bool:
    """As git has it: no NUL near the beginning."""
    return b"\0" not in content[:8000]


def unified(old: bytes, new: bytes) -> list[bytes] | None:
    """Hunks with their `@@` lines, without line ends; empty if equal.

    None where a comparison by lines is not possible or would take too long.
    """
    if max(len(old), len(new)) > SIZE_LIMIT or not (is_text(old) and is_text(new)):
        return None
    before, after = _lines(old), _lines(new)
    head = _common(before, after)
    tail = _common(before[head:][::-1], after[head:][::-1])
    if len(before) + len(after) - 2 * (head + tail) > DIFFERING_LIMIT:
        return None
    start, rest = max(0, head - CONTEXT), max(0, tail - CONTEXT)
    middle = before[start : len(before) - rest], after[start : len(after) - rest]
    return list(_hunks(*middle, start))


def _lines(content: bytes) -> list[bytes]:
    """Lines with their ends, split at newlines only."""
    lines = [line + b"\n" for line in content.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def _common(one: Sequence[bytes], other: Sequence[bytes]) -> int:
    shorter = min(len(one), len(other))
    return next((at for at in range(shorter) if one[at] != other[at]), shorter)


def _hunks(before: list[bytes], after: list[bytes], offset: int) -> Iterator[bytes]:
    for group in SequenceMatcher(None, before, after).get_grouped_opcodes(CONTEXT):
        (_, old_start, _, new_start, _), (_, _, old_end, _, new_end) = group[0], group[-1]
        old, new = _range(old_start + offset, old_end + offset), _range(new_start + offset, new_end + offset)
        yield b"@@ -%s +%s @@" % (old, new)
        for tag, a, b, c, d in group:
            if tag == "equal":
                for line in before[a:b]:
                    yield from _marked(b" ", line)
                continue
            for line in before[a:b]:
                yield from _marked(b"-", line)
            for line in after[c:d]:
                yield from _marked(b"+", line)


def _marked(mark: bytes, line: bytes) -> Iterator[bytes]:
    if line.endswith(b"\n"):
        yield mark + line[:-1]
    else:
        yield mark + line
        yield b"\\ No newline at end of file"


def _range(start: int, end: int) -> bytes:
    """First line, from 1, and number of lines; an empty range names the line before it."""
    length = end - start
    return b"%d" % (start + 1) if length == 1 else b"%d,%d" % (start + 1 if length else start, length)
