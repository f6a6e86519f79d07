"""The dir and tar exporters, on real traces, compared with what stood there and by GNU tools."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import diffkeeper
from diffkeeper import exporting, partial, plugins, testing
from diffkeeper.errors import DestinationError, PathError, UsageError
from diffkeeper.exporting import Exported, Selection
from diffkeeper.progress import Silent
from diffkeeper.trace import Trace
from tests.builder import TraceBuilder

IS_ROOT = os.geteuid() == 0
ROOT = b"/opt/root"
MINE = {"uid": os.geteuid(), "gid": os.getegid()}
MTIME = 1_600_000_000_123_456_789


def build(path: Path) -> tuple[TraceBuilder, dict[str, dict[bytes, Any]]]:
    """A trace with one of everything, and the tree as it stood at three moments."""
    builder = TraceBuilder(path)
    builder.baseline(
        {
            "docs/": None,
            "docs/read me.txt": b"hello\n" * 1000,
            "docs/deep/er/est": b"x",
            "first": {"content": b"two names", "mode": 0o640, "mtime": MTIME},
            "docs/second": {"link": "first"},
            "run": {"content": b"#!/bin/sh\n", "mode": 0o4755, **MINE},
            "locked": {"dir": True, "mode": 0o300, "mtime": 1_500_000_000_000_000_001},
            "locked/inner": b"in a locked directory",
            "locked/other": {"link": "docs/second"},
            "old": {"content": b"before 1970", "mtime": -1_500_000_001},
            "unreadable": {"content": b"secret", "mode": 0},
            "dangling": {"target": "/nowhere/at/all", "mtime": MTIME},
            "also-dangling": {"link": "dangling"},
            "to-etc": {"target": "/etc"},
            "tagged": {"content": b"t", "xattrs": {b"user.colour": b"blue\0\xff"}},
        }
    )
    builder.begin()
    trees = {"start": builder.tree()}
    builder.create(b"odd\xff\nname", b"odd")
    builder.create("-rf", b"dash")
    builder.create("n" * 255, b"long")
    builder.create("hole", b"begin")
    builder.write("hole", b"end", offset=8 << 20)
    builder.truncate("hole", 16 << 20)
    builder.mkdir("empty", 0o1777)
    builder.mkfifo("fifo")
    builder.rename("docs", "papers")
    builder.rewrite("papers/read me.txt", b"short\n")
    builder.mark("middle")
    trees["middle"] = builder.tree()
    builder.unlink("first")
    builder.symlink("../../../..", "papers/up")
    builder.unlink("papers/deep/er/est")
    builder.end()
    trees["end"] = builder.tree()
    builder.build()
    return builder, trees


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Trace, dict[str, dict[bytes, Any]]]]:
    builder, trees = build(tmp_path_factory.mktemp("made") / "trace")
    with diffkeeper.open(builder.path) as trace:
        yield trace, trees


def export(
    trace: Trace, when: str, out: Path, name: str = "dir", paths: tuple[bytes, ...] = (), **options: str
) -> Exported:
    exporter = plugins.exporter(name, options)
    return exporting.export(exporter, trace, Selection(trace.moment(when), paths), out, Silent())


def found(top: Path) -> dict[bytes, tuple[Any, ...]]:
    """What stands in a directory, in the form of TraceBuilder.tree(), but for owners unless root."""
    seen: dict[bytes, tuple[Any, ...]] = {}
    pending = [os.fsencode(top)]
    while pending:
        path = pending.pop()
        status = os.lstat(path)
        content = b""
        if stat.S_ISDIR(status.st_mode):
            pending += [path + b"/" + name for name in os.listdir(path)]
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            content = Path(os.fsdecode(path)).read_bytes()
        owner = (status.st_uid, status.st_gid) if IS_ROOT else ()
        links = 0 if stat.S_ISDIR(status.st_mode) else status.st_nlink
        seen[path[len(os.fsencode(top)) :]] = (status.st_mode, owner, links, status.st_mtime_ns, content)
    return seen


def expected(tree: dict[bytes, Any], special_bits: bool = False) -> dict[bytes, tuple[Any, ...]]:
    keep = 0o177777 if special_bits else 0o170777
    return {
        path[len(ROOT) :]: (
            mode & keep, (uid, gid) if IS_ROOT else (), 0 if stat.S_ISDIR(mode) else nlink, mtime, content
        )
        for path, (mode, uid, gid, nlink, mtime, content) in tree.items()
    }  # fmt: skip


@pytest.mark.parametrize("name", ["dir", "tar"])
def test_conformance(name: str, tmp_path: Path) -> None:
    """The built-in exporters pass the kit that plugin authors get."""
    testing.check_exporter(lambda: plugins.exporter(name, {}), tmp_path)


@pytest.mark.parametrize("when", ["start", "middle", "end"])
def test_a_directory_is_what_stood_there(made: tuple[Trace, Any], tmp_path: Path, when: str) -> None:
    """Content, modes, owners, ns times also of directories, links: as recorded; set-id bits only if asked for."""
    trace, trees = made
    result = export(trace, when, tmp_path / "plain")
    assert found(tmp_path / "plain") == expected(trees[when])
    assert result.entries == len(trees[when])
    assert any("suid=true" in note for note in result.notes)
    result = export(trace, when, tmp_path / "exact", suid="true")
    assert found(tmp_path / "exact") == expected(trees[when], special_bits=True)
    assert result.notes == ()


def test_hard_links_are_one_file(made: tuple[Trace, Any], tmp_path: Path) -> None:
    """Names of one file, in different directories and of symlinks too, share an inode."""
    export(made[0], "middle", tmp_path / "out")
    out = tmp_path / "out"
    assert len({os.lstat(out / name).st_ino for name in ("first", "papers/second", "locked/other")}) == 1
    assert os.lstat(out / "dangling").st_ino == os.lstat(out / "also-dangling").st_ino


def test_holes_stay_holes(made: tuple[Trace, Any], tmp_path: Path) -> None:
    """16 MiB with 8 bytes of data take a few blocks."""
    export(made[0], "middle", tmp_path / "out")
    status = (tmp_path / "out" / "hole").stat()
    assert status.st_size == 16 << 20
    assert status.st_blocks * 512 < 1 << 20


def test_extended_attributes_are_kept(made: tuple[Trace, Any], tmp_path: Path) -> None:
    """They are on the exported file, or a note says that they could not be."""
    result = export(made[0], "start", tmp_path / "out")
    try:
        assert os.getxattr(tmp_path / "out" / "tagged", "user.colour") == b"blue\0\xff"
    except OSError:
        assert any("user.colour" in note for note in result.notes)


def test_gnu_tar_extracts_the_same(made: tuple[Trace, Any], tmp_path: Path) -> None:
    """tar -x gives what the dir exporter gives; diff -r agrees."""
    trace, trees = made
    export(trace, "middle", tmp_path / "out.tar", "tar")
    export(trace, "middle", tmp_path / "out")
    (tmp_path / "extracted").mkdir()
    options = ["--xattrs", "--warning=no-unknown-keyword"]
    subprocess.run(["tar", "-xpf", tmp_path / "out.tar", "-C", tmp_path / "extracted", *options], check=True)
    assert found(tmp_path / "extracted") == expected(trees["middle"], special_bits=True)
    if IS_ROOT:
        same = ["diff", "-r", "--no-dereference", "-x", "fifo", str(tmp_path / "out"), str(tmp_path / "extracted")]
        subprocess.run(same, check=True)  # two FIFOs are never the same to diff


def test_names_of_extended_attributes_in_an_archive(tmp_path: Path) -> None:
    """"=" and "%" are spelt as GNU tar has them; one that is not UTF-8 is left out, which a note says."""
    builder = TraceBuilder(tmp_path / "trace")
    names = {b"user.a=b": b"1", b"user.100%": b"2", b"user.\xff": b"3", "user.ö".encode(): b"4"}
    builder.baseline({"tagged": {"content": b"t", "xattrs": names}})
    builder.begin()
    builder.end()
    builder.build()
    with diffkeeper.open(builder.path) as trace:
        result = export(trace, "end", tmp_path / "out.tar", "tar")
    assert any("1 extended attribute" in note for note in result.notes)
    with tarfile.open(tmp_path / "out.tar") as archive:
        headers = archive.getmember("tagged").pax_headers
    told = {name for name in headers if name.startswith("SCHILY")}
    assert told == {f"SCHILY.xattr.user.{name}" for name in ("a%3Db", "100%25", "ö")}
    (tmp_path / "extracted").mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "out.tar", "-C", tmp_path / "extracted", "--xattrs"], check=True)
    there = tmp_path / "extracted" / "tagged"
    if os.listxattr(there):  # tar only warns where there can be none
        assert {os.fsencode(name): os.getxattr(there, name) for name in os.listxattr(there)} == {
            name: value for name, value in names.items() if name != b"user.\xff"
        }


def test_python_reads_the_archive(made: tuple[Trace, Any], tmp_path: Path) -> None:
    """tarfile finds every name, its type, its exact time, and nothing about who exported."""
    trace, trees = made
    export(trace, "middle", tmp_path / "out.tar", "tar")
    with tarfile.open(tmp_path / "out.tar", encoding="utf-8", errors="surrogateescape") as archive:
        members = {os.fsencode(member.name): member for member in archive}
        read = archive.extractfile("papers/read me.txt")
        assert read is not None and read.read() == b"short\n"
    assert members.keys() == {path[len(ROOT) + 1 :] or b"." for path in trees["middle"]}
    assert not any(member.uname or member.gname for member in members.values())
    assert members[b"first"].pax_headers["mtime"] == "1600000000.123456789"
    assert members[b"old"].pax_headers["mtime"] == "-1.500000001"
    assert members[b"papers/second"].islnk() and members[b"papers/second"].linkname == "first"
    assert members[b"odd\xff\nname"].size == 3


def test_the_archive_is_the_same_bytes_in_a_pipe(made: tuple[Trace, Any], tmp_path: Path) -> None:
    """A stream that cannot seek gets exactly what a file gets."""
    trace, _ = made
    export(trace, "end", tmp_path / "out.tar", "tar")

    class Pipe(io.RawIOBase):
        """Like a pipe: takes writes only."""

        content = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.content += bytes(data)
            return len(data)

    pipe = Pipe()
    exporting.export(plugins.exporter("tar", {}), trace, Selection(trace.moment("end")), pipe, Silent())  # type: ignore[arg-type]  # it can do less than a file
    assert pipe.content == (tmp_path / "out.tar").read_bytes()
    with pytest.raises(UsageError, match="standard output"):
        exporting.export(plugins.exporter("dir", {}), trace, Selection(trace.moment("end")), io.BytesIO(), Silent())


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        ((b"er",), {b"", b"papers", b"papers/deep", b"papers/deep/er"}),
        ((b"papers/deep",), {b"", b"papers", b"papers/deep", b"papers/deep/er"}),
        ((b"*.txt", b"./papers/deep/"), {b"", b"papers", b"papers/deep", b"papers/deep/er", b"papers/read me.txt"}),
        ((b"papers/*me*",), {b"", b"papers", b"papers/read me.txt"}),
        ((b"/opt/root/old",), {b"", b"old"}),
        ((b"odd*",), {b"", b"odd\xff\nname"}),
    ],
)
def test_a_part_can_be_chosen(
    made: tuple[Trace, Any], tmp_path: Path, paths: tuple[bytes, ...], names: set[bytes]
) -> None:
    """Globs choose by name, path or absolute path; what is above comes along, and only that."""
    export(made[0], "end", tmp_path / "out", paths=paths)
    assert {path.lstrip(b"/") for path in found(tmp_path / "out")} == names


def test_nothing_chosen_is_an_error_and_leaves_nothing(made: tuple[Trace, Any], tmp_path: Path) -> None:
    """A pattern that matches nothing at the moment is probably a mistake."""
    with pytest.raises(PathError, match=r"nothing at \*.nothing at the moment @end"):
        export(made[0], "end", tmp_path / "out", paths=(b"*.nothing",))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["dir", "tar"])
def test_a_destination_that_exists_is_kept(made: tuple[Trace, Any], tmp_path: Path, name: str) -> None:
    """File, directory or dangling symlink: it is left alone, and the message says what to do."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for there in ("file", "directory", "link"):
        with pytest.raises(DestinationError, match="exists already"):
            export(made[0], "end", tmp_path / there, name)
    with pytest.raises(DestinationError, match="cannot write to"):
        export(made[0], "end", tmp_path / "missing" / "out", name)
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["directory", "file", "link"]


