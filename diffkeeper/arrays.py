"""numpy, as all of this package has it: imported here and nowhere else.

Owns that it is loaded when something of it is first asked for, since to load it takes half of what a short command
takes; and that a program of ours has no threads of OpenBLAS: numpy starts one for each processor but the first, for
matrices that are not made here, and each turns in circles for 0.1 s before it sleeps, while it is the recorded
command that could run. Whoever imports this package into a program of their own gets numpy as they set it up.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["is_loaded", "load", "np", "npt"]

_THREADS = "OPENBLAS_NUM_THREADS"


def is_loaded() -> bool:
    return "numpy" in sys.modules


def load() -> Any:
    """The module itself. For who is about to become somebody that may not read where it lies."""
    ours = "diffkeeper.cli" in sys.modules and _THREADS not in os.environ
    if ours:
        os.environ[_THREADS] = "1"
    try:
        return importlib.import_module("numpy")
    finally:
        if ours:
            del os.environ[_THREADS]  # the recorded command has the environment that it would have had


class _Numpy:
    """Has what numpy has, once it was asked for it."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(load(), name)
        setattr(self, name, value)  # the next time it is here
        return value


if not TYPE_CHECKING:
    np, npt = _Numpy(), None  # types are for mypy alone
