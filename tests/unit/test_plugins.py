"""How plugins are found, loaded, refused and given their options: with real distributions on sys.path."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stevedore import ExtensionManager

from diffkeeper import plugins
from diffkeeper.errors import PluginError, Stopped

MODULE = '''
"""Plugins as a third party might write them."""
from __future__ import annotations
from diffkeeper.plugins import Differ, EventFilter

class Picky(EventFilter):
    """Keeps what it is told to.

    More about it.
    """
    def __init__(self, depth: int, ratio: float = 0.5, names: tuple[str, ...] = (), strict: bool | None = None,
                 word: str = "x") -> None:
        if depth < 0:
            raise ValueError("depth is below zero")
        self.options = depth, ratio, names, strict, word

class Old(Differ):
    name = "old/1"
    def diff(self, base: bytes, target: bytes) -> bytes | None:
        return None
    def apply(self, base: bytes, patch: bytes) -> bytes:
        return base

class Misnamed(Old):
    name = "other/1"

class Nameless(Differ):
    diff, apply = Old.diff, Old.apply

class Needy(Old):
    name = "needy/1"
    def __init__(self, key: int) -> None:
        pass

class NoFilter:
    pass

class Half(Differ):
    """Cannot be read again."""
    name = "half/1"
    def diff(self, base: bytes, target: bytes) -> bytes | None:
        return None
'''
ENTRY_POINTS = """
[diffkeeper.filters]
picky = third_party:Picky
missing = third_party:NotThere
stranger = third_party:NoFilter
broken = third_party_broken:Filter
[diffkeeper.differs]
old = third_party:Old
half = third_party:Half
misnamed = third_party:Misnamed
nameless = third_party:Nameless
needy = third_party:Needy
raw = third_party:Old
asserts = third_party_asserts:Old
leaves = third_party_leaves:Old
"""


def forget() -> None:
    """Make the module look again, as a new process would."""
    for cached in (plugins._entries, plugins._load, plugins.differ):
        cached.cache_clear()
    ExtensionManager.ENTRY_POINT_CACHE.clear()


def distribution(place: Path, name: str, entry_points: str) -> None:
    info = place / f"{name.replace('-', '_')}-1.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(entry_points)


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on sys.path with a distribution that brings plugins, good and bad."""
    distribution(tmp_path, "third-party", ENTRY_POINTS)
    (tmp_path / "third_party.py").write_text(MODULE)
    (tmp_path / "third_party_asserts.py").write_text("assert 1 > 2, 'one is not enough'\n")
    (tmp_path / "third_party_leaves.py").write_text("raise SystemExit('no such machine')\n")
    (tmp_path / "third_party_broken.py").write_text("import a_module_that_is_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    yield tmp_path
    forget()
    sys.modules.pop("third_party", None)


def test_the_built_in_plugins_are_found_like_any_other() -> None:
    """They come through entry points, and each loads."""
    forget()
    found = {(info.kind, info.name): info for info in plugins.available()}
    assert {("differ", "bsdiff4"), ("filter", "glob"), ("exporter", "dir"), ("exporter", "tar")} <= found.keys()
    assert [info.error for info in found.values()] == [None] * len(found)
    assert found["exporter", "dir"].distribution == "diffkeeper"
    assert plugins.Option("suid", "bool", "False") in found["exporter", "dir"].options


def test_options_are_converted_to_the_constructor_s_types(third_party: Path) -> None:
    """Numbers, booleans, lists and texts are given as text; what is not given keeps its default."""
    options = {"depth": "3", "ratio": "2", "names": "a,b", "strict": "Yes", "word": "a=b"}
    made: Any = plugins.make_filter("picky", options)
    assert made.options == (3, 2.0, ("a", "b"), True, "a=b")
    made = plugins.make_filter("picky", {"depth": "3"})
    assert made.options == (3, 0.5, (), None, "x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs the option 'depth'"),
        ({"depth": "many"}, "depth is a whole number, not 'many'"),
        ({"depth": "1", "ratio": "half"}, "ratio is a number, not 'half'"),
        ({"depth": "1", "strict": "maybe"}, "strict is true or false"),
        ({"depth": "1", "colour": "red"}, "no option 'colour'; it takes depth, ratio, names, strict, word"),
        ({"depth": "-1"}, "cannot be made: depth is below zero"),
    ],
)
def test_wrong_options_are_told_in_a_sentence(third_party: Path, options: dict[str, str], message: str) -> None:
    """A missing, unknown or wrong option names the plugin and what it wants."""
    with pytest.raises(PluginError, match="the filter 'picky'") as caught:
        plugins.make_filter("picky", options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "ModuleNotFoundError: No module named 'a_module_that_is_not_installed'"),
        ("missing", "NotThere"),
        ("stranger", "does not derive from diffkeeper.plugins.EventFilter"),
        ("absent", "there is no filter 'absent'; there are: broken, gitignore, glob, missing, op, picky,"),
    ],
)
def test_a_plugin_that_cannot_be_had_says_why(third_party: Path, name: str, message: str) -> None:
    """Load errors are reported with their cause, and unknown names with those there are."""
    with pytest.raises(PluginError) as caught:
        plugins.make_filter(name, {})
    assert message in str(caught.value)


