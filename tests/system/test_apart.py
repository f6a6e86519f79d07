"""Processes with mounts of their own: what their calls did is recorded where it was done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import diffkeeper
from tests.system import harness

PREPARE = "mkdir sub other; echo a > sub/old; echo b > sub/kept; echo c > other/mine; echo l > sub/linked"
CHANGES = """
echo new > "$1/x"; echo more >> "$1/kept"; mkdir "$1/d" "$1/d/d"; rm "$1/old"; mv "$1/x" "$1/d/y"
mv "$1/d/y" "$1/d/d/x"
chmod 600 "$1/kept"; touch -d @1000000000 "$1/linked"; setfattr -n user.a -v 1 "$1/kept"; truncate -s 1 "$1/d/d/x"
ln "$1/linked" "$1/again"; ln -s nowhere "$1/link"; mkfifo "$1/fifo"; mv "$1/d/d" "$1/e"; mkdir "$1/gone"
rmdir "$1/gone"
mkdir "$1/m" "$1/n"; echo 1 > "$1/m/b"; echo 22 > "$1/n/b"; python3 -c '
import ctypes, sys
m, n = (sys.argv[1].encode() + each for each in (b"/m/b", b"/n/b"))
assert ctypes.CDLL(None).renameat2(-100, m, -100, n, 2) == 0
' "$1"; mkdir "$1/o"; echo 333 > "$1/o/b"; mv "$1/o/b" "$1/n/b"
chown 1:2 "$1/link" -h; cp "$1/kept" "$1/copy"; ln -s /"$(basename "$1")"/kept "$1/absolute"
"""


@pytest.mark.parametrize("kind", ["bind mount", "bind mount elsewhere", "bind mount of all", "chroot"])
def test_changes_through_another_path(kind: str, filesystem: Path, trace: Path, tmp_path: Path) -> None:
    """Calls of all kinds by absolute paths that only the process itself has: nothing is missed, nothing put right."""
    root, script, elsewhere = filesystem / "root", tmp_path / "changes", tmp_path / "elsewhere"
    for directory in (root, elsewhere):
        directory.mkdir()
    script.write_text(CHANGES)
    subprocess.run(["sh", "-euc", PREPARE], cwd=root, check=True)
    apart = {
        "bind mount": f"mount --bind {root}/sub {root}/other; sh -eu {script} {root}/other",
        "bind mount elsewhere": f"mount --bind {root}/sub {elsewhere}; cd /; sh -eu {script} {elsewhere}",
        "bind mount of all": f"mount --rbind / {elsewhere}; sh -eu {script} {elsewhere}{root}/sub",
        "chroot": f"mount --rbind / {elsewhere}; mount --bind {root}/sub {elsewhere}/mnt;"
                  f" cp {script} /dev/shm/dk-changes; chroot {elsewhere} sh -eu /dev/shm/dk-changes /mnt",
    }[kind]  # fmt: skip
    result = harness.record(trace, ["unshare", "-m", "sh", "-euc", apart], cwd=root)
    Path("/dev/shm/dk-changes").unlink(missing_ok=True)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, root)
    with diffkeeper.open(trace) as opened:
        assert b"other" not in {event.path.split(b"/")[-2] for event in opened.events() if event.path.count(b"/") > 1}


@pytest.mark.parametrize("kind", ["alone", "beside the directory"])
def test_in_a_directory_that_is_mounted_somewhere_else(kind: str, filesystem: Path, trace: Path) -> None:
    """As a container has its volumes: what is changed in it has exact times as well, the mounted directory included."""
    root, point = filesystem / "volume", trace.parent / "point"
    root.mkdir()
    point.mkdir()
    subprocess.run(["sh", "-euc", PREPARE], cwd=root, check=True)
    script = trace.parent / "changes"
    script.write_text(CHANGES + 'echo 1 > "$1/../f"; mv "$1/../f" "$1/../g"')
    hidden = f"mount -t tmpfs none {filesystem};" if kind == "alone" else ""
    start = f'mount --bind {root} {point}; {hidden} cd {point}; exec "$@"'
    record = [*harness.DIFFKEEPER, "record", "-o", str(trace), "--", "sh", "-eu", str(script), "sub"]
    result = subprocess.run(["unshare", "-m", "sh", "-euc", start, "sh", *record], check=False, timeout=120)
    assert result.returncode == 0
    facts = harness.info(trace)
    assert facts["verified"]["mismatches"] == 0, facts["verified"]
    assert not facts["lost"]
    harness.assert_same(harness.recorded(trace, "end"), harness.truth(root))


def test_a_private_filesystem_over_a_directory(filesystem: Path, trace: Path, tmp_path: Path) -> None:
    """What is written to a tmpfs that nobody else sees is told, and is at no moment in the directory that it covers."""
    script = tmp_path / "changes"
    script.write_text(CHANGES)
    subprocess.run(["sh", "-euc", PREPARE], cwd=filesystem, check=True)
    fill = "mount -t tmpfs none sub; cp -a other/mine sub/kept; echo a > sub/old; cp sub/old sub/linked"
    apart = f"{fill}; sh -eu {script} {filesystem}/sub"
    result = harness.record(trace, ["unshare", "-m", "sh", "-euc", apart], cwd=filesystem)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, filesystem)
    with diffkeeper.open(trace) as opened:
        top = opened.roots[0]
        assert [event.path for event in opened.events() if event.path.startswith(top + b"/sub")] == []
        told = [event.path for event in opened.events() if event.path.startswith(b"/[filesystem ")]
        assert {path.rpartition(b"/")[2] for path in told} >= {b"kept", b"x", b"fifo", b"gone", b"absolute"}


def test_a_bind_mount_that_is_there_before(workspace: Path, trace: Path, tmp_path: Path) -> None:
    """What is changed through another path that everybody sees is recorded below the root."""
    elsewhere, script = tmp_path / "elsewhere", tmp_path / "changes"
    elsewhere.mkdir()
    script.write_text(CHANGES)
    subprocess.run(["sh", "-euc", PREPARE], cwd=workspace, check=True)
    subprocess.run(["mount", "--bind", workspace / "sub", elsewhere], check=True)
    try:
        result = harness.record(trace, ["sh", "-eu", script, elsewhere], cwd=workspace)
    finally:
        subprocess.run(["umount", elsewhere], check=True)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, workspace)


def test_mounts_that_the_command_makes_for_all(workspace: Path, trace: Path) -> None:
    """A tmpfs that the command mounts below the root, where everybody sees it, is recorded where it is."""
    fill = f"echo t > sub/there; mkdir {workspace}/sub/d; echo u > {workspace}/other/x"
    apart = f"mount -t tmpfs none {workspace}/sub; {fill}"
    subprocess.run(["mkdir", "sub", "other"], cwd=workspace, check=True)
    try:
        result = harness.record(trace, ["sh", "-euc", apart], cwd=workspace)
        assert result.returncode == 0, result.stderr
        with diffkeeper.open(trace) as opened:
            top = opened.roots[0]
            made = {event.path for event in opened.events() if event.op.label in ("create", "mkdir")}
            assert made == {top + b"/sub/there", top + b"/sub/d", top + b"/other/x"}
            assert (opened.at("end") / "sub/there").read_text() == "t\n"
    finally:
        subprocess.run(["umount", workspace / "sub"], check=True)


def test_a_descriptor_from_a_process_apart(workspace: Path, trace: Path, tmp_path: Path) -> None:
    """What is opened by a path that only its opener has, and written to by somebody else, is where it is."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(["sh", "-euc", PREPARE], cwd=workspace, check=True)
    write = "nsenter --mount=/proc/$PPID/ns/mnt sh -euc 'echo more >&3'"
    apart = f"mount --bind {workspace}/sub {elsewhere}; exec 3<>{elsewhere}/kept; {write}"
    result = harness.record(trace, ["sh", "-c", 'unshare -m sh -euc "$0"; exit $?', apart], cwd=workspace)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, workspace)


