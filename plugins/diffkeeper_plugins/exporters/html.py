"""The html exporter: a recording as one page that needs nothing else, neither a network nor a server.

Owns how the page is put together: its parts are in `page/`, what it shows is `pagedata`. Everything
recorded came from strangers: it goes into the page as JSON in which no character can end the script
element, the scripts put it on the screen as text and never as markup, and the page forbids, by a
content security policy, every script but its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from diffkeeper.errors import PluginError
from diffkeeper.exporting import Exported, Selection, opened
from diffkeeper.plugins import Exporter
from diffkeeper_plugins.exporters.pagedata import Limits, PageData

if TYPE_CHECKING:
    from diffkeeper.progress import Progress
    from diffkeeper.trace import Trace

_SCRIPTS = ("model.js", "diff.js", "view.js")


class HtmlExporter(Exporter):
    """One self-contained page: timeline, filter, moments, side-by-side diffs; texts up to the limits."""

    streams: ClassVar[bool] = True
    of_range: ClassVar[bool] = True
    unit: ClassVar[str] = "events"

    def __init__(
        self, events: int = 20_000, files: int = 20_000, content: int = 16 << 20, file: int = 1 << 20
    ) -> None:
        if min(events, files, content, file) < 0:
            raise PluginError("the exporter 'html' takes limits of 0 and more")
        self._limits = Limits(events, files, content, file)

    def export(self, trace: Trace, selection: Selection, destination: Path | BinaryIO, progress: Progress) -> Exported:
        page = PageData(trace, selection, self._limits)
        page.read(progress)
        with opened(destination) as file:
            for piece in _page(page.as_object()):
                file.write(piece.encode("utf-8"))
        return Exported(page.count, page.size, tuple(page.notes), page.damaged)


def _page(data: Mapping[str, Any]) -> Iterator[str]:
    parts = resources.files("diffkeeper_plugins.exporters") / "page"
    style = (parts / "page.css").read_text("utf-8")
    script = "\n".join((parts / name).read_text("utf-8") for name in _SCRIPTS)
    whole = (parts / "page.html").read_text("utf-8")
    # Split, not replaced: what was put in is not looked at again.
    fillings: dict[str, Iterable[str]] = {
        "{{script-hash}}": [_hash(script)], "{{style-hash}}": [_hash(style)], "{{style}}": [style],
        "{{data}}": _json(data), "{{script}}": [script],
    }  # fmt: skip
    for place, filling in fillings.items():
        before, _, whole = whole.partition(place)
        yield before
        yield from filling
    yield whole


def _json(data: Mapping[str, Any]) -> Iterator[str]:
    """As `safe_json`, but never the whole text at once: what is in inner objects entry by entry."""
    for number, (key, value) in enumerate(data.items()):
        yield f"{',' if number else '{'}{safe_json(key)}:"
        if isinstance(value, dict) and value:
            for place, entry in enumerate(value.items()):
                yield ("," if place else "{") + safe_json(dict([entry]))[1:-1]
            yield "}"
        else:
            yield safe_json(value)
    yield "}"


def safe_json(data: object) -> str:
    r"""JSON that may stand in a script element: nothing in it is `</script`, `<!--` or not ASCII."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
