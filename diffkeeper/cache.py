"""Small files that spare a run what was found out before: kernel layouts, compiled programs, sound indexes.

Everything in the cache can be made again; entries are named by what they depend on.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def directory() -> Path:
    """Where things that cost time to find out are kept: the system's place for root, the user's else."""
    if os.geteuid() == 0:
        return Path("/var/cache/diffkeeper")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffkeeper"


def write(path: Path, data: bytes) -> None:
    """Whole or not at all. A cache that cannot be written costs time, nothing else."""
    with suppress(OSError):
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        made = path.with_name(f".{path.name}-{os.getpid()}")  # tempfile takes 5 ms to import
        made.unlink(missing_ok=True)
        # For nobody else to write to, whatever the umask: what lies here is loaded into the kernel.
        with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
        made.replace(path)