def test_several_roots_stand_at_their_own_paths(tmp_path: Path) -> None:
    """With two roots the export holds each at its absolute path, and nothing else of what is above them."""
    builder = TraceBuilder(tmp_path / "trace", roots=(b"/opt/one", b"/srv/two"))
    builder.baseline({"/opt/one/a": b"1", "/srv/two/b": b"2"})
    builder.begin()
    builder.create("/srv/outside", b"not in any moment")
    builder.end()
    with diffkeeper.open(builder.build()) as trace:
        export(trace, "end", tmp_path / "out")
        part = {b"", b"/opt", b"/opt/one", b"/opt/one/a"}
        assert set(found(tmp_path / "out")) == part | {b"/srv", b"/srv/two", b"/srv/two/b"}
        export(trace, "end", tmp_path / "part", paths=(b"/opt",))
        assert set(found(tmp_path / "part")) == part


@pytest.mark.parametrize("name", ["dir", "tar"])
def test_device_nodes(tmp_path: Path, name: str) -> None:
    """The dir exporter leaves them out and says so, or makes them on request; an archive holds them."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"null": {"mode": stat.S_IFCHR | 0o666, "rdev": os.makedev(259, 300_000)}, "file": b""})
    builder.begin()
    builder.end()
    with diffkeeper.open(builder.build()) as trace:
        result = export(trace, "end", tmp_path / "out", name)
        if name == "tar":
            with tarfile.open(tmp_path / "out") as archive:
                member = archive.getmember("null")
            assert (member.type, member.devmajor, member.devminor) == (tarfile.CHRTYPE, 259, 300_000)
            return
        assert os.listdir(tmp_path / "out") == ["file"]
        assert result.notes == ("1 device nodes left out (--opt devices=true makes them)",)
        if IS_ROOT:
            export(trace, "end", tmp_path / "with", devices="true")
            assert os.lstat(tmp_path / "with" / "null").st_rdev == os.makedev(259, 300_000)


def as_somebody(work: Callable[[], object]) -> None:
    """Run `work` in a child process that is not root."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if IS_ROOT:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_unprivileged_user_exports_locked_directories() -> None:
    """Without root the owner is who exports, and modes that lock the owner out are still right at the end."""
    plugins.exporter("dir", {})  # loaded now: somebody else may not be able to read the program's files
    with tempfile.TemporaryDirectory() as place:
        builder, trees = build(Path(place, "trace"))
        user, group = (65534, 65534) if IS_ROOT else (os.getuid(), os.getgid())
        for path in (Path(place), *Path(place).rglob("*")):
            os.chown(path, user, group)
        out = Path(place, "out")

        def work() -> None:
            with diffkeeper.open(builder.path) as trace:
                export(trace, "middle", out)

        as_somebody(work)
        made = {path: (mode, mtime, content) for path, (mode, _, _, mtime, content) in found(out).items()}
        tree = expected(trees["middle"]).items()
        assert made == {path: (mode, mtime, content) for path, (mode, _, _, mtime, content) in tree}
        assert os.lstat(out / "papers").st_uid == user
        partial.remove_tree(out)


