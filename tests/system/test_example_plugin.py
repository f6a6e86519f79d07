"""The example distribution: what docs/plugins.md says, installed for real and used by name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
EXAMPLE = TOP / "contrib" / "example-plugin"
PAGE = (TOP / "docs" / "plugins.md").read_text()
FILES = re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of a fresh environment in which pip has installed DiffKeeper, and the files that stand in the page."""
    place = tmp_path_factory.mktemp("example")
    for name, text in FILES:
        path = place / "written" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run([sys.executable, "-m", "venv", place / "venv"], check=True)
    quietly = ["--quiet", "--no-compile", "--disable-pip-version-check"]
    pip: list[str | Path] = [place / "venv/bin/python", "-m", "pip", "install", *quietly]
    subprocess.run([*pip, TOP, f"{place / 'written'}[test]"], check=True, cwd=place, stdin=subprocess.DEVNULL)
    return Path(place / "venv" / "bin")


def test_the_page_shows_the_example_as_it_is() -> None:
    """Every file of the example that is code stands in the page, and nothing else does."""
    shown = dict(FILES)
    code = [path for path in EXAMPLE.rglob("*.*") if path.suffix in (".py", ".toml")]
    there = {str(path.relative_to(EXAMPLE)): path.read_text() for path in code}
    assert shown == there


def test_its_own_tests_pass_where_it_is_installed(installed: Path) -> None:
    """With the kits that come with DiffKeeper, against the installed code."""
    run = subprocess.run(
        [installed / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLE / "tests"],
        capture_output=True, text=True, cwd=installed, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 passed" in run.stdout


def test_the_page_s_commands_use_the_three_by_name(installed: Path, tmp_path: Path) -> None:
    """Recorded through the filter, patched by the differ, exported by the exporter; `sha256sum` agrees."""
    commands = re.search(r"^## Use\n\n```sh\npip install [^\n]*\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert commands
    environment = {**os.environ, "PATH": f"{installed}:{os.environ['PATH']}"}

    def shell(script: str) -> str:
        run = subprocess.run(
            ["sh", "-ec", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    said = shell(commands[1])
    assert "diffkeeper-example 1.0" in said
    assert "most=INT  must be given" in said
    assert re.search(r"^filter +depth:most=1: left out \d+ changes \(a/b/y\)", said, re.MULTILINE), said
    digest = subprocess.run(["sha256sum", "a/x"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert digest in said
    assert not re.search(r"^[0-9a-f]{64}  a/b/y$", said, re.MULTILINE)
    shell("diffkeeper export trace --time end --out all.sha256 && sha256sum --check all.sha256")
    shell(
        "seq 5000 > f; diffkeeper record -o two --differ affix -- sh -c 'seq 5000 > new; echo x >> new; mv new f'"
    )
    facts = json.loads(shell("diffkeeper info two --json"))
    assert facts["differs"] == {"affix/1": "diffkeeper-example"}
    shell("diffkeeper check two")
    without = subprocess.run(
        [sys.executable, "-m", "diffkeeper", "check", "two"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert without.returncode != 0
    assert "diffkeeper-example" in without.stdout + without.stderr
