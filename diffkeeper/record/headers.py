"""The few kernel headers that bcc's compiler insists on, made up on the spot.

bcc looks for the running kernel's header package, which most machines lack. Our programs take
their offsets from BTF and need no kernel header, only what bcc's own includes mention: integer
types, the BPF instruction names, `struct pt_regs`. `tree()` writes them where BCC_KERNEL_SOURCE can
point to.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

_INTEGERS = {8: "char", 16: "short", 32: "int", 64: "long long"}

_REGISTERS_X86_64 = (
    "r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs flags sp ss"  # arch/x86/include/asm/ptrace.h
)

# include/uapi/linux/bpf_common.h: the classic BPF instruction fields, which are ABI.
_INSTRUCTIONS = {
    "BPF_LD": 0x00, "BPF_LDX": 0x01, "BPF_ST": 0x02, "BPF_STX": 0x03, "BPF_ALU": 0x04, "BPF_JMP": 0x05,
    "BPF_RET": 0x06, "BPF_MISC": 0x07, "BPF_W": 0x00, "BPF_H": 0x08, "BPF_B": 0x10, "BPF_IMM": 0x00,
    "BPF_ABS": 0x20, "BPF_IND": 0x40, "BPF_MEM": 0x60, "BPF_LEN": 0x80, "BPF_MSH": 0xA0, "BPF_ADD": 0x00,
    "BPF_SUB": 0x10, "BPF_MUL": 0x20, "BPF_DIV": 0x30, "BPF_OR": 0x40, "BPF_AND": 0x50, "BPF_LSH": 0x60,
    "BPF_RSH": 0x70, "BPF_NEG": 0x80, "BPF_MOD": 0x90, "BPF_XOR": 0xA0, "BPF_JA": 0x00, "BPF_JEQ": 0x10,
    "BPF_JGT": 0x20, "BPF_JGE": 0x30, "BPF_JSET": 0x40, "BPF_K": 0x00, "BPF_X": 0x08, "BPF_MAXINSNS": 4096,
}  # fmt: skip

_EMPTY = (
    "linux/log2.h",
    "linux/types.h",
    "asm/page.h",
    "uapi/linux/if_packet.h",
    "uapi/linux/bpf.h",
    "uapi/linux/types.h",
    "uapi/linux/bpf_common.h",
)


def _types() -> Iterator[str]:
    for bits, name in _INTEGERS.items():
        for prefix in ("__", ""):
            yield f"typedef unsigned {name} {prefix}u{bits};"
            yield f"typedef signed {name} {prefix}s{bits};"
        if bits > 8:
            yield f"typedef __u{bits} __be{bits}; typedef __u{bits} __le{bits};"
    yield "typedef __u32 __wsum; typedef __u16 __sum16; typedef __u64 __aligned_u64 __attribute__((aligned(8)));"
    yield "typedef _Bool bool; typedef unsigned long size_t; typedef long ssize_t; typedef unsigned long uintptr_t;"
    yield "typedef long long loff_t; typedef int pid_t;"
    yield "#define bool _Bool"
    yield "#define NULL ((void *)0)"
    yield f"#define PAGE_SIZE {mmap.PAGESIZE}"
    yield "#define offsetof(type, member) __builtin_offsetof(type, member)"
    yield "#define CONFIG_BPF_SYSCALL 1"
    yield "#define CONFIG_ARCH_HAS_SYSCALL_WRAPPER 1"
    yield f"struct pt_regs {{ unsigned long {', '.join(_REGISTERS_X86_64.split())}; }};"


def _guarded(name: str, lines: Iterator[str]) -> str:
    return "\n".join((f"#ifndef {name}", f"#define {name}", *lines, "#endif", ""))


@contextmanager
def tree() -> Iterator[Path]:
    """A temporary directory that BCC_KERNEL_SOURCE may name; gone when the block ends."""
    files = {
        "linux/kconfig.h": _guarded("DK_KCONFIG_H", _types()),
        # Any version will do: bcc only asks whether it is new enough for what we use.
        "linux/version.h": "#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))\n"
        "#define LINUX_VERSION_CODE KERNEL_VERSION(6, 1, 0)\n",
        "linux/bpf_common.h": _guarded(
            "DK_BPF_COMMON_H",
            (
                *(f"#define {name} {value:#x}" for name, value in _INSTRUCTIONS.items()),
                "#define BPF_CLASS(code) ((code) & 0x07)",
                "#define BPF_SIZE(code) ((code) & 0x18)",
                "#define BPF_MODE(code) ((code) & 0xe0)",
                "#define BPF_OP(code) ((code) & 0xf0)",
                "#define BPF_SRC(code) ((code) & 0x08)",
            ).__iter__(),
        ),
        **dict.fromkeys(_EMPTY, "#pragma once\n"),
    }
    with TemporaryDirectory(prefix="diffkeeper-headers-") as top:
        for name, text in files.items():
            path = Path(top, "include", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        yield Path(top)
