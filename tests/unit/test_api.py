"""What is public: docs/api.md lists every signature, and none changes without it.

`python -m tests.unit.test_api` writes the list into the page anew; the history is written by hand.
"""

from __future__ import annotations

import ast
import enum
import hashlib
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

TOP = Path(__file__).resolve().parents[2]
PAGE = TOP / "docs" / "api.md"
PUBLIC: dict[str, tuple[str, ...]] = {
    "diffkeeper": ("open", "mark"),
    "diffkeeper.trace": ("When", "OpName", "Trace"),
    "diffkeeper.view.paths": ("MomentPath",),
    "diffkeeper.model": (
        "Op", "Fidelity", "Event", "Attrs", "Moment", "Mark", "Process", "Filtered", "Session",
    ),
    "diffkeeper.diffing": ("Kind", "Change"),
    "diffkeeper.errors": (
        "DiffKeeperError", "UsageError", "TraceMissingError", "NotATraceError", "TraceTooNewError", "TraceDamagedError",
        "MomentError", "DestinationError", "PluginError", "PathError",
    ),
    "diffkeeper.plugins": ("Differ", "EventFilter", "Exporter"),
    "diffkeeper.exporting": (
        "CHUNK", "Selection", "Entry", "Exported", "Meter", "opened", "entries", "content", "weight", "cost",
        "is_exact", "fidelity_note",
    ),
    "diffkeeper.filtering": ("Spec",),
    "diffkeeper.happenings": (
        "ALWAYS", "NO_FILES", "IN_PLACE", "PER", "Ends", "events", "data", "Standing", "Step", "Steps", "Before",
    ),
    "diffkeeper.eventlines": ("LABELS", "FIDELITIES", "WITH_CONTENT", "Names", "JsonLines"),
    "diffkeeper.progress": ("Progress", "Silent"),
    "diffkeeper.store.reader": ("Reader",),
    "diffkeeper.textdiff": ("is_text",),
    "diffkeeper.view.moments": ("duration",),
    "diffkeeper.wording": ("printable", "date_of", "human_size", "human_duration"),
    "diffkeeper.testing": ("check_differ", "check_filter", "check_exporter", "sample_trace"),
}  # fmt: skip
"""Module -> its public names."""


def described() -> str:
    """Every public name with its signature, as Python would have it, and no more than that."""
    parts = []
    for module, names in PUBLIC.items():
        found = importlib.import_module(module)
        told = (line for name in names for line in lines(name, getattr(found, name)))
        parts.append("\n".join((f"# {module}", *told)))
    return "\n\n".join(parts) + "\n"


def signature(function: Any) -> str:
    """With annotations as they are written, not as the strings that they are at run time."""
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(function)))


def lines(name: str, what: Any) -> Iterator[str]:
    if not inspect.isclass(what):
        yield f"def {name}{signature(what)}" if inspect.isfunction(what) else name
        return
    bases = ", ".join(base.__name__ for base in what.__bases__ if base is not object)
    yield f"class {name}({bases})" if bases else f"class {name}"
    if issubclass(what, enum.Enum):
        yield from (f"    {member.name} = {member.value!r}" for member in what)
        return
    given = inspect.signature(what).parameters if issubclass(what, Struct) else {}
    for field, kind in inspect.get_annotations(what).items():
        if not field.startswith("_"):
            default = given[field].default if field in given else inspect.Parameter.empty
            yield f"    {field}: {kind}" + ("" if default is inspect.Parameter.empty else f" = {default!r}")
    own = {key: value for key, value in vars(what).items() if not key.startswith("_") or key == "__init__"}
    for key, value in own.items():
        if isinstance(value, property) and value.fget:
            yield f"    {key}: {inspect.get_annotations(value.fget)['return']}"
        elif inspect.isfunction(value):
            yield f"    def {key}{signature(value)}"
        elif isinstance(value, classmethod | staticmethod):
            yield f"    def {key}{signature(value.__func__)}"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def block(page: str) -> str:
    found = re.search(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found, "docs/api.md has no list"
    return found[1]


def test_no_public_signature_changes_without_the_page() -> None:
    """The list in docs/api.md is what the code has. If this fails: was it meant? Then see the page's head."""
    assert block(PAGE.read_text()) == described()


def test_each_version_of_the_list_has_a_number() -> None:
    """The last line of the history is of this very list: who changes the list adds a line with a new number."""
    rows = re.findall(r"^\| (\d+)\.(\d+) \| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    numbers = [(int(major), int(minor)) for major, minor, _ in rows]
    assert numbers == sorted(set(numbers))
    assert rows[-1][2] == digest(described())


def test_built_in_plugins_take_no_private_way() -> None:
    """All that they import of DiffKeeper is public; what a base class or a module offers counts as its own."""
    known = {f"{module}.{name}" for module, names in PUBLIC.items() for name in names}
    for path in (TOP / "plugins" / "diffkeeper_plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("diffkeeper"):
                continue
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            private = {name for name in names if name not in known and name not in PUBLIC}
            if not (node.module or "").startswith("diffkeeper_plugins"):
                assert not private, f"{path.name} imports {private}"


if __name__ == "__main__":
    text = PAGE.read_text()
    PAGE.write_text(text.replace(f"```python\n{block(text)}", f"```python\n{described()}", 1))
    print(digest(described()))
