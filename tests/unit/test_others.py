"""What changed from outside: fingerprints of what stands somewhere, and who it was that changed it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from diffkeeper.record.others import Fingerprints, Outside
from diffkeeper.wire import Wrong


def noted(top: Path) -> Fingerprints:
    """Of a directory and all below it."""
    found = Fingerprints()
    found.note_root(os.fsencode(top), top.lstat())
    for place, _, _ in os.walk(os.fsencode(top)):
        with os.scandir(place) as entries:
            statuses = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        found.note(place, os.stat(place).st_dev, statuses)
    return found


def changed(prints: Fingerprints, top: Path) -> set[str]:
    told: list[tuple[int, int]] = []
    paths = {os.path.relpath(os.fsdecode(path), top) for path in prints.changed(lambda *so_far: told.append(so_far))}
    assert told[0][0] == 0
    return paths


@pytest.mark.parametrize(
    ("change", "paths"),
    [
        (lambda top: None, set()),
        (lambda top: (top / "dir/file").write_bytes(b"longer than before"), {"dir/file"}),
        (lambda top: (top / "dir/file").chmod(0o600), {"dir/file"}),
        (lambda top: (top / "new").mkdir(), {".", "new"}),
        (lambda top: (top / "dir/file").unlink(), {"dir"}),
        (lambda top: (top / "dir").rename(top / "moved"), {".", "moved"}),
        (lambda top: (top / "link").unlink(), {"."}),
    ],
)
def test_what_changed(tmp_path: Path, change: Callable[[Path], object], paths: set[str]) -> None:
    """What is new, what is not as it was, and the directory that something has gone from."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").write_bytes(b"file")
    (tmp_path / "link").symlink_to("dir")
    for path in (tmp_path / "dir/file", tmp_path / "dir", tmp_path):
        os.utime(path, (1, 1))
    prints = noted(tmp_path)
    change(tmp_path)
    assert changed(prints, tmp_path) == paths


def test_a_root_that_is_gone(tmp_path: Path) -> None:
    """Has changed."""
    root = tmp_path / "root"
    root.mkdir()
    prints = noted(root)
    root.rmdir()
    assert changed(prints, root) == {"."}


def test_what_is_left_out(tmp_path: Path) -> None:
    """Is known by its name, and has not changed whatever it is."""
    path = tmp_path / "left"
    prints = Fingerprints()
    prints.note(os.fsencode(tmp_path), tmp_path.stat().st_dev, [(b"left", None)])
    path.write_bytes(b"x")
    assert changed(prints, tmp_path) == set()


NO, YES = (lambda: False), (lambda: True)


@pytest.mark.parametrize(
    ("path", "wrong", "untouched", "theirs"),
    [
        (b"/w/quiet/file", Wrong.CONTENT, NO, True),
        (b"/w/quiet/file/below", Wrong.NAME, NO, True),  # in what others have changed
        (b"/w/ours/file", Wrong.CONTENT, NO, False),
        (b"/w/ours", Wrong.TIMES, NO, False),  # where the command made something, times may be its own
        (b"/w/ours", Wrong.TIMES, YES, True),  # but not if something has gone that it did not touch
        (b"/w/ours", Wrong.MODE | Wrong.TIMES, NO, True),
        (b"/w/shared", Wrong.TIMES, NO, True),  # nor if there is something that it did not make
        (b"/w/ours/gone", Wrong.NAME, YES, True),
        (b"/w/ours/gone", Wrong.NAME, NO, False),
        (b"/w/elsewhere", Wrong.TIMES, NO, False),
    ],
)
def test_who_it_was(path: bytes, wrong: Wrong, untouched: Callable[[], bool], theirs: bool) -> None:
    """Others, where no event can explain it."""
    outside = Outside(
        [b"/w/quiet/file", b"/w/ours", b"/w/ours/file", b"/w/shared", b"/w/shared/theirs"],
        {b"/w/ours/file", b"/w/ours/gone", b"/w/shared/file"},
    )
    assert outside.explains(path, wrong, untouched) is theirs


def test_only_what_no_event_touched_is_looked_at() -> None:
    """The rest is compared in any case."""
    outside = Outside([b"/w/a", b"/w/b/ours", b"/w/b"], {b"/w/b/ours"})
    assert outside.paths == {b"/w/a"}
