"""`diffkeeper bisect`: which event made a command fail, of real recordings, in mounts and in copies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import harness

BREAKING = """
import json, os
os.mkdir('sub')
for number in range(60):
    with open('status.new', 'w') as file:
        text = json.dumps({'number': number, 'more': 'x' * 100})
        file.write(text if number < 37 else text[:50])
    os.rename('status.new', 'status.json')
    with open('log', 'a') as log:
        log.write(f'{number}\\n')
"""
TEST = ["python3", "-m", "json.tool", "status.json"]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording in which a file is right 37 times and then never again."""
    top = tmp_path_factory.mktemp("broken")
    (top / "work").mkdir()
    (top / "work/status.json").write_text("{}")
    harness.record(top / "trace", ["python3", "-c", BREAKING], cwd=top / "work")
    return top / "trace"


@pytest.fixture(autouse=True)
def nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever happens: nothing is mounted afterwards, and no directory left."""
    private = tmp_path / "private"
    private.mkdir()
    monkeypatch.setenv("TMPDIR", str(private))
    yield
    assert not list(private.iterdir())
    assert str(private) not in Path("/proc/self/mountinfo").read_text()


def bisect(trace: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return harness.run("bisect", "--state-dir", trace, *words)


@pytest.mark.parametrize("way", [(), ("--copy",)], ids=["mounted", "copied"])
def test_the_event_that_broke_it(broken: Path, way: tuple[str, ...]) -> None:
    """Is printed as the timeline has it, and the two moments with what to do next; in a dozen runs."""
    result = bisect(broken, *way, "--", *TEST)
    assert result.returncode == 0, result.stderr
    told = json.loads(bisect(broken, *way, "-q", "--json", "--", *TEST).stdout)
    assert (told["unknown"], len(told["events"])) == (0, 1)
    event = told["events"][0]
    assert (event["op"], event["to"], told["bad"]) == ("rename", "status.json", f"e{event['event']}")
    assert result.stdout.split()[1:5] == ["rename", "status.new", "→", "status.json"]
    assert f"CMD succeeds at @{told['good']} and fails at @{told['bad']}; next: diffkeeper diff" in result.stderr
    tried = [line for line in result.stderr.splitlines() if line.startswith("@")]
    assert 5 < len(tried) < 12
    shown = harness.run("diff", broken, told["good"], told["bad"]).stdout
    assert "status.json" in shown


def test_what_cannot_be_told(broken: Path) -> None:
    """Moments at which CMD ends with 125 are passed over, and it is said how many it may be."""
    script = "n=$(cat log | wc -l); [ $n -lt 33 ] || [ $n -gt 40 ] || exit 125; python3 -m json.tool status.json"
    told = json.loads(bisect(broken, "-q", "--json", "--", "sh", "-c", script).stdout)
    assert told["unknown"] > 5
    exact = json.loads(bisect(broken, "-q", "--json", "--", *TEST).stdout)["events"][0]
    assert exact in told["events"]
    assert f"for {told['unknown']} moments between it cannot be told" in bisect(broken, "--", "sh", "-c", script).stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--", "true"], 89, "CMD succeeds at --bad end: give a moment at which it fails"),
        (["--", "false"], 89, "CMD fails at --good start: give a moment at which it succeeds"),
        (["--", "sh", "-c", "exit 125"], 89, "CMD cannot tell at --good start"),
        (["--", "no-such-command"], 127, "no-such-command: No such file"),
        (["--", "/dev/null"], 126, "/dev/null: Permission denied"),
        (["--good", "end", "--bad", "start", "--", "true"], 2, "--good end is not earlier than --bad start"),
        (["--good", "@nothing", "--", "true"], 89, "nothing"),
        (["--per", "never", "--", "true"], 2, "--per"),
        (["true"], 89, "CMD succeeds"),
        ([], 2, "CMD"),
    ],
)
def test_what_is_refused(broken: Path, words: list[str], code: int, said: str) -> None:
    """With one line that says what to do."""
    result = bisect(broken, *words)
    last = result.stderr.strip().splitlines()[-1]
    assert (result.returncode, result.stdout) == (code, ""), result.stderr
    assert last.startswith("diffkeeper: ") and said in last


def test_where_the_command_was_started(tmp_path: Path) -> None:
    """CMD runs there; where that does not exist at a moment, it cannot be told."""
    inner = tmp_path / "work/inner"
    inner.mkdir(parents=True)
    (inner / "flag").touch()
    script = "mv ../inner ../away; mv ../away ../inner; rm flag"
    harness.record(tmp_path / "trace", ["sh", "-c", script], cwd=inner, options=["--root", ".."])
    told = json.loads(bisect(tmp_path / "trace", "-q", "--json", "--", "test", "-e", "flag").stdout)
    assert [event["op"] for event in told["events"]] == ["unlink"]


def test_a_copy_can_be_written_to(broken: Path) -> None:
    """By each run anew: nothing of one is there in the next."""
    script = "test ! -e made && touch made && python3 -m json.tool status.json"
    assert bisect(broken, "--copy", "-q", "--", "sh", "-c", script).returncode == 0
    read_only = bisect(broken, "--", "touch", "made")
    assert "Read-only file system" in read_only.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("way", [[], ["--copy"]], ids=["mounted", "copied"])
def test_when_it_is_stopped(broken: Path, tmp_path: Path, number: signal.Signals, way: list[str]) -> None:
    """Whatever it was doing: it ends as a program that is killed so, and nothing stays."""
    begun = tmp_path / "begun"
    waiting = f"import time; open({str(begun)!r}, 'w').close(); time.sleep(60)"  # sh may miss a SIGINT as it forks
    words = [*harness.DIFFKEEPER, "bisect", "--state-dir", str(broken), *way, "--", sys.executable, "-c", waiting]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True)
    harness.wait_for(begun.exists)
    os.killpg(process.pid, number)
    assert process.wait(30) == 128 + number


def test_what_a_command_leaves_behind(broken: Path, tmp_path: Path) -> None:
    """Is let be: the answer stands, the mount is gone, and its server goes with whoever is still in it."""
    pids = tmp_path / "pids"
    script = f"sleep 60 >/dev/null 2>&1 & echo $! >> {pids}; python3 -m json.tool status.json"
    result = bisect(broken, "-q", "--", "sh", "-c", script)
    assert (result.returncode, result.stdout.split()[1]) == (0, "rename"), result.stderr
    left = [int(pid) for pid in pids.read_text().split()]
    server = servers(broken)
    assert len(server) == 1
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    harness.wait_for(lambda: not servers(broken))


def servers(trace: Path) -> list[str]:
    """Processes of ours that have to do with a trace."""
    words = ["pgrep", "-f", f"diffkeeper bisect --state-dir {trace}"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()