def test_depth_costs_no_descriptors(tmp_path: Path) -> None:
    """A path of 1,500 directories is exported with few open files, and removed again when it fails."""
    builder = TraceBuilder(tmp_path / "trace")
    builder.baseline({"/".join(["d"] * 1500) + "/leaf": b"deep"})
    builder.begin()
    builder.end()
    with diffkeeper.open(builder.build()) as trace:
        result = export(trace, "end", tmp_path / "out")
        assert result.entries == 1502
        with pytest.raises(DestinationError, match="exists"):
            export(trace, "end", tmp_path / "out")
    partial.remove_tree(tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["trace"]


class KilledAt(Silent):
    """The end of a process in the middle of its work, as by SIGKILL."""

    def __init__(self, calls: int) -> None:
        self._left = calls

    def progress(self, label: str, done: int, total: int) -> None:
        del label, done, total
        self._left -= 1
        if not self._left:
            os._exit(9)


def killed(trace_path: Path, out: Path, calls: int, when: str = "middle") -> None:
    """Begin a resumable export in a process of its own, which dies when it has made so many entries."""
    pid = os.fork()
    if not pid:
        try:
            with diffkeeper.open(trace_path) as trace:
                selection = Selection(trace.moment(when))
                exporting.export(plugins.exporter("dir", {}), trace, selection, out, KilledAt(calls), resume=True)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


def inodes(top: Path) -> dict[str, int]:
    """Of regular files, by path."""
    paths = [os.path.join(directory, name) for directory, _, names in os.walk(top) for name in names]
    return {os.path.relpath(path, top): os.lstat(path).st_ino for path in paths if stat.S_ISREG(os.lstat(path).st_mode)}


def test_an_export_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    """Killed again and again, a bit later each time: whole files are kept, and the result is as if it never was."""
    builder, trees = build(tmp_path / "trace")
    out = tmp_path / "out"
    before: dict[str, int] = {}
    for calls in range(2, 23, 3):
        killed(builder.path, out, calls)
        assert not out.exists()
        now = inodes(next(tmp_path.glob(".diffkeeper-partial-*")) / "made" / "out")
        assert {name: now.get(name) for name in before} == before, "what was whole is not made again"
        before = now
    with diffkeeper.open(builder.path) as trace:
        exporter = plugins.exporter("dir", {})
        result = exporting.export(exporter, trace, Selection(trace.moment("middle")), out, Silent(), resume=True)
    assert found(out) == expected(trees["middle"])
    assert result.entries == len(trees["middle"])
    assert any("suid=true" in note for note in result.notes)
    assert before.items() <= inodes(out).items()
    assert len(before) > 5
    assert sorted(os.listdir(tmp_path)) == ["out", "trace"]


def test_a_file_that_is_not_whole_is_made_again(tmp_path: Path) -> None:
    """One that was cut off in the middle, of the right size but without its time, and one that is something else."""
    builder, trees = build(tmp_path / "trace")
    killed(builder.path, tmp_path / "out", 22)
    part = next(tmp_path.glob(".diffkeeper-partial-*")) / "made" / "out"
    (part / "-rf").write_bytes(b"dasX")
    (part / "first").unlink(missing_ok=True)
    (part / "first").symlink_to("/etc/passwd")
    with diffkeeper.open(builder.path) as trace:
        exporter = plugins.exporter("dir", {})
        exporting.export(exporter, trace, Selection(trace.moment("middle")), tmp_path / "out", Silent(), resume=True)
    assert found(tmp_path / "out") == expected(trees["middle"])


def test_only_the_very_same_export_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another moment: an error that names the part. After a restart of the machine: begun anew."""
    builder, trees = build(tmp_path / "trace")
    killed(builder.path, tmp_path / "out", 10)
    part = next(tmp_path.glob(".diffkeeper-partial-*"))
    with diffkeeper.open(builder.path) as trace:
        end, middle = (Selection(trace.moment(when)) for when in ("end", "middle"))
        with pytest.raises(DestinationError, match="part of another export"):
            exporting.export(plugins.exporter("dir", {}), trace, end, tmp_path / "out", Silent(), resume=True)
        exporter = plugins.exporter("dir", {"suid": "true"})
        with pytest.raises(DestinationError, match="part of another export"):
            exporting.export(exporter, trace, middle, tmp_path / "out", Silent(), resume=True)
        with pytest.raises(UsageError, match="cannot be resumed"):
            exporting.export(plugins.exporter("tar", {}), trace, middle, tmp_path / "x", Silent(), resume=True)
        (tmp_path / "boot").write_text("another\n")
        monkeypatch.setattr(partial, "_BOOT", tmp_path / "boot")
        (part / "made" / "out" / "stale").write_text("left over")
        exporting.export(plugins.exporter("dir", {}), trace, middle, tmp_path / "out", Silent(), resume=True)
    assert found(tmp_path / "out") == expected(trees["middle"])


@pytest.mark.skipif(not IS_ROOT, reason="owners are compared, which only root can make")
def test_rsync_finds_nothing_to_do(made: tuple[Trace, Any], tmp_path: Path) -> None:
    """Between two exports of a moment, one of them through tar: content, modes, owners, times, links, attributes."""
    trace, _ = made
    export(trace, "middle", tmp_path / "dir", suid="true")
    export(trace, "middle", tmp_path / "out.tar.zst", "tar.zst")
    (tmp_path / "tar").mkdir()
    words = ["tar", "--zstd", "-xpf", str(tmp_path / "out.tar.zst"), "-C", str(tmp_path / "tar"), "--xattrs"]
    subprocess.run([*words, "--warning=no-unknown-keyword"], check=True)
    compare = ["rsync", "-nacHi", "--delete", "--checksum", f"{tmp_path}/dir/", f"{tmp_path}/tar/"]
    done = subprocess.run(compare, check=True, capture_output=True)
    assert done.stdout == b""
