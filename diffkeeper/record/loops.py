"""Loops in bytecode, in the form that every kernel takes.

Before it runs anything the verifier goes through a program's branches, depth first. Kernels of the time when loops
were first allowed (5.3) take one only where it is closed by a jump, and so it was for years: 5.10 and 6.1 refuse a
program in which an instruction simply goes on to the beginning of a loop that is being gone through, 6.12 does not
(kernel/bpf/verifier.c, `push_insn()` and its `loop_ok`). How a loop is laid out is the compiler's affair, and changes
with each version of it. So there is put a jump to where it would have gone anyway. The verifier takes it out again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from .bpf import CALL, EXIT, INSTRUCTION, LOAD_WIDE

_JUMP = 0x05
_CLASS, _JUMPS = 0x07, (0x05, 0x06)  # BPF_JMP and BPF_JMP32


def closed_by_jumps(code: bytes) -> bytes:
    """The program, with a jump before each instruction that closes a loop by going on to it."""
    places = sorted({end for _, end in falling_back(code)})
    made = bytearray()

    def moved(at: int) -> int:
        return at + bisect_right(places, at)

    wide = False
    for at, (opcode, registers, offset, immediate) in enumerate(INSTRUCTION.iter_unpack(code)):
        if at in places:
            made += INSTRUCTION.pack(_JUMP, 0, 0, 0)
        jumps = not wide and _is_jump(opcode)
        made += INSTRUCTION.pack(
            opcode, registers, moved(at + 1 + offset) - moved(at) - 1 if jumps else offset, immediate
        )
        wide = opcode == LOAD_WIDE and not wide  # its second half is no instruction
    return bytes(made)


def falling_back(code: bytes) -> list[tuple[int, int]]:
    """Where an instruction goes on, without a jump, to one by way of which it was reached: numbers of both."""
    program = list(INSTRUCTION.iter_unpack(code))
    found = []
    pending = [(0, _ways(program, 0))]
    on_the_way, seen = {0}, {0}
    while pending:
        at, ways = pending[-1]
        for target, jumps in ways:
            if target in on_the_way and not jumps:
                found.append((at, target))
            if target not in seen:
                seen.add(target)
                on_the_way.add(target)
                pending.append((target, _ways(program, target)))
                break
        else:
            on_the_way.discard(at)
            pending.pop()
    return found


def _is_jump(opcode: int) -> bool:
    return opcode & _CLASS in _JUMPS and opcode not in (CALL, EXIT)


def _ways(program: list[tuple[int, int, int, int]], at: int) -> Iterator[tuple[int, bool]]:
    """What may come after an instruction, and whether the verifier takes that for a jump, in the verifier's order."""
    opcode, _, offset, _ = program[at]
    if opcode == EXIT:
        return
    if opcode == _JUMP:
        yield at + 1 + offset, True
        return
    branches = _is_jump(opcode)
    yield at + (2 if opcode == LOAD_WIDE else 1), branches
    if branches:
        yield at + 1 + offset, True