def test_a_filesystem_that_writes_its_records_at_once(tmp_path: Path, trace: Path) -> None:
    """On ext4 without a journal calls also touch the device that it lies on: that is not what they are about."""
    image, point = tmp_path / "image", tmp_path / "mounted"
    point.mkdir()
    subprocess.run(["truncate", "-s", "32M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, point], check=True)
    try:
        root, script = point / "root", tmp_path / "changes"
        root.mkdir()
        script.write_text(CHANGES + 'for i in 1 2 3 4 5 6 7; do sync -f "$1"; chmod 64$i "$1/kept"; done')
        subprocess.run(["sh", "-euc", PREPARE], cwd=root, check=True)
        apart = f"mount --bind {root}/sub {root}/other; sh -eu {script} {root}/other"
        result = harness.record(trace, ["unshare", "-m", "sh", "-euc", apart], cwd=root)
        assert result.returncode == 0, result.stderr
        harness.assert_faithful(trace, root)
    finally:
        subprocess.run(["umount", point], check=True)


def test_calls_by_path_after_the_filesystem_wrote_its_trees(filesystem: Path, trace: Path) -> None:
    """After a sync btrfs begins new trees with the next call: what that touched beside the file is not taken for it."""
    script = """
import ctypes, os
there, syncfs = os.open('.', os.O_RDONLY), ctypes.CDLL(None).syncfs
files = [f'file{number}' for number in range(6)]
acts = [lambda path: os.truncate(path, 512), lambda path: os.chmod(path, 0o600), lambda path: os.utime(path, (1, 2)),
        lambda path: os.setxattr(path, 'user.a', b'v'), lambda path: os.chown(path, 1, 2), lambda path: os.unlink(path)]
for path in files:
    with open(path, 'wb') as file:
        file.write(b'x' * 5704)
for path, act in zip(files, acts):
    assert syncfs(there) == 0
    act(path)
    try: os.open('/.diffkeeper/mark/' + path, 0)
    except OSError: pass
"""
    apart = f'mount --bind {filesystem} {filesystem}; cd {filesystem}; exec {sys.executable} -c "$1"'
    result = harness.record(trace, ["unshare", "-m", "sh", "-euc", apart, "sh", script], cwd=filesystem)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, filesystem)
    with diffkeeper.open(trace) as opened:
        assert (opened.at("file0") / "file0").stat().st_size == 512


def test_memory_that_is_shared_without_a_name(workspace: Path, trace: Path) -> None:
    """What a program does to a memfd is nobody's file: it is not told, and nothing else is lost."""
    script = "import os; f = os.memfd_create('x'); os.write(f, b'a'); os.fchmod(f, 0o600); os.mkdir('after')"
    result = harness.record(trace, [sys.executable, "-c", script], cwd=workspace)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, workspace)