def test_broken_plugins_are_listed_and_do_not_break_the_rest(third_party: Path) -> None:
    """The list shows each with its error, its distribution, and the options of those that work."""
    found = {info.name: info for info in plugins.available()}
    assert found["glob"].error is None
    assert "a_module_that_is_not_installed" in (found["broken"].error or "")
    assert "AssertionError: one is not enough" in (found["asserts"].error or "")
    assert "SystemExit: no such machine" in (found["leaves"].error or "")
    assert found["half"].error == "the differ 'half' cannot be used: Half does not define apply"
    assert (found["picky"].distribution, found["picky"].version) == ("third-party", "1.5")
    assert found["picky"].summary == "Keeps what it is told to."
    assert found["picky"].options[:2] == (plugins.Option("depth", "int", None), plugins.Option("ratio", "float", "0.5"))


def test_two_plugins_of_one_name_are_an_error(third_party: Path) -> None:
    """Neither is taken silently: the error names both distributions."""
    distribution(third_party, "rival", "[diffkeeper.filters]\npicky = third_party:Other\n")
    forget()
    with pytest.raises(PluginError, match="two filters are named 'picky', by rival and third-party"):
        plugins.make_filter("picky", {"depth": "1"})
    assert plugins.make_filter("glob", {"exclude": "x"})


def test_a_patch_of_another_version_of_a_differ_is_refused(third_party: Path) -> None:
    """The stored name has to be exactly what the installed differ calls itself."""
    assert plugins.differ("old/1").apply(b"base", b"") == b"base"
    with pytest.raises(PluginError, match=r"needs the differ 'old/2', but what is installed is 'old/1'"):
        plugins.differ("old/2")
    with pytest.raises(PluginError, match="needs the differ 'gone/1', which is not installed"):
        plugins.differ("gone/1")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("misnamed", "calls itself 'other/1'"),
        ("nameless", "calls itself ''"),
        ("needy", "has no default for 'key': patches are read without options"),
        ("raw", "that is what --differ calls its own"),
    ],
)
def test_a_differ_whose_patches_nobody_could_read_is_broken(third_party: Path, name: str, why: str) -> None:
    """It is listed as such, and refused before anything is recorded."""
    (error,) = [info.error for info in plugins.available() if info.name == name]
    assert error is not None and why in error
    with pytest.raises(PluginError, match=f"'{name}'"):
        plugins.make_differ(name, {})


def test_an_unknown_differ_is_told_of_all_choices() -> None:
    """Also of those that are no plugins."""
    with pytest.raises(PluginError, match="there is no differ 'gone'; there are: auto, raw, bsdiff4"):
        plugins.make_differ("gone", {})


def test_looking_for_plugins_writes_nothing_at_home(tmp_path: Path) -> None:
    """The user's home may be what is recorded: no cache file appears there."""
    program = "from diffkeeper import plugins; plugins.available(); plugins.differ('bsdiff4/1')"
    environment = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_the_plugin_asked_for_is_imported() -> None:
    """Getting a differ imports neither stevedore before it is needed, nor exporters, filters or the trace."""
    program = """
import sys, diffkeeper.plugins as plugins
assert "stevedore" not in sys.modules
plugins.differ('bsdiff4/1')
loaded = [name for name in sys.modules if name.startswith(("diffkeeper_plugins.e", "diffkeeper_plugins.f", "lmdb"))]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_signal_while_a_plugin_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends the program as at any other time: it is not the plugin that gave up."""

    def stopped(*_: object, **__: object) -> None:
        raise Stopped(143)

    monkeypatch.setattr("stevedore.NamedExtensionManager", stopped)
    with pytest.raises(Stopped):
        plugins._load.__wrapped__("differ", "zstd")
