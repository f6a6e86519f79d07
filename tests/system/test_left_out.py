"""What a filter rejects is left out in the kernel: its bytes are not copied, and nothing else is harmed by that."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import diffkeeper
from diffkeeper.model import Fidelity
from tests.system import harness

IGNORED = "node_modules"
PRELUDE = """
import ctypes, mmap, os, shutil, sys, time
def judged(directory):
    '''Goes on when calls in there are left out: when nothing that is done there comes to the journal.'''
    journal = lambda: sum(entry.stat().st_size for entry in os.scandir(sys.argv[1] + '/journal'))
    os.makedirs(directory, exist_ok=True)
    fd = os.open(directory + '/probe', os.O_CREAT | os.O_WRONLY)
    quiet = turns = 0
    while quiet < 3:
        turns += 1
        time.sleep(0.03)
        before = journal()
        os.pwrite(fd, bytes(100_000), 0)
        time.sleep(0.03)
        quiet = quiet + 1 if journal() - before < 50_000 else 0
    os.close(fd)
    os.unlink(directory + '/probe')
    return turns
def put(path, content):
    with open(path, 'wb') as file:
        file.write(content)
def mark(name):
    try:
        os.open('/.diffkeeper/mark/' + name, os.O_RDONLY)
    except OSError:
        pass
turns = judged('node_modules')
"""


def record(
    script: str, trace: Path, workspace: Path, patterns: str = f"{IGNORED}/,*.tmp", options: Sequence[str] = ()
) -> dict[str, Any]:
    """What `info` says of a recording of this script; what is rejected is not in it, and all else is as it is."""
    command: list[str | Path] = [sys.executable, "-c", PRELUDE + script, trace]
    words = ["--filter", f"glob:exclude={patterns}", *options]
    result = harness.record(trace, command, cwd=workspace, options=words)
    assert result.returncode == 0, result.stderr
    facts = dict(harness.info(trace))
    assert facts["lost"] in ({}, 0), facts["lost"]
    kept = {
        path: entry
        for path, entry in harness.truth(workspace).items()
        if IGNORED not in Path(path).parts and not path.endswith(".tmp")
    }
    harness.assert_same(but_links(harness.recorded(trace, "end")), but_links(kept))
    return facts


def but_links(tree: harness.Truth) -> harness.Truth:
    """Names that are left out are no links in a moment."""
    return {path: dataclasses.replace(entry, nlink=None) for path, entry in tree.items()}


def content(trace: Path, moment: str, name: str) -> bytes:
    with diffkeeper.open(trace) as opened:
        return (opened.at(moment) / name).read_bytes()


def paths(trace: Path) -> set[bytes]:
    with diffkeeper.open(trace) as opened:
        return {event.path for event in opened.events()}


def journal_of(trace: Path) -> int:
    return sum(path.stat().st_size for path in trace.rglob("*") if path.is_file())


def test_calls_on_what_is_left_out_are_counted(workspace: Path, trace: Path) -> None:
    """Each call counts once, whoever drops it; the directory is named."""
    script = """
fd = os.open('node_modules/a', os.O_CREAT | os.O_WRONLY)
for at in range(1000):
    os.pwrite(fd, b'x' * 100, at * 100)
os.ftruncate(fd, 5)
os.fchmod(fd, 0o600)
os.posix_fallocate(fd, 0, 10000)
os.setxattr('node_modules/a', 'user.x', b'y')
os.utime('node_modules/a', (1, 1))
os.chmod('node_modules/a', 0o644)
os.rename('node_modules/a', 'node_modules/b')
os.link('node_modules/b', 'node_modules/c')
os.unlink('node_modules/b')
os.mkdir('node_modules/d')
os.symlink('x', 'node_modules/d/e')
os.unlink('node_modules/d/e')
os.rmdir('node_modules/d')
put('turns', b'%d' % turns)
"""
    facts = record(script, trace, workspace)
    assert facts["verified"]["mismatches"] == 0
    (told,) = facts["filters"]
    probe = 1 + 1 + int((workspace / "turns").read_text()) + 1
    assert told["events"] == probe + 1 + 1000 + 3 + 3 + 3 + 4
    assert told["examples"] == [f"{IGNORED}/"]
    assert {path for path in paths(trace) if IGNORED.encode() in path} == set()


def test_bytes_of_what_is_left_out_are_not_copied(workspace: Path, trace: Path) -> None:
    """By whatever call they are written: a disk that holds little is enough to record the writing of much."""
    script = """
