"""PostgreSQL: made, filled and stopped under the recorder; then a server started from a moment in the middle.

What a moment must be good for: it is what a power cut would have left. So a server that is started from it
recovers, finds its tables and indexes sound (`pg_amcheck`), and has every transaction that was known to be
committed before the moment, and none that had not begun by then.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.system import harness

from .program import Place, Program

USER = "postgres"  # the server refuses to run as root
SCRIPT = r"""
PATH=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1):$PATH
initdb --pgdata=data --auth=trust --username=postgres --no-locale --encoding=UTF8 > /dev/null
cat >> data/postgresql.conf <<END
listen_addresses = ''
unix_socket_directories = '$ASIDE'
shared_buffers = 16MB
checkpoint_timeout = 30s
max_wal_size = 64MB
min_wal_size = 32MB
wal_recycle = on
END
trap 'pg_ctl --pgdata=data --mode=immediate stop > /dev/null 2>&1 || :' EXIT
pg_ctl --pgdata=data --log=log --wait start > /dev/null
export PGHOST=$ASIDE PGUSER=postgres
pgbench --initialize --quiet --scale=$SCALE postgres 2> /dev/null
psql -qc 'create extension amcheck' postgres
# One run ends before the moment, another goes on through it.
committed() { psql -Atc 'select count(*) from pgbench_history' postgres; }
pgbench --no-vacuum --client=4 --transactions=$TRANSACTIONS postgres > /dev/null 2>&1
psql -qc checkpoint postgres
pgbench --no-vacuum --client=4 --transactions=$TRANSACTIONS postgres > /dev/null 2>&1 &
bench=$!
while before=$(committed) && [ "$before" -lt $((TRANSACTIONS * 5)) ] && kill -0 $bench; do :; done
echo "$before" > "$ASIDE/before"
(: < /.diffkeeper/mark/busy) 2>/dev/null || :
committed > "$ASIDE/after"
wait $bench
pg_ctl --pgdata=data --wait --mode=fast stop > /dev/null
moment stopped
"""


def binaries() -> Path:
    """Where Debian keeps the server's programs, of the newest version there is."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    assert found, "no PostgreSQL below /usr/lib/postgresql: contrib/setup.sh --with-tests installs it"
    return found[-1].parent


def _as_postgres(*words: str | Path, **options: object) -> str:
    command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", *map(str, words)]
    result = subprocess.run(command, check=False, capture_output=True, text=True, cwd="/", timeout=120)
    assert result.returncode == 0, f"{words[0]}: {result.stderr[-800:]}{result.stdout[-800:]}"
    return result.stdout


def prepare(place: Place) -> None:
    for directory in (place.work, place.aside):
        shutil.chown(directory, USER, USER)


@contextmanager
def server(data: Path, sockets: Path) -> Iterator[None]:
    """A server on this directory; it is stopped at the end."""
    control = binaries() / "pg_ctl"
    log = sockets / "recovered.log"
    options = f"-c listen_addresses='' -c unix_socket_directories='{sockets}'"
    try:
        _as_postgres(control, f"--pgdata={data}", f"--log={log}", "--wait", "-o", options, "start")
        yield
    except AssertionError as error:
        raise AssertionError(f"{error}\n{log.read_text()[-2000:] if log.exists() else 'no log'}") from error
    finally:
        subprocess.run([
            "setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", control, f"--pgdata={data}", "--wait",
            "--mode=immediate", "stop",
        ], check=False, capture_output=True, cwd="/")  # fmt: skip


def check(place: Place) -> None:
    """Export the moment in the middle, start a server from it, and ask what it knows."""
    exported = place.top / "exported"
    result = harness.run("export", place.trace, "--time", "busy", "--out", exported)
    assert result.returncode == 0, result.stderr
    data = exported / "data"
    assert os.stat(data).st_uid == os.stat(place.work).st_uid, "the export lost the owner"
    assert os.stat(data).st_mode & 0o777 == 0o700, "the export lost the mode"
    recorded = int((data / "postmaster.pid").read_text().split()[0])
    harness.wait_for(lambda: not Path(f"/proc/{recorded}").exists())  # a zombie is a server to the next one
    sockets = place.top / "sockets"
    sockets.mkdir()
    shutil.chown(sockets, USER, USER)
    before, after = (int((place.aside / name).read_text()) for name in ("before", "after"))
    with server(data, sockets):
        to_server = f"--host={sockets}", f"--username={USER}"
        _as_postgres(binaries() / "pg_amcheck", *to_server, "--all", "--heapallindexed", "--parent-check")
        ask = binaries() / "psql", *to_server, "-At", "--dbname=postgres", "-c"
        count = int(_as_postgres(*ask, "select count(*) from pgbench_history"))
        assert before <= count <= after, f"{count} transactions, but {before} to {after} were committed"
        # Each transaction adds the same amount in all four tables.
        sums = _as_postgres(
            *ask,
            "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history) and"
            " (select sum(tbalance) from pgbench_tellers) = (select sum(delta) from pgbench_history) and"
            " (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history)",
        ).strip()
        assert sums == "t", "the balances do not add up"
        assert "automatic recovery in progress" in (sockets / "recovered.log").read_text()


PROGRAMS = [
    Program(
        "PostgreSQL",
        SCRIPT,
        {"SCALE": 1, "TRANSACTIONS": 100},
        {"SCALE": 5, "TRANSACTIONS": 2000},
        user=USER,
        events=2000,
        prepare=prepare,
        check=check,
    )
]
