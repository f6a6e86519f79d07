"""Which differ makes a patch: the policy, and the differs that a trace needs.

Owns the choice for each pair of contents and the META entries that name what a trace was patched
with, and which distribution brought it. Making, checking and storing patches is `patches`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from .. import plugins
from ..errors import PluginError
from .db import Txn
from .tables import Table

AUTO, RAW = plugins.CORE_DIFFERS
BSDIFF_SIZE = 1 << 20
"""Bytes. bsdiff takes a quarter of a second and 17 MiB for each MiB; zstd 10 ms, and no more memory."""
MOST_EFFORT = 4

_KEY = b"differ/"
_DISTRIBUTION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")


class Choice(NamedTuple):
    """What `--differ` said: `auto`, `raw` (no patches), or a differ's name and options."""

    name: str = AUTO
    options: Mapping[str, str] = MappingProxyType({})


def candidates(choice: Choice, base: int, target: int, hurried: bool) -> tuple[str, ...]:
    """The policy: names of the differs to ask for a patch, in order, until one is small; the smallest is taken.

    `base` and `target` are sizes in bytes. `hurried`: patches have taken more than their share of
    the time by now. zstd is quick, and has the smallest patches of most edits; bsdiff those of programs that
    were built again and of tables whose numbers have all moved, so it comes next where it is quick enough.
    """
    if choice.name == RAW:
        return ()
    if choice.name != AUTO:
        return (choice.name,)
    if max(base, target) > BSDIFF_SIZE or hurried:
        return ("zstd",)
    return ("zstd", "bsdiff4")


def effort(name: str, size: int) -> int:
    """What a patch that makes `size` bytes adds to the depth of its chain: by the time that applying it takes.

    `name`: of its differ, with or without its version. All but zstd are taken to be as slow as bsdiff, which takes
    six times as long.
    """
    unit = 1 << 20 if name.partition("/")[0] == "zstd" else 1 << 18
    return max(1, min(MOST_EFFORT, -(-size // unit)))


def check(choice: Choice) -> None:
    """Make every differ that may be used, for their errors: PluginError. What they import is imported then."""
    if choice.name in (AUTO, RAW) and choice.options:
        raise PluginError(f"--differ {choice.name} takes no options")
    for name in candidates(choice, 0, 0, hurried=False):
        plugins.make_differ(name, choice.options)


def need(txn: Txn, stored_name: str) -> None:
    """Note that something in the trace is stored by this differ, and who brings it."""
    key = _KEY + stored_name.encode("ascii")
    if txn.get(Table.META, key) is None:
        txn.put(Table.META, key, plugins.home("differ", stored_name.partition("/")[0]).encode("utf-8", "replace"))


def needed(txn: Txn) -> dict[str, str]:
    """Stored name -> name of the distribution, for every differ without which something is out of reach.

    A trace may come from a stranger, and people paste what errors tell them: what is no name becomes empty.
    """
    found = {}
    for key, value in txn.scan(Table.META, _KEY):
        name = value.decode("utf-8", "replace")
        found[key[len(_KEY) :].decode("ascii", "replace")] = name if _DISTRIBUTION.fullmatch(name) else ""
    return found


def forget(txn: Txn) -> None:
    """Before all patches are made anew."""
    for key, _ in list(txn.scan(Table.META, _KEY)):
        txn.delete(Table.META, key)


def missing(txn: Txn, error: PluginError, stored_name: str) -> PluginError:
    """The error of a differ that cannot be had, with what to install."""
    home = needed(txn).get(stored_name)
    hint = f"; the trace says that {home} brings it: pip install {home}" if home else ""
    return PluginError(f"{error}{hint}")
