"""Loops in bytecode: closed by a jump, and nothing else of a program changed."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from diffkeeper.record import kernel
from diffkeeper.record.bpf import EXIT, INSTRUCTION, LOAD_WIDE
from diffkeeper.record.loops import closed_by_jumps, falling_back

ADD, JUMP, JUMP_IF, CALL = 0x07, 0x05, 0x15, 0x85


def program(*steps: tuple[int, int, int, int]) -> bytes:
    """Each step: operation, registers, offset, immediate."""
    return b"".join(INSTRUCTION.pack(*step) for step in steps)


def path(code: bytes, choices: list[bool]) -> list[tuple[int, int]]:
    """The first 100 operations and immediates that are come by, jumps aside, if branches are taken as chosen.

    Cut where these end, and where jumps lead to nothing but jumps for ever.
    """
    steps = list(INSTRUCTION.iter_unpack(code))
    at, jumps = 0, 0
    seen: list[tuple[int, int]] = []
    chosen = iter(choices)
    while at < len(steps) and len(seen) < 100 and jumps <= len(steps):
        operation, _, offset, immediate = steps[at]
        at += 2 if operation == LOAD_WIDE else 1
        if operation == JUMP:
            at += offset
            jumps += 1
            continue
        jumps = 0
        seen.append((operation, immediate))
        if operation == EXIT:
            break
        if operation == JUMP_IF:
            taken = next(chosen, None)
            if taken is None:
                break
            at += offset if taken else 0
    return seen


@st.composite
def programs(draw: st.DrawFn) -> bytes:
    """With loops of every layout, and loads of two instructions; every jump leads to the beginning of one."""
    kinds = draw(st.lists(st.sampled_from([ADD, ADD, JUMP, JUMP_IF, LOAD_WIDE, CALL]), min_size=1, max_size=30))
    starts, size = [], 0
    for kind in kinds:
        starts.append(size)
        size += 2 if kind == LOAD_WIDE else 1
    starts.append(size)
    made = bytearray()
    for number, kind in enumerate(kinds):
        here = starts[number]
        offset = draw(st.sampled_from(starts)) - here - 1 if kind in (JUMP, JUMP_IF) else 0
        made += INSTRUCTION.pack(kind, 0, offset, number)
        if kind == LOAD_WIDE:
            made += INSTRUCTION.pack(0, 0, 0, draw(st.integers(-5, 5)))
    return bytes(made + INSTRUCTION.pack(EXIT, 0, 0, 0))


def test_a_loop_that_is_closed_by_going_on_gets_a_jump() -> None:
    """1 is the beginning of a loop which its last instruction, just before it, goes on to."""
    code = program((JUMP, 0, 1, 0), (ADD, 1, 0, 1), (JUMP_IF, 1, -2, 9), (EXIT, 0, 0, 0))
    assert falling_back(code) == [(1, 2)]
    assert closed_by_jumps(code) == program(
        (JUMP, 0, 2, 0), (ADD, 1, 0, 1), (JUMP, 0, 0, 0), (JUMP_IF, 1, -3, 9), (EXIT, 0, 0, 0)
    )


def test_a_loop_that_is_closed_by_a_jump_stays_as_it_is() -> None:
    """So most compilers lay out most loops."""
    code = program((ADD, 1, 0, 1), (JUMP_IF, 1, -2, 9), (EXIT, 0, 0, 0))
    assert closed_by_jumps(code) == code


@given(programs(), st.lists(st.booleans(), max_size=40))
def test_a_program_does_the_same_as_before(code: bytes, choices: list[bool]) -> None:
    """Whatever ways it takes; and there is no loop left that old kernels refuse."""
    made = closed_by_jumps(code)
    assert falling_back(made) == []
    assert path(made, choices) == path(code, choices)


def test_all_loops_of_the_recorder_are_closed_by_jumps() -> None:
    """Linux 5.10 and 6.1 refuse every other one, and nobody could record there."""
    programs = kernel.compiled().programs
    assert len(programs) > 30
    assert {name: found for name, body in programs.items() if (found := falling_back(body))} == {}
