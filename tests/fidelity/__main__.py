"""`python -m tests.fidelity`: measure every kind of change on every filesystem, and write docs/fidelity.md anew.

With `--page` only the page, from the figures that are there.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tests.filesystems import KINDS, mounted

from . import page
from .matrix import measure


def main() -> None:
    if "--page" not in sys.argv[1:]:
        figures = {}
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as place, mounted(kind, Path(place)) as filesystem:
                root = filesystem / "root"
                root.mkdir()
                figures[kind] = measure(root, Path(place))
            print(kind, sorted(set(figures[kind].values())), flush=True)
        (page.FIGURES / "changes.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    page.PAGE.write_text(page.text())


if __name__ == "__main__":
    main()
