"""32-bit programs: their calls are not seen, and that is said; the end is right all the same."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.system import harness

# open("made by 32 bits", O_CREAT | O_WRONLY, 0644), write, exit(3): by int 0x80, so that no library is needed.
SOURCE = r"""
.globl _start
.text
_start:
    movl $5, %eax
    movl $name, %ebx
    movl $0x41, %ecx
    movl $0644, %edx
    int $0x80
    movl %eax, %ebx
    movl $4, %eax
    movl $text, %ecx
    movl $5, %edx
    int $0x80
    movl $1, %eax
    movl $3, %ebx
    int $0x80
.data
name: .asciz "made by 32 bits"
text: .ascii "hello"
"""


def test_what_a_32_bit_program_does_is_a_gap_and_healed(tmp_path: Path, workspace: Path, trace: Path) -> None:
    """Its start is counted as lost; what it made, which no event names, is found when everything is compared."""
    program = tmp_path / "program"
    (tmp_path / "program.s").write_text(SOURCE)
    subprocess.run(["as", "--32", "-o", tmp_path / "program.o", tmp_path / "program.s"], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-o", program, tmp_path / "program.o"], check=True)
    (workspace / "before").write_text("was there")
    result = harness.record(trace, [program], cwd=workspace)
    assert result.returncode == 3, result.stderr
    facts = harness.info(trace)
    assert facts["lost"] == 1
    assert "32-bit program" in result.stderr
    assert facts["verified"]["mismatches"] == 2  # the file and its directory
    harness.assert_same(harness.recorded(trace, "end"), harness.truth(workspace))