size = 32 << 20
put('source', bytes(range(256)) * 4096)
fd = os.open('node_modules/big', os.O_CREAT | os.O_RDWR)
source = os.open('source', os.O_RDONLY)
for at in range(0, size, 1 << 20):
    os.pwrite(fd, os.urandom(1 << 20), at)
    os.pwritev(fd, [os.urandom(1 << 16)] * 4, at)
    os.lseek(source, 0, 0)
    os.lseek(fd, at, 0)
    os.copy_file_range(source, fd, 1 << 20)
    os.lseek(source, 0, 0)
    os.lseek(fd, at, 0)
    os.sendfile(fd, source, 0, 1 << 20)
with mmap.mmap(fd, size) as mapped:
    mapped[:1 << 20] = os.urandom(1 << 20)
    mapped.flush()
    time.sleep(0.3)
os.truncate('node_modules/big', 100)
os.ftruncate(fd, size)
print(sum(entry.stat().st_size for entry in os.scandir(sys.argv[1] + '/journal')), file=sys.stderr)
"""
    facts = record(script, trace, workspace)
    assert facts["verified"]["mismatches"] == 0
    assert journal_of(trace) < 16 << 20


def test_what_is_made_below_is_left_out_from_the_first_call(workspace: Path, trace: Path) -> None:
    """New directories in new directories of a rejected one: no byte of their files is copied."""
    script = """
def size():
    return sum(entry.stat().st_size for entry in os.scandir(sys.argv[1] + '/journal'))
time.sleep(0.1)
before = size()
for top in range(20):
    os.makedirs(f'node_modules/{top}/a/b/c')
    for name in range(10):
        put(f'node_modules/{top}/a/b/c/{name}', os.urandom(100_000))
os.chdir('node_modules/3')
put('from-within', os.urandom(100_000))
time.sleep(0.2)
os.chdir('../..')
put('grown', b'%d' % (size() - before))
"""
    facts = record(script, trace, workspace)
    assert facts["verified"]["mismatches"] == 0
    assert int((workspace / "grown").read_text()) < 100_000


@pytest.mark.parametrize("known", [True, False])
def test_a_file_that_is_moved_out_is_read(known: bool, workspace: Path, trace: Path) -> None:
    """At the moment of its rename it has its content, and what is written to it later is recorded."""
    (workspace / IGNORED).mkdir()
    (workspace / IGNORED / "old").write_bytes(b"from before " * 1000)
    start = "put('node_modules/new', b'never seen ' * 10000)\nfile = open('node_modules/new', 'ab')\n"
    script = (start if known else "file = open('node_modules/old', 'ab'); file.close()\nfile = None\n") + """
name = 'node_modules/new' if file else 'node_modules/old'
os.rename(name, 'out')
mark('moved')
before = open('out', 'rb').read()
if file:
    file.write(b'more')
    file.flush()
    file.close()
os.rename('out', 'further')
put('before', before)
"""
    facts = record(script, trace, workspace)
    assert content(trace, "moved", "out") == (workspace / "before").read_bytes()
    assert facts["verified"]["mismatches"] == 0
    assert facts["fidelity"].get("unknown", 0) == 0
    with diffkeeper.open(trace) as opened:
        events = list(opened.events(path="out"))
        assert [event.op.label for event in events][:2] == (["rename", "write"] if known else ["rename", "rename"])
        node = opened.reader.resolve(opened.roots[0] + b"/further", opened.reader.last_seq)
        assert node
        attrs = opened.reader.attrs(node, opened.reader.last_seq)
        assert attrs and attrs.fidelity == Fidelity.EXACT


def test_files_that_are_written_under_a_rejected_name_first(workspace: Path, trace: Path) -> None:
    """Write-new-and-rename from NAME.tmp: each version is in its moment, or it is said that it may not be."""
    script = """
for number in range(30):
    put('state.tmp', b'version %d ' % number * 100)
    os.rename('state.tmp', 'state')
    time.sleep(0.03)
    mark(f'v{number}')
"""
    facts = record(script, trace, workspace)
    assert facts["verified"]["mismatches"] == 0
    right = 0
    with diffkeeper.open(trace) as opened:
        for number in range(30):
            if (opened.at(f"v{number}") / "state").read_bytes() == b"version %d " % number * 100:
                right += 1
                continue
            seq = opened.moment(f"v{number}").seq
            node = opened.reader.resolve(opened.roots[0] + b"/state", seq)
            attrs = opened.reader.attrs(node, seq) if node else None
            assert attrs and attrs.fidelity != Fidelity.EXACT
    assert right > 0


def test_a_hard_link_out_is_read(workspace: Path, trace: Path) -> None:
    """A file with a name that is recorded and one that is not: it is recorded, by whichever it is written."""
    script = """
