"""The documentation keeps up with the code: every command, option, exit code and type is there, and true."""

from __future__ import annotations

import enum
import inspect
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from diffkeeper import errors, model
from diffkeeper.cli import COMMANDS, cli
from diffkeeper.model import Event, Fidelity, Op

TOP = Path(__file__).resolve().parents[2]
PAGES = [TOP / "README.md", TOP / "CHANGELOG.md", *sorted((TOP / "docs").glob("*.md"))]
COMMANDS_PAGE = (TOP / "docs" / "commands.md").read_text()
MODEL_PAGE = (TOP / "docs" / "how-it-works.md").read_text()
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def section(name: str) -> str:
    """What commands.md says under a heading."""
    found = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", COMMANDS_PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/commands.md has no section {name!r}"
    return found[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_in_the_reference(name: str) -> None:
    """Each command has a section with its synopsis, and each of its options a row in it."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    text = section(name)
    assert f"diffkeeper {name}" in text
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            for spelling in (*parameter.opts, *parameter.secondary_opts):
                assert re.search(rf"^\|[^|]*`{re.escape(spelling)}\b", text, re.MULTILINE), f"{name} {spelling}"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reference_has_no_option_that_is_not_there(name: str) -> None:
    """An option that was removed or renamed does not live on in the reference."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    known = {word for parameter in command.params for word in (*parameter.opts, *parameter.secondary_opts)}
    rows = re.findall(r"^\| (`-[^|]*)\|", section(name), re.MULTILINE)
    written = {word for row in rows for word in re.findall(r"`(--?[a-z][a-z-]*)", row)}
    assert written <= known


def test_the_reference_lists_the_commands_in_the_order_of_help() -> None:
    """The synopsis at the top is complete."""
    synopsis = FENCE.findall(COMMANDS_PAGE)[0][1]
    assert sorted(re.findall(r"^diffkeeper (\w+)", synopsis, re.MULTILINE)) == sorted(COMMANDS)


def test_every_exit_code_is_in_the_reference() -> None:
    """Also of errors that were added later."""
    codes = {
        error.exit_code for error in vars(errors).values()
        if inspect.isclass(error) and issubclass(error, errors.DiffKeeperError)
    }  # fmt: skip
    rows = re.findall(r"^\| ([\d, ]+) \|", section("Exit codes"), re.MULTILINE)
    written = {int(code) for row in rows for code in row.split(",")}
    assert codes <= written


def test_every_operation_and_fidelity_is_in_the_reference() -> None:
    """The words that the timeline prints are explained."""
    for label in [*(op.label for op in Op), *(level.label for level in Fidelity)]:
        assert f"`{label}`" in COMMANDS_PAGE
        assert f"`{label}`" in MODEL_PAGE


def printed_examples() -> list[tuple[str, str]]:
    """Name of a type and the text that shows one, from the section on the data model."""
    page = MODEL_PAGE[MODEL_PAGE.index("## The data model") :]
    sections = re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", page, re.MULTILINE | re.DOTALL)
    return [(name, code) for name, body in sections for language, code in FENCE.findall(body) if language == "python"]


def public_types() -> dict[str, type]:
    return {
        name: kind for name, kind in vars(model).items()
        if inspect.isclass(kind) and kind.__module__ == model.__name__
    }  # fmt: skip


def test_every_type_of_the_model_is_shown_once() -> None:
    """The page says how many there are; there are no others."""
    names = [name for name, _ in printed_examples()]
    assert sorted(names) == sorted(public_types())
    assert len(names) == 9
    assert "Nine frozen types" in MODEL_PAGE


@pytest.mark.parametrize(("name", "code"), printed_examples())
def test_a_printed_example_is_a_value_of_its_type(name: str, code: str) -> None:
    """It evaluates, to the type it stands under, and names every field the type has."""
    kind = public_types()[name]
    value = eval(code, dict(public_types()))
    assert isinstance(value, kind)
    if issubclass(kind, msgspec.Struct):
        assert re.findall(r"\b(\w+)=", code) == list(kind.__struct_fields__)
        assert kind.__hash__ is not None, "frozen"
    else:
        assert isinstance(value, enum.IntEnum)


def test_the_printed_json_is_of_the_printed_event() -> None:
    """The line beside the example of an event is what `timeline --json` makes of it."""
    from diffkeeper.cli.timeline import Columns
    from diffkeeper.eventlines import JsonLines

    examples = {name: eval(code, dict(public_types())) for name, code in printed_examples()}
    event, stand_in = examples["Event"], _OneEvent(examples)
    blocks = FENCE.findall(MODEL_PAGE[MODEL_PAGE.index("### Event") : MODEL_PAGE.index("### Op")])
    text, as_json = blocks[1][1], blocks[2][1]
    trace: Any = stand_in
    assert json.loads(as_json) == json.loads(JsonLines(trace).line(event))
    assert text == Columns(trace).line(event)


class _OneEvent:
    """As much of a Trace as a line needs, made of the page's own examples."""

    def __init__(self, examples: dict[str, Any]) -> None:
        self.examples = examples
        self.reader = self

    def stamp(self, event: Event) -> str:
        assert event.seq == self.examples["Moment"].seq
        return str(self.examples["Moment"].name)

    def display(self, path: bytes) -> bytes:
        return path.removeprefix(self.examples["Session"].roots[0] + b"/")

    def process_at(self, pid: int, seq: int) -> model.Process:
        assert pid == self.examples["Process"].pid
        process: model.Process = self.examples["Process"]
        return process


def test_the_readme_opens_with_the_two_commands() -> None:
    """Before anything else: how to see it, how to test it."""
    commands = FENCE.findall((TOP / "README.md").read_text())[0][1]
    assert [line.split("#")[0].strip() for line in commands.splitlines()] == ["make demo", "make test"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that is there, and its anchor a heading of it."""
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings], target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shell_examples_are_command_lines_that_parse(page: Path) -> None:
    """Every `diffkeeper ...` line of an example names a command, and options that it has."""
    for language, code in FENCE.findall(page.read_text()):
        if language not in ("sh", "console"):
            continue
        for line in re.findall(r"(?:^|\$ |\()diffkeeper ([^#|\n)]*)", code, re.MULTILINE):
            words = line.split(" -- ")[0].split()
            command = cli.get_command(click.Context(cli), words[0])
            assert command is not None, line
            known = {word for parameter in command.params for word in parameter.opts}
            assert {word.split("=")[0] for word in words[1:] if word.startswith("-")} <= known, line


def test_make_help_lists_every_target() -> None:
    """The Makefile explains itself."""
    run = subprocess.run(["make", "-s", "help"], cwd=TOP, capture_output=True, text=True, check=True)
    for target in ("setup", "demo", "test", "lint", "bench"):
        assert re.search(rf"^  make {target} +\w", run.stdout, re.MULTILINE)
