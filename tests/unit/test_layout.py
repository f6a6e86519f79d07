"""The shape of the source: who may import what, and what every module says of itself."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
PACKAGES = [TOP / "diffkeeper", TOP / "plugins" / "diffkeeper_plugins"]
MODULES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))
OWNERS = {
    "bcc": r"diffkeeper/record/compiler\.py",
    "blake3": r"diffkeeper/(store/.*|record/contents\.py)",
    "bsdiff4": r"plugins/diffkeeper_plugins/differs/bsdiff\.py",
    "click": r"diffkeeper/cli/.*",
    "lmdb": r"diffkeeper/store/db\.py",
    "numpy": r"diffkeeper/arrays\.py",
    "pyarrow": r"plugins/diffkeeper_plugins/exporters/parquet\.py",
    "pathspec": r"plugins/diffkeeper_plugins/filters/glob\.py",
    "pyfuse3": r"diffkeeper/view/fuse\.py",
    "rich": r"diffkeeper/cli/.*",
    "stevedore": r"diffkeeper/plugins\.py",
    "trio": r"diffkeeper/view/fuse\.py",
    "xxhash": r"diffkeeper/journal\.py",
    "zstandard": r"diffkeeper/store/codec\.py|plugins/diffkeeper_plugins/(differs/zstd|exporters/tar_zst)\.py",
}
"""Third-party module -> where it may be imported, also inside a function."""

BELOW = {
    "diffkeeper/store/": ("view", "cli", "record", "trace"),
    "diffkeeper/view/": ("cli", "record"),
    "diffkeeper/record/": ("cli", "view", "trace"),
}
"""What a part must not import: the data goes one way."""


def imports(path: Path) -> Iterator[str]:
    """Absolute names of all that a module imports when it runs, not only for type checking."""
    package = path.relative_to(TOP).parts[:-1]
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node) for test in ast.walk(tree)
        if isinstance(test, ast.If) and ast.unparse(test.test).endswith("TYPE_CHECKING")
        for statement in test.body for node in ast.walk(statement)
    }  # fmt: skip
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            origin = ".".join(filter(None, (base, node.module)))
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(TOP)))
def test_each_dependency_has_one_importing_place(path: Path) -> None:
    """So most of the code needs no root, no kernel and no mount."""
    where = path.relative_to(TOP).as_posix()
    for name in imports(path):
        owner = OWNERS.get(name.partition(".")[0])
        assert owner is None or re.fullmatch(owner, where), f"{where} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(TOP)))
def test_the_data_goes_one_way(path: Path) -> None:
    """The store knows nothing of views, the recorder nothing of what comes after the journal."""
    where = path.relative_to(TOP).as_posix()
    for part, forbidden in BELOW.items():
        if where.startswith(part):
            names = tuple(f"diffkeeper.{word}" for word in forbidden)
            assert not [name for name in imports(path) if name.startswith(names)], where


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(TOP)))
def test_every_module_opens_with_what_it_owns(path: Path) -> None:
    """A docstring at the top, and a size that can be read."""
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
    assert text.count("\n") <= 500, f"{path} is long: cut it where it says 'and'"


@pytest.mark.parametrize("script", ["contrib/setup.sh", "contrib/run-tests.sh", "contrib/demo/demo.sh", ".ci/run"])
def test_scripts_can_be_run(script: str) -> None:
    """Executable, and free of syntax errors."""
    path = TOP / script
    assert path.stat().st_mode & 0o111
    shell = path.read_text().split("\n")[0].removeprefix("#!")
    subprocess.run([shell, "-n", path], check=True)
