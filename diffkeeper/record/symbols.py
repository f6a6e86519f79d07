"""Where something of the running kernel lies, by its name. For kernels on which nothing else tells."""

from __future__ import annotations

from pathlib import Path

SYMBOLS = Path("/proc/kallsyms")


def address(name: str) -> int:
    """Of a symbol; 0 where it is not told, or not to this user."""
    try:
        listing = SYMBOLS.read_bytes()
    except OSError:
        return 0
    end = listing.find(b" %b\n" % name.encode())
    line = listing[listing.rfind(b"\n", 0, end) + 1 : end] if end >= 0 else b"0"
    return int(line.split()[0], 16)
