"""Programs no one here wrote, at their usual work: the last moment is the directory, those in the middle as well.

What each does is in `tests/programs`; `make programs` runs the same for longer.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import diffkeeper
from tests.programs import everyday, fio, postgres, stress
from tests.programs.__main__ import HERE, place_on
from tests.programs.program import Program, run
from tests.system import harness

MARK = f"{sys.executable} -c 'import diffkeeper; diffkeeper.mark(\"middle\")'"
PACKAGE = "click==8.1.8"
ENGINES = ("fio sync", "fio psync write threads", "fio mmap", "fio libaio", "fio io_uring", "fio splice")
QUICK = [
    *everyday.PROGRAMS,
    *postgres.PROGRAMS,
    *(program for program in fio.PROGRAMS if program.name.startswith(ENGINES)),
    *stress.QUICK,
]


def cases() -> list[tuple[Program, str]]:
    """Each program, and where it runs: in the temporary directory, or on the filesystems it needs."""
    return [(program, kind) for program in QUICK for kind in sorted(program.only_on) or [HERE]]


@pytest.mark.parametrize(("program", "kind"), cases(), ids=[f"{program.name}-{kind}" for program, kind in cases()])
def test_a_program(program: Program, kind: str) -> None:
    """Its last moment and those in the middle equal the directory, nothing is lost, nothing had to be put right."""
    with place_on(kind) as place:
        outcome = run(program, "quick", kind, place)
    assert not outcome.faults, "\n".join(outcome.faults)
    assert all(entry["reason"] for entry in outcome.inexact)


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution of a third-party package, pinned, from the package index."""
    top = tmp_path_factory.mktemp("sdist")
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", top, PACKAGE],
        check=True,
    )
    with tarfile.open(next(top.glob("*.tar.gz"))) as archive:
        archive.extractall(top, filter="data")
    return next(path for path in top.iterdir() if path.is_dir())


def keep_aside(directory: Path) -> str:
    """Shell words that copy the directory aside, exactly, and mark the moment."""
    return f"cp -a . {directory} && {MARK}"


def test_the_test_suite_of_a_package(sdist: Path, workspace: Path, trace: Path) -> None:
    """A real pytest run, with its caches and temporary files under the root."""
    aside = trace.parent / "aside"
    subprocess.run(["cp", "-a", f"{sdist}/.", workspace], check=True)
    (workspace / "tmp").mkdir()
    test = f"PYTHONPATH=src {sys.executable} -m pytest -q --basetemp=base"
    script = f"{test} tests/test_utils.py tests/test_options.py; {keep_aside(aside)}; {test} tests"
    env = {**os.environ, "TMPDIR": str(workspace / "tmp"), "PYTHONPATH": repository()}
    result = harness.record(trace, ["sh", "-c", script], cwd=workspace, env=env)
    assert " passed" in result.stdout, result.stdout + result.stderr
    facts = harness.assert_faithful(trace, workspace)
    assert facts["events"] > 500
    harness.assert_same(harness.recorded(trace, "middle"), harness.truth(aside))


def test_pip_installs_into_a_directory(workspace: Path, trace: Path) -> None:
    """Files and whole directories are moved in from outside the root."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", "lib", "click==8.1.8"]
    result = harness.record(trace, command, cwd=workspace)
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, workspace)
    assert harness.info(trace)["events"] > 50


def test_a_sqlite_workload(workspace: Path, trace: Path) -> None:
    """Transactions with a rollback journal: a database exported from the middle holds what was committed by then."""
    aside = trace.parent / "aside"
    script = f"""
set -e
sqlite3 db 'create table t(id integer primary key, text)'
for i in $(seq 30); do sqlite3 db "insert into t(text) select hex(randomblob(200)) from generate_series(1,100)"; done
{keep_aside(aside)}
sqlite3 db 'delete from t where id % 3 = 0; vacuum; create index i on t(text)'
"""
    result = harness.record(trace, ["sh", "-c", script], cwd=workspace, env={**os.environ, "PYTHONPATH": repository()})
    assert result.returncode == 0, result.stderr
    harness.assert_faithful(trace, workspace)
    harness.assert_same(harness.recorded(trace, "middle"), harness.truth(aside))
    with diffkeeper.open(trace) as opened:
        (trace.parent / "middle.db").write_bytes((opened.at("middle") / "db").read_bytes())
    count = subprocess.run(
        ["sqlite3", trace.parent / "middle.db", "pragma integrity_check; select count(*) from t"],
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    assert count == ["ok", "3000"]


def repository() -> str:
    """Where `import diffkeeper` finds this package."""
    return str(Path(diffkeeper.__file__).resolve().parent.parent)
