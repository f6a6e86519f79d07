"""Programs made by other compilers than bcc's, and whether the kernel takes them: by each clang-N and llvm-N there is.

    apt-get install clang-16 llvm-16 clang-19 llvm-19; contrib/run-tests.sh tests/kernels/further_compilers.py

bcc comes with the LLVM of its distribution, and what is made of the same C differs: how an index is bounded and a loop
is left is up to the compiler, and the verifier may not see any more what the C says. So what bcc's front end makes of
our C is compiled in bcc's steps (its bpf_module.cc) by every other LLVM that is here, and loaded into this kernel.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from diffkeeper.record import bpf, compiler, headers, kernel, limits
from diffkeeper.record.loops import closed_by_jumps

VERSIONS = [number for number in range(11, 99) if shutil.which(f"clang-{number}") and shutil.which(f"llc-{number}")]
HEADERS = {"bpf.h": b"#define _UAPI__LINUX_BPF_H__", "helpers.h": b"#define __BPF_HELPERS_H"}
TEXTS = re.compile(rb"[\t\n\r\x20-\x7e]{600,}")
BEGIN, END = "#if defined(BPF_LICENSE)", "#include <bcc/footer.h>"  # of what bcc says that it compiles
PROGRAMS = re.compile(r'__attribute__\(\(section\("\.bpf\.fn\.(\w+)"\)\)\)')
HOST = re.compile(r'^target datalayout = ".*"\ntarget triple = ".*"$', re.MULTILINE)
RINGS = 2  # of our maps, made without bcc


class Rewritten(NamedTuple):
    """Our C as bcc's front end has made it plain, and the maps that are in it."""

    text: str
    maps: dict[int, bpf.MapSpec]  # by the numbers that stand for them


@pytest.fixture(scope="module")
def rewritten() -> Rewritten:
    bcc: Any = compiler.find_bcc()
    with pytest.MonkeyPatch.context() as patched, tempfile.TemporaryFile() as said:
        patched.setattr(bcc, "BPF", functools.partial(bcc.BPF, debug=bcc.DEBUG_PREPROCESSOR))
        patched.setenv(compiler.DEBUG_VARIABLE, "1")
        saved = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            specs = kernel.compiled().maps
        finally:
            os.dup2(saved, 2)
            os.close(saved)
        said.seek(0)
        text = said.read().decode()
    rings, tables = specs[:RINGS], sorted(specs[RINGS:], key=lambda spec: spec.placeholder)
    numbers = [*(ring.placeholder for ring in rings), *range(-len(tables), 0)]  # bcc makes tables in the order of these
    maps = dict(zip(numbers, (*rings, *tables), strict=True))
    return Rewritten(text[text.index(BEGIN) : text.rindex(END)], maps)


def bcc_headers(top: Path) -> Iterator[str]:
    """What bcc includes before our text, which lies in its library; as arguments for the compiler."""
    mapped = Path("/proc/self/maps").read_text().split()
    texts = TEXTS.findall(next(Path(name) for name in mapped if "libbcc.so" in name).read_bytes())
    for name, guard in HEADERS.items():
        (top / name).write_bytes(next(text for text in texts if guard in text))
        yield from ("-include", str(top / name))


def compiled(version: int, text: str, top: Path) -> dict[str, bytes]:
    """The programs by name."""
    source, ir, best, made = (top / name for name in ("main.c", "main.ll", "best.ll", "main.o"))
    source.write_text(text)
    with headers.tree() as tree:
        run(
            f"clang-{version} -O2 -S -emit-llvm -w -Wno-int-conversion -fno-jump-tables -nostdinc -D__KERNEL__",
            *compiler.FLAGS,
            "-D__BPF_TRACING__ -DKBUILD_MODNAME=0",
            "-Dinline=inline\\ __attribute__((always_inline))",  # bcc says so of every function, once it is IR
            *(f"-I{tree}/{name}" for name in ("include", "include/uapi", "arch/x86/include")),
            *("-include", f"{tree}/include/linux/kconfig.h", *bcc_headers(top), "-o", str(ir), str(source)),
        )
    ir.write_text(HOST.sub('target triple = "bpf-pc-linux"', ir.read_text()))
    run(f"opt-{version} -O3 -S -o {best} {ir}")
    run(f"llc-{version} -march=bpf -filetype=obj -o {made} {best}")
    programs = {}
    for name in PROGRAMS.findall(text):
        run(f"llvm-objcopy-{version} -O binary --only-section=.bpf.fn.{name} {made} {top / name}")
        programs[name] = closed_by_jumps((top / name).read_bytes())
    return programs


def run(*words: str) -> None:
    subprocess.run(shlex.split(" ".join(words)), check=True)


@pytest.mark.filterwarnings("ignore:not a bytes object")  # of bcc, about its own arguments
@pytest.mark.parametrize("version", VERSIONS or [pytest.param(0, id="none is installed")])
def test_the_kernel_takes_what_another_compiler_makes(rewritten: Rewritten, version: int, tmp_path: Path) -> None:
    """Every program loads, by whichever version of LLVM it was made."""
    programs = compiled(version, rewritten.text, tmp_path)
    refused = []
    given = limits.lift()
    maps = {number: bpf.Map(spec) for number, spec in rewritten.maps.items()}
    for name, code in programs.items():
        try:
            os.close(bpf.load_program(name, code, maps))
        except OSError as error:
            refused.append(str(error))
    for each in maps.values():
        each.close()
    limits.restore(given)
    assert len(programs) > len(kernel.HELPERS)
    assert not refused
