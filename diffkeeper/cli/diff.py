"""`diffkeeper diff`: what changed between two moments, as git shows it.

Owns how changes are printed: a line each, text patches, totals, JSON. What changed is
`diffkeeper.diffing`; it reads no content but that of changed files.
"""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffkeeper.cli.opening import open_with_bar
from diffkeeper.cli.options import FilterSpecs, examples, filter_option, split_trace, state_dir_option
from diffkeeper.cli.ui import is_terminal, use_colour
from diffkeeper.diffing import Change, Kind
from diffkeeper.errors import DiffKeeperError
from diffkeeper.model import Attrs, Moment
from diffkeeper.textdiff import SIZE_LIMIT, unified
from diffkeeper.wording import printable

if TYPE_CHECKING:
    from diffkeeper.trace import Trace

LETTERS = {
    Kind.ADDED: "A",
    Kind.REMOVED: "D",
    Kind.MODIFIED: "M",
    Kind.RENAMED: "R",
    Kind.TYPE: "T",
    Kind.ATTRIBUTES: "m",
}
COLOURS = {Kind.ADDED: "green", Kind.REMOVED: "red", Kind.RENAMED: "cyan", Kind.TYPE: "magenta"}


@click.command(epilog=examples(
    "diffkeeper diff start end",
    "diffkeeper diff -p 2m14s end status.json",
    "diffkeeper diff --stat trace e1200 e1300",
))
@state_dir_option
@click.option("-p", "--patch", is_flag=True, help="Show text files line by line, as diff -u does.")
@click.option("--stat", "totals", is_flag=True, help="Show only how many paths changed, and how.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@filter_option
@click.argument("words", nargs=-1, required=True, metavar="[TRACE] A B [PATH]...")
@click.pass_context
def diff(
    ctx: click.Context, state_dir: Path | None, patch: bool, totals: bool, as_json: bool, filters: FilterSpecs,
    words: tuple[str, ...],
) -> None:  # fmt: skip
    """Show what changed between two moments.

    A and B are moments, as in 'diff @2m13s @2m14s'. A PATH is a path or glob below the root, or a
    name at any depth. Letters: A added, D removed, M modified, R renamed, T of another type, m only
    its attributes. The exit code is 0 if nothing differs and 1 if something does.
    """
    if sum((patch, totals, as_json)) > 1:
        raise click.UsageError("--patch, --stat and --json exclude each other; give one")
    path, (a, b, *paths) = split_trace(state_dir, words, ("A", "B"))
    with open_with_bar(path) as trace:
        ends = trace.moment(a), trace.moment(b)
        changes, patches = trace.diff(*ends, paths, filters), _Patches(trace, *ends)
        lines: Iterable[str | bytes]
        if as_json:
            lines = (json.dumps(_object(trace, change)) for change in changes)
        elif totals:
            lines = _totals(changes)
        elif patch:
            lines = patches.lines(changes)
        else:
            lines = (_line(trace, change) for change in changes)
        different = False
        for line in lines:
            different = True
            click.echo(line, color=use_colour(sys.stdout))
    for lost in patches.unreadable:
        click.echo(f"LEFT OUT: {printable(lost)}", err=True)
    ctx.exit(patches.exit_code or (1 if different else 0))


def _line(trace: Trace, change: Change) -> str:
    """`M  path`, `R  old → new`, and after a path that is not new the attributes that differ."""
    mark = LETTERS[change.kind] + ("M" if change.kind is Kind.RENAMED and change.rewritten else " ")
    text = _shown(trace, change)
    if change.renamed_from is not None and change.kind is Kind.RENAMED:
        text = f"{_name(trace, change.renamed_from, change.before)} → {text}"
    differing = ", ".join(_attribute_changes(change))
    colour = COLOURS.get(change.kind, "yellow")
    return click.style(f"{mark} {text}", fg=colour) + (f"  ({differing})" if differing else "")


def _shown(trace: Trace, change: Change) -> str:
    return _name(trace, change.path, change.after or change.before)


def _name(trace: Trace, path: bytes, attrs: Attrs | None) -> str:
    return printable(trace.display(path)) + ("/" if attrs is not None and attrs.is_dir else "")


def _attribute_changes(change: Change) -> Iterator[str]:
    before, after = change.before, change.after
    if before is None or after is None:
        return
    if change.kind is Kind.TYPE:
        yield f"{_type(before)} → {_type(after)}"
        return
    if before.mode != after.mode:
        yield f"mode {stat.S_IMODE(before.mode):04o} → {stat.S_IMODE(after.mode):04o}"
    if (before.uid, before.gid) != (after.uid, after.gid):
        yield f"owner {before.uid}:{before.gid} → {after.uid}:{after.gid}"
    for name in sorted(before.xattrs.keys() | after.xattrs.keys()):
        if before.xattrs.get(name) != after.xattrs.get(name):
            yield f"xattr {printable(name)}"
    if change.kind is Kind.ATTRIBUTES and before.mtime != after.mtime:
        yield "mtime"
    if before.is_symlink and before.target != after.target:
        yield f"{printable(before.target)} → {printable(after.target)}"


def _type(attrs: Attrs) -> str:
    names = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo"}
    return names.get(stat.S_IFMT(attrs.mode), "special file")


def _object(trace: Trace, change: Change) -> dict[str, Any]:
    """The JSON form; bytes that are not UTF-8 stand in it as surrogate escapes."""
    found: dict[str, Any] = {"path": _text(trace.display(change.path)), "kind": change.kind.value}
    if change.renamed_from is not None:
        found["renamed_from"] = _text(trace.display(change.renamed_from))
    found["rewritten"] = change.rewritten
    for key, attrs in (("before", change.before), ("after", change.after)):
        if attrs is not None:
            found[key] = {"mode": f"{attrs.mode:06o}", "uid": attrs.uid, "gid": attrs.gid, "size": attrs.size}
            found[key]["mtime"] = attrs.mtime
            found[key]["fidelity"] = attrs.fidelity.label
            if attrs.is_symlink:
                found[key]["target"] = _text(attrs.target)
    return found


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _totals(changes: Iterable[Change]) -> Iterator[str]:
    counts = dict.fromkeys(LETTERS, 0)
    before = after = 0
    for change in changes:
        counts[change.kind] += 1
        before += change.before.size if change.before and change.before.is_file else 0
        after += change.after.size if change.after and change.after.is_file else 0
    words = [f"{count} {kind.value}" for kind, count in counts.items() if count]
    if words:
        yield f"{', '.join(words)}; {after - before:+d} bytes"


class _Patches:
    """Changes as unified diffs between the moments `a` and `b`; `patch -p1` takes them when piped.

    `unreadable`: what could not be shown, a line each that begins with its path; `exit_code`: of the last error.
    """

    def __init__(self, trace: Trace, a: Moment, b: Moment) -> None:
        self._trace, self._a, self._b = trace, a, b
        self.unreadable: list[str] = []
        self.exit_code = 0
        self._safe = is_terminal(sys.stdout)

    def lines(self, changes: Iterable[Change]) -> Iterator[str | bytes]:
        for change in changes:
            yield click.style(_line(self._trace, change), bold=True)
            files = [attrs for attrs in (change.before, change.after) if attrs is not None and attrs.is_file]
            if change.rewritten and files:
                try:
                    contents = (
                        self._content(change.before, change.before_node, self._a),
                        self._content(change.after, change.after_node, self._b),
                    )
                except DiffKeeperError as error:  # the others can be read all the same
                    self.unreadable.append(f"{printable(self._trace.display(change.path))}: {error}")
                    self.exit_code = error.exit_code
                else:
                    yield from self._body(change, *contents)

    def _body(self, change: Change, old: bytes | None, new: bytes | None) -> Iterator[str | bytes]:
        hunks = unified(old, new) if old is not None and new is not None else None
        if hunks is None:
            sizes = [attrs.size if attrs else 0 for attrs in (change.before, change.after)]
            yield f"not compared by lines: {sizes[0]} → {sizes[1]} bytes"
        elif hunks:
            name = printable(self._trace.display(change.path))
            former = printable(self._trace.display(change.renamed_from or change.path))
            yield click.style(f"--- {f'a/{former}' if change.before else '/dev/null'}\t@{self._a.name}", bold=True)
            yield click.style(f"+++ {f'b/{name}' if change.after else '/dev/null'}\t@{self._b.name}", bold=True)
            yield from map(self._painted, hunks)

    def _content(self, attrs: Attrs | None, node: int, moment: Moment) -> bytes | None:
        """Nothing for what is no regular file; None: too long."""
        if attrs is None or not attrs.is_file:
            return b""
        return self._trace.reader.read(node, moment.seq, 0, attrs.size) if attrs.size <= SIZE_LIMIT else None

    def _painted(self, line: bytes) -> str | bytes:
        """A hunk's line: as it is in a pipe, on a terminal with nothing that the terminal would obey."""
        if not self._safe:
            return line
        text = "\t".join(map(printable, line.split(b"\t")))
        colour = {b"@": "cyan", b"+": "green", b"-": "red"}.get(line[:1])
        return click.style(text, fg=colour) if colour else text
