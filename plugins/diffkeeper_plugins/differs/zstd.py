"""The zstd differ: a target compressed with its base as the dictionary. Fast, and sparing of memory.

Owns the patch's form: the size of the target, then one zstd frame, as `zstd --patch-from` makes it.
The same bytes come from the same version of libzstd; whatever version made it, a patch can be applied.
"""

from __future__ import annotations

import struct
from typing import ClassVar

import zstandard

from diffkeeper.errors import PluginError
from diffkeeper.plugins import Differ

SIZE_LIMIT = 64 << 20
"""Longest base and target, in bytes; no blob of a trace is longer."""
LEVELS = range(1, 20)

_HEADER = struct.Struct("<I")
_MIN_WINDOW, _MAX_WINDOW = 10, 27  # as powers of two
_MAX_TABLE = 22  # as a power of two: 40 MiB of memory with what comes with it


class Zstd(Differ):
    """zstd patches: the smallest of most edits, and far quicker to make and apply than bsdiff4's."""

    name: ClassVar[str] = "zstd/1"

    def __init__(self, level: int = 9) -> None:
        if level not in LEVELS:
            raise PluginError(f"the differ 'zstd' takes a level from {LEVELS[0]} to {LEVELS[-1]}, not {level}")
        self._level = level

    def diff(self, base: bytes, target: bytes) -> bytes | None:
        if not base or not target or len(base) > SIZE_LIMIT or len(target) > SIZE_LIMIT:
            return None
        # The window must reach from the end of the target back to the beginning of the base.
        window = min(_MAX_WINDOW, max(_MIN_WINDOW, (len(base) + len(target)).bit_length()))
        # With a place for each byte: with half of that, and with what most levels have, most of a base is forgotten
        # before it is needed; more would take longer to clear than to search.
        table = min(_MAX_TABLE, window - 1)
        # No long-distance matching: it sees nothing of a dictionary, and is in the way of the search that does.
        parameters = zstandard.ZstdCompressionParameters.from_level(
            self._level, source_size=len(target), dict_size=len(base), window_log=window, enable_ldm=False,
            hash_log=table, chain_log=table, write_content_size=0, write_checksum=0, write_dict_id=0,
        )  # fmt: skip
        compressor = zstandard.ZstdCompressor(compression_params=parameters, dict_data=_dictionary(base))
        patch = _HEADER.pack(len(target)) + compressor.compress(target)
        return patch if len(patch) < len(target) else None

    def apply(self, base: bytes, patch: bytes) -> bytes:
        if len(patch) < _HEADER.size:
            raise ValueError("the patch is cut off")
        (size,) = _HEADER.unpack_from(patch)
        if size > SIZE_LIMIT:
            raise ValueError(f"the patch claims to make {size} bytes; more than {SIZE_LIMIT} is refused")
        decompressor = zstandard.ZstdDecompressor(dict_data=_dictionary(base), max_window_size=1 << _MAX_WINDOW)
        try:
            # The frame may claim any size in its header: the object reads no more than asked for.
            with decompressor.stream_reader(patch[_HEADER.size :]) as reader:
                target = reader.read(size + 1)
        except (zstandard.ZstdError, MemoryError) as error:
            raise ValueError(f"the patch is damaged: {error}") from error
        if len(target) != size:
            raise ValueError("the patch makes another size than it says")
        return target


def _dictionary(base: bytes) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
