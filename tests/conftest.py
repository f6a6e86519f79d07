"""Says at the top of a run what this machine enables, and fails it when the tests need more.

No test is skipped for want of root, eBPF or FUSE: a green run has really recorded and mounted.
Only a run that names nothing but files under tests/unit goes on without them.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from tests.environment import Probe, probe_all

for name in ("SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND"):
    os.environ.pop(name, None)  # who called sudo for the tests is not whom they record as; the one test of that sets it

signal.signal(signal.SIGINT, signal.default_int_handler)
"""A shell's job in the background ignores it, and so would all that tests start: PostgreSQL then never stops."""

settings.register_profile("diffkeeper", deadline=None)  # machines are shared: no example fails for being slow
settings.load_profile("diffkeeper")

UNIT = Path(__file__).parent / "unit"
PROBES = pytest.StashKey[list[Probe]]()


def pytest_configure(config: pytest.Config) -> None:
    is_worker = hasattr(config, "workerinput")  # of pytest-xdist: who started it has looked
    config.stash[PROBES] = [] if is_worker else probe_all()


def pytest_report_header(config: pytest.Config) -> list[str]:
    return ["enabled here:", *(f"  {probe}" for probe in config.stash[PROBES])]


def pytest_sessionstart(session: pytest.Session) -> None:
    """End the run at once, with exit code 3, when what it needs is not there."""
    config = session.config
    broken = [probe for probe in config.stash[PROBES] if not probe.works]
    named = [config.invocation_params.dir / argument.partition("::")[0] for argument in config.args]
    if broken and any(not path.resolve().is_relative_to(UNIT) for path in named):
        lines = "\n".join(f"  {probe}" for probe in broken)
        pytest.exit(
            f"the tests need root, eBPF and FUSE for real, and here something is missing:\n{lines}\n"
            "Run `make test` (docs/kernel-requirements.md says what each needs), or only `pytest tests/unit`.",
            returncode=3,
        )
