"""The tar.zst exporter: what the tar exporter makes, compressed. The only exporter that imports zstandard.

Owns the compression's settings: one thread and no dates, so that the same trace gives the same bytes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import BinaryIO, cast

import zstandard

from diffkeeper.errors import PluginError
from diffkeeper_plugins.exporters.tar import TarExporter

LEVELS = range(1, 20)  # above 19 decompressing takes more memory than tools allow by default


class TarZstExporter(TarExporter):
    """A POSIX tar archive, compressed with zstd; reproducible byte for byte."""

    def __init__(self, level: int = 9) -> None:
        if level not in LEVELS:
            raise PluginError(f"the exporter 'tar.zst' takes a level from {LEVELS[0]} to {LEVELS[-1]}, not {level}")
        self._level = level

    def packed(self, file: BinaryIO) -> AbstractContextManager[BinaryIO]:
        compressor = zstandard.ZstdCompressor(level=self._level, write_checksum=True)
        return cast("AbstractContextManager[BinaryIO]", compressor.stream_writer(file, closefd=False))
