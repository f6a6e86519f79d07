"""The git exporter, judged by git: fsck, log, blame, bisect, checkouts compared with the recorded trees."""

from __future__ import annotations

import io
import itertools
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import diffkeeper
from diffkeeper import exporting, plugins, testing
from diffkeeper.errors import DestinationError, PluginError
from diffkeeper.exporting import Exported, Selection
from diffkeeper.progress import Silent
from diffkeeper.trace import Trace
from tests.builder import WALL, TraceBuilder
from tests.walk import busy

ENVIRONMENT = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}


def git(repository: Path, *words: str | Path, **options: Any) -> bytes:
    """What git says on standard output."""
    command = ["git", "-C", repository, *words]
    return bytes(subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=True, **options).stdout)


def export(trace: Trace, out: Any, selection: Selection | None = None, **options: str) -> Exported:
    exporter = plugins.exporter("git", options)
    return exporting.export(exporter, trace, selection or Selection(trace.moment("end")), out, Silent())


def tree_of(repository: Path, commit: str) -> dict[bytes, tuple[bytes, bytes]]:
    """Path -> mode and content of everything in a commit."""
    listed = git(repository, "ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0")[:-1]
    rows = [line.split(b"\t", 1) for line in listed]
    wanted = b"".join(row[0].split()[2] + b"\n" for row in rows)
    answer = io.BytesIO(git(repository, "cat-file", "--batch", input=wanted))
    found = {}
    for head, path in rows:
        size = int(answer.readline().split()[2])
        found[path] = head.split()[0], answer.read(size)
        answer.read(1)
    return found


def as_git(tree: dict[bytes, Any], root: bytes) -> dict[bytes, tuple[bytes, bytes]]:
    """What git can hold of a tree in the form of TraceBuilder.tree()."""
    found = {}
    for path, (mode, _, _, _, _, content) in tree.items():
        if stat.S_ISLNK(mode):
            found[path[len(root) + 1 :]] = b"120000", content
        elif stat.S_ISREG(mode):
            found[path[len(root) + 1 :]] = b"100755" if mode & 0o111 else b"100644", content
    return found


def commits(repository: Path) -> list[tuple[str, int]]:
    """Hash and event of each commit, the oldest first."""
    text = git(repository, "log", "--reverse", "--format=%H %(trailers:key=Event,valueonly,separator=)").decode()
    return [(line.split()[0], int(line.split()[1])) for line in text.splitlines()]


@pytest.mark.parametrize("per", ["change", "close", "mark"])
@pytest.mark.parametrize("seed", range(4))
def test_every_commit_is_the_recorded_tree(tmp_path: Path, seed: int, per: str) -> None:
    """Of random changes, renames of directories and links included; git fsck finds nothing to complain of."""
    builder, trees = busy(tmp_path / "trace", seed)
    with diffkeeper.open(builder.path) as trace:
        export(trace, tmp_path / "out", per=per)
    git(tmp_path / "out", "fsck", "--full", "--strict")
    shown = git(tmp_path / "out", "log", "--format=%T").split()
    assert all(one != other for one, other in itertools.pairwise(shown)), "a commit that changes nothing"
    found = commits(tmp_path / "out")
    assert len(found) > (1 if per == "mark" else 20)
    seen: dict[int, str] = {}
    for commit, event in found:
        if event in trees:  # a rewrite is two events, of which the model remembers the second
            assert tree_of(tmp_path / "out", commit) == as_git(trees[event], b"/opt/root"), (commit, event)
        seen[event] = commit
    assert tree_of(tmp_path / "out", "HEAD") == as_git(builder.tree(), b"/opt/root")
    assert git(tmp_path / "out", "status", "--porcelain") == b""
    for tag in git(tmp_path / "out", "tag").decode().split():
        wanted = trees[int(tag.removeprefix("mark")) + 1]
        assert tree_of(tmp_path / "out", tag) == as_git(wanted, b"/opt/root")


