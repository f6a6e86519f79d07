"""The program git, as the git exporter runs it.

Owns what surrounds it: nothing of the user's own set-up has a part in an export, git's failures are
our errors, and what it made bears no time of its own. What it is told is `git`.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from diffkeeper.errors import DestinationError

# Logs of references would say who exports, and when.
_GIT = ("git", "-c", "core.hooksPath=/dev/null", "-c", "core.logAllRefUpdates=false")


@contextmanager
def importing(repository: Path) -> Iterator[BinaryIO]:
    """The input of a `git fast-import` into a repository; at the end it must have succeeded."""
    with tempfile.TemporaryFile() as said:
        words = [*_GIT, "fast-import", "--quiet", "--done"]
        process = subprocess.Popen(
            words, cwd=repository, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said
        )
        assert process.stdin is not None
        try:
            yield cast("BinaryIO", process.stdin)
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended, and says why
        except BaseException:
            process.kill()
            raise
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
            status = process.wait()
        if status:
            said.seek(0)
            raise DestinationError(f"git fast-import failed: {_last_words(said.read(1 << 16))}")


def run(where: Path, *arguments: str) -> None:
    """Run a git command in a directory. Raises DestinationError with git's last words."""
    done = subprocess.run(
        [*_GIT, *arguments], cwd=where, env=_environment(), check=False, stdin=subprocess.DEVNULL, capture_output=True
    )
    if done.returncode:
        raise DestinationError(f"git failed: {_last_words(done.stderr)}")


def _environment() -> dict[str, str]:
    """Nothing of the user's own set-up: neither another repository, nor filters, hooks or signatures."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return {**kept, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}


def _last_words(said: bytes) -> str:
    lines = said.decode("utf-8", "backslashreplace").strip().splitlines() or ["no reason given"]
    return next((line for line in reversed(lines) if line.startswith("fatal:")), lines[-1])


def stamp(top: Path, time: int) -> None:
    """Give everything the time of the recording, so that two exports are the same."""
    for directory, _, files in os.walk(top, topdown=False):
        for name in [*files, "."]:
            os.utime(os.path.join(directory, name), ns=(time, time))
