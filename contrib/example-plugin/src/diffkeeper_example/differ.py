"""The affix differ."""

import struct
from typing import ClassVar

from diffkeeper.plugins import Differ

HEADER = struct.Struct("<QQ")  # bytes kept at the start of the base, and at its end


class Affix(Differ):
    """Keeps the common beginning and end; good for files that change in one place."""

    name: ClassVar[str] = "affix/1"

    def diff(self, base: bytes, target: bytes) -> bytes | None:
        head = common(base, target)
        most = min(len(base), len(target)) - head
        tail = min(most, common(base[::-1], target[::-1]))
        patch = HEADER.pack(head, tail) + target[head : len(target) - tail]
        return patch if len(patch) < len(target) else None

    def apply(self, base: bytes, patch: bytes) -> bytes:
        if len(patch) < HEADER.size:
            raise ValueError("the patch is cut off")
        head, tail = HEADER.unpack_from(patch)
        if head + tail > len(base):
            raise ValueError("the patch keeps more than there is")
        return base[:head] + patch[HEADER.size :] + base[len(base) - tail :]


def common(one: bytes, other: bytes) -> int:
    """How many bytes both begin with."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
