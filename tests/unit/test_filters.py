"""The built-in filters, each by itself."""

from __future__ import annotations

import pytest

from diffkeeper import testing
from diffkeeper.errors import PluginError
from diffkeeper.plugins import make_filter
from diffkeeper_plugins.filters.events import OpFilter, ProcessFilter, SizeFilter, TimeFilter
from diffkeeper_plugins.filters.gitignore import GitignoreFilter
from diffkeeper_plugins.filters.glob import GlobFilter


def test_conformance() -> None:
    """The built-in filters pass the kit that plugin authors get."""
    for made in (
        GlobFilter(exclude=("*.o", "node_modules/"), include=("src/**",)),
        GitignoreFilter(patterns="*.o\nbuild/"),
        OpFilter(exclude=("write",)),
        ProcessFilter(pid=100, invert=True),
        SizeFilter(min="1k"),
        TimeFilter(since="1us"),
    ):
        testing.check_filter(made)


@pytest.mark.parametrize(
    ("path", "is_dir", "kept"),
    [
        (b"main.o", False, False),
        (b"deep/er/main.o", False, False),
        (b"main.c", False, True),
        (b"node_modules", True, False),
        (b"node_modules", False, True),
        (b"web/node_modules/left-pad/index.js", False, False),
        (b"build/x", False, False),
        (b"sub/build/x", False, True),
        (b"keep.o", False, True),
        (b"odd\xff\nname.o", False, False),
        (b"odd\xff\nname", False, True),
        (b"", True, True),
        (b"/var/tmp/outside.o", False, False),
    ],
)
def test_exclude_is_like_gitignore(path: bytes, is_dir: bool, kept: bool) -> None:
    """Names at any depth, anchored paths, directories only, exceptions; any bytes may be in a name."""
    glob = GlobFilter(exclude=("*.o", "node_modules/", "/build", "!keep.o"))
    assert glob.keep_path(path, is_dir) is kept


def test_include_keeps_only_what_matches_and_all_directories() -> None:
    """With include, other files are left out, but the way to a match stays open."""
    glob = make_filter("glob", {"include": "*.log,/conf/**", "exclude": "debug.log"})
    verdicts = {path: glob.keep_path(path, False) for path in (b"a/x.log", b"conf/y", b"a/conf/y", b"z", b"debug.log")}
    assert verdicts == {b"a/x.log": True, b"conf/y": True, b"a/conf/y": False, b"z": False, b"debug.log": False}
    assert glob.keep_path(b"anything", True)


def test_no_pattern_or_a_wrong_one_is_an_error() -> None:
    """A glob filter without patterns would do nothing: it says so instead."""
    with pytest.raises(PluginError, match="needs exclude"):
        make_filter("glob", {})
    with pytest.raises(PluginError, match="wrong pattern"):
        make_filter("glob", {"exclude": "!"})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("op", {}, "needs include=OP or exclude=OP"),
        ("op", {"include": "wirte"}, "there is no operation 'wirte'; there are create, write"),
        ("process", {"invert": "true"}, "needs comm=GLOB, argv=GLOB or pid=N"),
        ("process", {"pid": "one"}, "pid is a whole number"),
        ("size", {}, "needs min=BYTES or max=BYTES"),
        ("size", {"min": "big"}, "'big' is no size"),
        ("time", {}, "needs since=TIME or until=TIME"),
        ("time", {"until": "noon"}, "'noon' is no span of time"),
    ],
)
def test_what_a_filter_needs_is_told(name: str, options: dict[str, str], message: str) -> None:
    """A filter that would do nothing, or was given what it does not understand, says so before anything happens."""
    with pytest.raises(PluginError) as caught:
        make_filter(name, options)
    assert message in str(caught.value)
