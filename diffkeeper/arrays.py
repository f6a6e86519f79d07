"""numpy, as all of this package has it: imported here and nowhere else.

Owns that a program of ours has no threads of OpenBLAS: numpy starts one for each processor but the first, for
matrices that are not made here, and each turns in circles for 0.1 s before it sleeps, while it is the recorded
command that could run. Whoever imports this package into a program of their own gets numpy as they set it up.
"""

from __future__ import annotations

import os
import sys

__all__ = ["np", "npt"]

_THREADS = "OPENBLAS_NUM_THREADS"
_ours = "diffkeeper.cli" in sys.modules and _THREADS not in os.environ
if _ours:
    os.environ[_THREADS] = "1"
import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402

if _ours:
    del os.environ[_THREADS]  # the recorded command has the environment that it would have had
