"""What every plugin of these kinds must do, and what these do."""

from pathlib import Path

from diffkeeper import testing
from diffkeeper_example.differ import Affix
from diffkeeper_example.exporter import Sha256Exporter
from diffkeeper_example.filter import DepthFilter


def test_conformance(tmp_path: Path) -> None:
    """The three kits, one for each kind."""
    testing.check_differ(Affix())
    testing.check_filter(DepthFilter(most=2))
    testing.check_exporter(Sha256Exporter, tmp_path)


def test_depth() -> None:
    """A path is as deep as it has directories in front of it."""
    kept = DepthFilter(most=1)
    assert kept.keep_path(b"a/b", False)
    assert not kept.keep_path(b"a/b/c", False)
