"""`diffkeeper` for which no page stays dirty for long: files count as unchanged however young they are."""

from __future__ import annotations

from diffkeeper.cli import main
from diffkeeper.record import earlier

if __name__ == "__main__":
    earlier.longest_dirty = lambda: 0
    main()
