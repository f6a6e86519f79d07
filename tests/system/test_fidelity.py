"""docs/fidelity.md says what is so: its page is made from its figures, and the figures are found again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fidelity import page
from tests.fidelity.matrix import WRONG, measure
from tests.filesystems import KINDS, mounted


def test_the_page_is_made_from_the_figures() -> None:
    """docs/fidelity.md is what `python -m tests.fidelity --page` makes of docs/fidelity/*.json."""
    assert page.PAGE.read_text() == page.text()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_change_is_as_true_as_the_page_says(kind: str, tmp_path: Path) -> None:
    """No moment is wrong, and no change is less exact than its cell in the table."""
    told = json.loads((page.FIGURES / "changes.json").read_text())[kind]
    with mounted(kind, tmp_path) as filesystem:
        root = filesystem / "root"
        root.mkdir()
        found = measure(root, tmp_path)
    assert WRONG not in found.values(), found
    rank = ("impossible", "exact", "reread", "partial", "unknown")
    worse = {name: label for name, label in found.items() if rank.index(label) > rank.index(told[name])}
    assert not worse