@pytest.mark.parametrize("per", ["change", "close"])
def test_what_git_cannot_see_is_no_commit(tmp_path: Path, per: str) -> None:
    """Neither owners, times, attributes and most of the mode, nor the same content written again."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"f": b"a\n", "large": b"x" * 3_000_000})
    builder.begin()
    builder.write("f", b"b\n", 0, at=1)
    builder.chmod("f", 0o600, at=2)
    builder.chown("f", 5, 5, at=3)
    builder.utime("f", 10**18, at=4)
    builder.setxattr("f", b"user.a", b"b", at=5)
    builder.write("f", b"b\n", 0, at=6)
    builder.create("g", b"b\n", at=7)
    builder.rename("g", "f", at=8)
    builder.write("large", b"x" * 5, 0, at=9)
    builder.chmod("f", 0o755, at=10)
    builder.write("large", b"y", 0, at=11)
    builder.end(at=12)
    with diffkeeper.open(builder.build()) as trace:
        export(trace, tmp_path / "out", per=per)
    log = git(tmp_path / "out", "log", "--reverse", "--format=%s%n%T").decode().splitlines()
    subjects, trees = log[2::2], log[1::2]
    made = ["create g", "write g +2 B @0"] if per == "change" else ["write g +2 B @0"]
    assert subjects == ["write f +2 B @0", *made, "rename g → f", "chmod f", "write large +1 B @0"]
    assert all(one != other for one, other in itertools.pairwise(trees))


@pytest.fixture(scope="module")
def flaky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trace]:
    """60 good reports, one of them bad, a different process for each ten."""
    builder = TraceBuilder(tmp_path_factory.mktemp("flaky") / "trace")
    builder.baseline({"report": b"value 0\n", "notes/": None})
    builder.begin()
    for number in range(1, 60):
        if number % 10 == 1:
            builder.fork(200 + number)
            builder.pid = 200 + number
            builder.exec(f"worker-{number // 10}")
        broken = number >= 37
        builder.open("report", trunc=True, at=number)
        builder.write("report", b"value %d\n" % number, at=number + 0.1)
        builder.write("report", b"broken\n" if broken else b"fine\n", at=number + 0.2)
        if number == 40:
            builder.mark("noticed")
    builder.exit()
    builder.end(at=70)
    with diffkeeper.open(builder.build()) as opened:
        yield opened


def test_bisect_run_finds_the_bad_write(flaky: Trace, tmp_path: Path) -> None:
    """`git bisect run` with an ordinary grep names the process and the moment of the first bad report."""
    out = tmp_path / "out"
    result = export(flaky, out)
    assert result.entries == 60  # what stood there, and one for each time that the report was written
    first = git(out, "rev-list", "--max-parents=0", "HEAD").decode().strip()
    git(out, "bisect", "start", "HEAD", first)
    said = git(out, "bisect", "run", "sh", "-c", "! grep -q broken report").decode()
    bad = said.split(" is the first bad commit")[0].split()[-1]
    shown = git(out, "show", "--no-patch", "--format=%an|%ae|%at|%s|%b", bad).decode()
    author, address, when, subject, body = shown.strip().split("|")
    assert (author, address) == ("worker-3", "231@host")
    assert int(when) == WALL // 10**9 + 37
    assert subject.startswith("write report +7 B @9")
    assert "Moment: 37.200s" in body


def test_a_pause_ends_a_run_of_writes(tmp_path: Path) -> None:
    """A log that one process appends to: a commit for each burst, and with a longer rest for all of them."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"log": b""})
    builder.begin()
    for number in range(30):
        builder.write("log", b"%d\n" % number, at=number // 10 * 5 + number % 10 * 0.1 + 1)
    builder.end()
    with diffkeeper.open(builder.build()) as trace:
        assert export(trace, tmp_path / "bursts").entries == 1 + 3
        assert export(trace, tmp_path / "one", rest="10000").entries == 1 + 1


def test_log_shows_a_file_s_history(flaky: Trace, tmp_path: Path) -> None:
    """`git log -p FILE`, and a tag for each mark; per=change has the empty file in between too."""
    export(flaky, tmp_path / "out", per="change")
    log = git(tmp_path / "out", "log", "-p", "--format=%s", "report").decode()
    assert "+value 59" in log and "-value 58" in log
    assert git(tmp_path / "out", "show", "noticed:report") == b"value 40\nbroken\n"
    found = len(commits(tmp_path / "out"))
    assert found == 1 + 59 * 3


def test_per_mark_is_a_commit_for_each_mark_and_the_end(flaky: Trace, tmp_path: Path) -> None:
    """And what stood there before."""
    export(flaky, tmp_path / "out", per="mark")
    subjects = git(tmp_path / "out", "log", "--reverse", "--format=%s").decode().splitlines()
    assert subjects == ["What stood there at @start", "mark noticed", "Until @end"]
    assert git(tmp_path / "out", "show", "HEAD:report") == b"value 59\nbroken\n"


def test_a_range_begins_with_what_stood_there(flaky: Trace, tmp_path: Path) -> None:
    """--since and --until: the first commit is the tree just before."""
    selection = Selection(flaky.moment("20.05s"), first=flaky.covered("10s")[0])
    export(flaky, tmp_path / "out", selection)
    first = commits(tmp_path / "out")[0]
    assert tree_of(tmp_path / "out", first[0])[b"report"][1] == b"value 9\nfine\n"
    assert git(tmp_path / "out", "show", "HEAD:report") == b""  # at 20s it has just been cut


def test_the_stream_makes_the_same_repository(flaky: Trace, tmp_path: Path) -> None:
    """What goes to standard output is what git fast-import wants: the same hashes as in the repository."""
    export(flaky, tmp_path / "out")
    stream = io.BytesIO()
    export(flaky, stream)
    git(tmp_path, "init", "--quiet", "--bare", "other")
    git(tmp_path / "other", "fast-import", "--quiet", input=stream.getvalue())
    heads = [git(tmp_path / name, "rev-parse", "refs/heads/main") for name in ("out", "other")]
    assert heads[0] == heads[1]


def test_conformance(tmp_path: Path) -> None:
    """Without a checkout, two exports are the same to the last byte and date."""
    testing.check_exporter(lambda: plugins.exporter("git", {"checkout": "false"}), tmp_path)


def test_who_exports_and_when_is_not_in_it(flaky: Trace, tmp_path: Path) -> None:
    """No log of references, whose entries have the date and address of whoever runs git."""
    export(flaky, tmp_path / "out")
    assert not (tmp_path / "out" / ".git" / "logs").exists()


def test_what_would_harm_whoever_checks_out_is_left_out(tmp_path: Path) -> None:
    """`.git` in all its spellings, links that git obeys, names that end a line; attributes change no byte."""
    builder = TraceBuilder(tmp_path / "trace")
    hook = {"content": b"#!/bin/sh\ntouch /tmp/owned\n", "mode": 0o755}
    builder.baseline(
        {
            ".git/hooks/post-checkout": hook, "sub/.GIT/config": b"[core]\nfsmonitor=false\n", "git~1/x": b"x",
            ".git /config": b"x", ".g\u200cit/config": b"x", ".git:x": b"x",
            ".gitmodules": {"target": "/etc/passwd"}, ".gitattributes": b"* text eol=crlf ident filter=evil\n",
            "crlf": b"a\r\nb\n$Id$\n", 'quo"te\\ \n\x1b': b"x", "-rf": b"x", "fifo": {"mode": stat.S_IFIFO | 0o644},
        }
    )  # fmt: skip
    builder.begin()
    builder.exec("<evil>\nname", at=1)
    builder.create(b"M 100644 inline x\nD crlf", b"data")
    builder.create(b"\xff\xfe", b"bytes")
    builder.mkdir("harmless")
    builder.create("harmless/config", b"[core]\n")
    builder.rename("harmless", ".gIT")
    builder.rename(".gIT", "again")
    builder.mark("--upload-pack=x")
    builder.mark("a/../b")
    builder.end()
    with diffkeeper.open(builder.build()) as trace:
        result = export(trace, tmp_path / "out", per="change")
    out = tmp_path / "out"
    git(out, "fsck", "--full", "--strict")
    assert tree_of(out, "HEAD").keys() == {
        b".gitattributes", b"crlf", b'quo"te\\ \n\x1b', b"-rf", b"M 100644 inline x\nD crlf", b"\xff\xfe",
        b"again/config",
    }  # fmt: skip
    assert (out / "crlf").read_bytes() == b"a\r\nb\n$Id$\n"
    assert git(out, "status", "--porcelain") == b""
    assert not (out / ".git" / "hooks").exists()
    assert git(out, "tag") == b""
    assert "7 paths left out: git cannot hold them" in result.notes
    assert "1 special files left out: git cannot hold them" in result.notes
    authors = git(out, "log", "--format=%an").decode()
    assert "<" not in authors and "evil" in authors


def test_the_user_s_own_git_set_up_has_no_part_in_it(
    flaky: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a repository that an environment names, nor hooks, signatures and filters of the user's."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[core]\n hooksPath = /nowhere\n autocrlf = true\n[commit]\n gpgSign = true\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))
    monkeypatch.setenv("GIT_WORK_TREE", str(home))
    export(flaky, tmp_path / "out", per="mark")
    assert (tmp_path / "out" / "report").read_bytes() == b"value 59\nbroken\n"
    assert not (tmp_path / "other").exists()


def test_wrong_options_and_a_missing_git_are_told(
    flaky: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a sentence, and nothing is left behind. The stream needs no git."""
    with pytest.raises(PluginError, match="per change, close, mark, not per 'day'"):
        plugins.exporter("git", {"per": "day"})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PluginError, match="needs the program git"):
        export(flaky, tmp_path / "out")
    export(flaky, io.BytesIO())
    fails = "#!/bin/sh\ncase $* in *fast-import*) echo 'fatal: no room' >&2; exit 3;; esac\nexec /usr/bin/git \"$@\"\n"
    (tmp_path / "git").write_text(fails)
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(DestinationError, match="git fast-import failed: fatal: no room"):
        export(flaky, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["git"]


def test_a_directory_of_which_git_has_nothing_moves(tmp_path: Path) -> None:
    """What was too large to be in git's tree is there once it is small, under the name that it has then."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"d/f": b"x" * 200, "d/sub/.git": b"x", "other": b"x"})
    builder.begin()
    builder.rename("d", "e")
    builder.truncate("e/f", 3)
    builder.rename("e", "d")
    builder.unlink("d/sub/.git")
    builder.end()
    with diffkeeper.open(builder.build()) as trace:
        assert export(trace, tmp_path / "out", per="change", limit="100").entries == 3
    assert tree_of(tmp_path / "out", "HEAD").keys() == {b"d/f", b"other"}


def test_large_files_are_left_out_and_counted(tmp_path: Path) -> None:
    """Above the limit a file is not in the tree; when it shrinks, it is."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"f": b"small", "g": b"x"})
    builder.begin()
    builder.write("f", b"y" * 1000)
    builder.mark("large")
    builder.truncate("f", 3)
    builder.end()
    with diffkeeper.open(builder.build()) as trace:
        result = export(trace, tmp_path / "out", per="change", limit="100")
    assert tree_of(tmp_path / "out", "large").keys() == {b"g"}
    assert tree_of(tmp_path / "out", "HEAD")[b"f"][1] == b"sma"
    assert any("larger than limit=100" in note for note in result.notes)
