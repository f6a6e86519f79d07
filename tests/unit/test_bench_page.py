"""The page of benchmarks says what was measured."""

from __future__ import annotations

from tests.bench import page


def test_the_page_is_made_of_the_figures() -> None:
    """docs/benchmarks.md is what the figures in docs/benchmarks/ make: `python -m tests.bench --page`."""
    assert page.PAGE.read_text("utf-8") == page.text()