put('node_modules/a', b'linked ' * 1000)
os.link('node_modules/a', 'a')
mark('linked')
with open('node_modules/a', 'ab') as file:
    file.write(b'by its other name')
mark('written')
with open('a', 'ab') as file:
    file.write(b', and by this one')
"""
    facts = record(script, trace, workspace)
    assert facts["verified"]["mismatches"] == 0
    assert content(trace, "linked", "a") == b"linked " * 1000
    assert content(trace, "written", "a").endswith(b"by its other name")


def test_a_directory_that_is_moved_out_is_read(workspace: Path, trace: Path) -> None:
    """With all that is in it, and from then on its files are recorded, those that are open, too."""
    script = """
os.makedirs('node_modules/p/q')
for number in range(20):
    put(f'node_modules/p/q/{number}', b'%d' % number * 1000)
os.symlink('q', 'node_modules/p/link')
put('node_modules/p/q/x.tmp', b'never')
held = open('node_modules/p/q/7', 'ab')
os.rename('node_modules/p', 'p')
mark('moved')
held.write(b'held')
held.close()
put('p/q/new', b'new')
put('p/q/3', b'three')
"""
    facts = record(script, trace, workspace)
    assert facts["verified"]["mismatches"] == 0
    assert content(trace, "moved", "p/q/7") == b"7" * 1000
    assert content(trace, "moved", "p/q/19") == b"19" * 1000
    assert content(trace, "end", "p/q/7") == b"7" * 1000 + b"held"


def test_what_is_moved_in_is_left_out_from_then_on(workspace: Path, trace: Path) -> None:
    """A file and a directory, whoever has their files open; and back out."""
    script = """
os.makedirs('dir/sub')
put('dir/sub/file', b'before')
put('file', b'before')
one, other = open('file', 'ab'), open('dir/sub/file', 'ab')
os.rename('file', 'node_modules/file')
os.rename('dir', 'node_modules/dir')
for file in (one, other):
    file.write(b' unseen')
    file.flush()
put('node_modules/dir/sub/more', b'more')
put('between', b'between')
os.rename('node_modules/file', 'file')
os.rename('node_modules/dir', 'again')
mark('back')
for file in (one, other):
    file.write(b' seen')
    file.close()
"""
    facts = record(script, trace, workspace)
    assert facts["verified"]["mismatches"] == 0
    assert content(trace, "back", "file") == b"before unseen"
    assert content(trace, "back", "again/sub/file") == b"before unseen"
    assert content(trace, "back", "again/sub/more") == b"more"


def test_an_exchange_swaps_what_is_left_out(workspace: Path, trace: Path) -> None:
    """renameat2 with RENAME_EXCHANGE over the border: one comes, the other goes."""
    script = """
put('node_modules/a', b'inner')
put('a', b'outer')
libc = ctypes.CDLL(None, use_errno=True)
assert libc.renameat2(-100, b'node_modules/a', -100, b'a', 2) == 0
mark('swapped')
put('b', b'b')
with open('a', 'ab') as file:
    file.write(b' and more')
"""
    record(script, trace, workspace)
    assert content(trace, "end", "a") == b"inner and more"
    assert content(trace, "swapped", "a") == b"inner"


def test_a_number_that_is_used_again_is_another_file(filesystem: Path, trace: Path) -> None:
    """Inodes of files and directories that were left out, and are gone: who gets their numbers is recorded."""
    script = """
for turn in range(40):
    put('node_modules/f', b'x')
    os.mkdir('node_modules/d')
    put('node_modules/d/f', b'x')
    shutil.rmtree('node_modules/d')
    os.unlink('node_modules/f')
    put(f'kept{turn}', b'kept %d' % turn)
    os.mkdir(f'dir{turn}')
    put(f'dir{turn}/kept', b'kept %d' % turn)
"""
    facts = record(script, trace, filesystem)
    assert facts["verified"]["mismatches"] == 0


def test_every_filesystem(filesystem: Path, trace: Path) -> None:
    """Out by rename, by link and with a directory, wherever the files are."""
    script = """
os.makedirs('node_modules/p/q')
put('node_modules/a', b'a' * 5000)
put('node_modules/b', b'b' * 5000)
put('node_modules/p/q/c', b'c' * 5000)
file = open('node_modules/a', 'ab')
os.rename('node_modules/a', 'a')
mark('a')
os.link('node_modules/b', 'b')
os.rename('node_modules/p', 'p')
mark('all')
for name in ('b', 'p/q/c'):
    with open(name, 'ab') as other:
        other.write(b'more')
