"""bcc's compiler runs apart: whatever becomes of it, there is one error, and what is made of C is kept."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from diffkeeper import cache
from diffkeeper.errors import NoBccError
from diffkeeper.record import compiler


def refuse(**_: Any) -> None:
    """As bcc says that C is no good."""
    raise ValueError("Failed to compile BPF module <text>")


def die(**_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(**_: Any) -> None:
    os._exit(3)


@pytest.mark.parametrize(
    ("compile_it", "said"),
    [(refuse, "could not compile"), (die, r"ended \(-9\)"), (leave, r"ended \(3\)")],
    ids=["refuses", "dies", "exits"],
)
def test_a_compiler_that_fails(
    compile_it: Callable[..., None], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of its own, with how to see more; we go on, nothing is kept, and it was said that it takes long."""
    monkeypatch.setattr(cache, "directory", lambda: tmp_path / "cache")
    monkeypatch.setattr(compiler, "find_bcc", lambda: SimpleNamespace(BPF=compile_it, lib=None))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    begun = tmp_path / "begun"
    with pytest.raises(NoBccError, match=f"{said}.*{compiler.DEBUG_VARIABLE}"):
        compiler.bytecode("int f;", {}, begun.touch)
    assert list(tmp_path.iterdir()) == [begun]


def test_what_was_compiled_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time needs no compiler, and says nothing; the directory that we are in stays the same."""
    monkeypatch.setattr(cache, "directory", lambda: tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    text = "BPF_HASH(some, u32, u64, 7); int f(void *ctx) { return 0; }"
    made = compiler.bytecode(text, {}, lambda: None)
    assert Path.cwd() == tmp_path
    assert list(made.programs) == ["f"]
    assert [(each.name, each.key_size, each.value_size, each.entries) for each in made.maps] == [("some", 4, 8, 7)]
    monkeypatch.setattr(compiler, "find_bcc", lambda: pytest.fail("compiled anew"))
    assert compiler.bytecode(text, {}, lambda: pytest.fail("said to be compiled")) == made