file.write(b'more')
file.close()
"""
    facts = record(script, trace, filesystem)
    assert facts["verified"]["mismatches"] == 0
    assert content(trace, "a", "a") == b"a" * 5000
    assert content(trace, "all", "b") == b"b" * 5000
    assert content(trace, "all", "p/q/c") == b"c" * 5000


def test_a_root_in_a_rejected_directory_is_recorded(tmp_path: Path, trace: Path) -> None:
    """Patterns are about what is below a root, whatever the root is called."""
    root = tmp_path / IGNORED / "project"
    root.mkdir(parents=True)
    command = ["sh", "-c", "mkdir -p sub node_modules; for i in 1 2 3; do echo $i > sub/$i; echo $i >> ../outer; done"]
    result = harness.record(trace, command, cwd=root, options=["--filter", f"glob:exclude={IGNORED}/"])
    assert result.returncode == 0, result.stderr
    assert {"sub/1", "sub/2", "sub/3"} <= set(harness.recorded(trace, "end"))
    assert harness.info(trace)["verified"]["mismatches"] == 0


def test_a_program_that_moves_while_others_write(workspace: Path, trace: Path) -> None:
    """Files go in and out while another process writes to them: the end is right, and nothing is lost."""
    script = """
if os.fork() == 0:
    deadline = time.monotonic() + 1.5
    number = 0
    files = [open(f'f{i}', 'ab', buffering=0) for i in range(5)]
    while time.monotonic() < deadline:
        number += 1
        files[number % 5].write(b'%06d\\n' % number)
    os._exit(0)
time.sleep(0.1)
for turn in range(100):
    name = f'f{turn % 5}'
    if os.path.exists(name):
        os.rename(name, 'node_modules/' + name)
        time.sleep(0.003)
        os.rename('node_modules/' + name, name)
os.wait()
"""
    facts = record(script, trace, workspace)
    assert facts["filters"][0]["events"] > 0


def test_io_uring_and_aio(workspace: Path, trace: Path) -> None:
    """Asynchronous writes into what is left out are counted, and not copied."""
    job = ["--rw=write", "--size=4m", "--bs=64k", "--iodepth=4", "--output=/dev/null", "--directory=node_modules"]
    runs = " && ".join(
        " ".join(["fio", f"--name={engine}", f"--ioengine={engine}", *job]) for engine in ("io_uring", "libaio")
    )
    script = f"""
import subprocess
subprocess.run({runs!r}, shell=True, check=True)
put('kept', b'kept')
"""
    facts = record(script, trace, workspace)
    assert facts["verified"]["mismatches"] == 0
    assert facts["filters"][0]["events"] >= 128


def test_a_shell_that_builds(workspace: Path, trace: Path) -> None:
    """git ignores what it is told to: a repository is recorded beside a tree of ignored objects."""
    (workspace / ".gitignore").write_text("/obj/\n*.log\n")
    script = """
git init -q .; git config user.email a@b; git config user.name a
mkdir obj; for i in 1 2 3 4 5 6 7 8; do echo "int f$i(void) { return $i; }" > f$i.c; gcc -c f$i.c -o obj/f$i.o
echo $i >> build.log; done; ar cr obj/lib.a obj/*.o; cp obj/lib.a lib.a; mv obj/f1.o f1.o; git add .; git commit -qm one
"""
    result = harness.record(trace, ["sh", "-c", script], cwd=workspace, options=["--filter", "gitignore"])
    assert result.returncode == 0, result.stderr
    leave = {path for path in harness.truth(workspace) if path.split("/")[0] == "obj" or path.endswith(".log")}
    kept = {path: entry for path, entry in harness.truth(workspace).items() if path not in leave}
    harness.assert_same(harness.recorded(trace, "end"), kept)
    assert subprocess.run(["git", "fsck"], cwd=workspace, check=False).returncode == 0
    facts = harness.info(trace)
    assert (facts["verified"]["mismatches"], facts["lost"]) == (0, 0)


def test_a_directory_has_its_times_whatever_is_made_in_it(workspace: Path, trace: Path) -> None:
    """What is left out changes the directory that it is in, and that is recorded."""
    script = """
for name in ('made', 'gone', 'directory', 'removed'):
    os.mkdir(name)
    put(name + '/kept', b'kept')
    put(name + '/old.tmp', b'old')
    os.mkdir(name + '/old.tmp.d')
os.mkdir('removed/node_modules')
time.sleep(0.05)
put('made/new.tmp', b'new')
os.unlink('gone/old.tmp')
os.mkdir('directory/node_modules')
os.rmdir('removed/node_modules')
"""
    facts = record(script, trace, workspace)
    assert facts["verified"]["mismatches"] == 0
