"""bpf(2): making maps, loading programs, attaching raw tracepoints. Knows nothing of what they do.

Programs come as `Bytecode` (from `diffkeeper.record.compiler`, or from its cache), so a recording
does not wait for a C compiler. Numbers and layouts are the kernel's ABI (include/uapi/linux/bpf.h).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator

from msgspec import Struct, structs

_SYSCALL = 321  # bpf(2) on x86_64
_MAP_CREATE, _LOOKUP, _UPDATE, _DELETE, _NEXT_KEY, _PROG_LOAD, _TRACEPOINT_OPEN = 0, 1, 2, 3, 4, 5, 17
_RAW_TRACEPOINT = 17  # enum bpf_prog_type
MAP_RINGBUF = 27  # enum bpf_map_type
_HASHES, _FEW = (1, 9), 1024  # that, and the same where the least recently used entry goes when it is full
LOAD_WIDE, CALL, EXIT = 0x18, 0x85, 0x95  # instructions: the first one takes the place of two
_MOVE, _PSEUDO_MAP_FD, _PSEUDO_FUNCTION = 0xB7, 1, 2
FUNCTION_BASE = 1 << 24
"""Before it is loaded, the call of a helper number from here on is one of a kernel function, by its BTF number."""
INSTRUCTION = struct.Struct("<BBhi")
"""Operation, registers, offset and immediate value."""
_LOG_BYTES = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)


class MapSpec(Struct, frozen=True):
    """What BPF_MAP_CREATE needs to know. `placeholder`: the descriptor number that the bytecode has for it."""

    name: str
    kind: int
    key_size: int
    value_size: int
    entries: int
    flags: int
    placeholder: int

    def smaller(self, part: int) -> MapSpec:
        """With one of `part` of its entries, if these are found by keys, and are many."""
        if self.kind not in _HASHES or self.entries <= _FEW:
            return self
        return structs.replace(self, entries=max(_FEW, self.entries // part))


class Bytecode(Struct, frozen=True):
    """Programs before they are loaded, by name, and the maps that they refer to."""

    maps: tuple[MapSpec, ...]
    programs: dict[str, bytes]


def _call(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    result: int = _libc.syscall(_SYSCALL, command, buffer, len(buffer))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


class Map:
    """One BPF map; keys and values are bytes of the sizes it was made with. OSError from the kernel."""

    def __init__(self, spec: MapSpec) -> None:
        self.name = spec.name
        self._key_size, self._value_size = spec.key_size, spec.value_size
        name = spec.name.encode()[:15]
        self.fd = _call(
            _MAP_CREATE,
            struct.pack("<IIIIIII16s", spec.kind, spec.key_size, spec.value_size, spec.entries, spec.flags, 0, 0, name),
        )

    def _element(self, command: int, key: bytes | None, value: bytes = b"") -> bytes | None:
        key_buffer = ctypes.create_string_buffer(key or b"", self._key_size)
        value_buffer = ctypes.create_string_buffer(value, max(self._key_size, self._value_size))
        key_at = 0 if key is None else _address(key_buffer)
        value_at = 0 if command == _DELETE else _address(value_buffer)
        try:
            _call(command, struct.pack("<IIQQQ", self.fd, 0, key_at, value_at, 0))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return value_buffer.raw

    def get(self, key: bytes) -> bytes | None:
        value = self._element(_LOOKUP, key)
        return None if value is None else value[: self._value_size]

    def put(self, key: bytes, value: bytes) -> None:
        self._element(_UPDATE, key, value)

    def delete(self, key: bytes) -> None:
        """Absent keys do not mind."""
        self._element(_DELETE, key)

    def __iter__(self) -> Iterator[bytes]:
        """The keys; deleting the ones already given is allowed."""
        found = self._element(_NEXT_KEY, None)
        while found is not None:
            key = found[: self._key_size]
            following = self._element(_NEXT_KEY, key)
            yield key
            found = following

    def close(self) -> None:
        os.close(self.fd)


def load_program(name: str, code: bytes, maps: dict[int, Map]) -> int:
    """Load one program, its map placeholders filled in; returns its descriptor. OSError has the verifier's words."""
    body = bytearray(code)
    at = 0
    while at < len(body):
        opcode, registers, _offset, immediate = INSTRUCTION.unpack_from(body, at)
        if opcode == LOAD_WIDE:
            if registers >> 4 == _PSEUDO_MAP_FD:
                struct.pack_into("<i", body, at + 4, maps[immediate].fd)
            at += 8
        elif opcode == CALL and immediate > FUNCTION_BASE:
            INSTRUCTION.pack_into(body, at, CALL, _PSEUDO_FUNCTION << 4, 0, immediate - FUNCTION_BASE)
        at += 8
    instructions = ctypes.create_string_buffer(bytes(body), len(body))
    licence = ctypes.create_string_buffer(b"Dual BSD/GPL")

    def load(log: ctypes.Array[ctypes.c_char] | None) -> int:
        return _call(
            _PROG_LOAD,
            struct.pack(
                "<IIQQIIQII16s", _RAW_TRACEPOINT, len(body) // 8, _address(instructions), _address(licence),
                1 if log else 0, len(log) if log else 0, _address(log) if log else 0, 0, 0, name.encode()[:15],
            ),
        )  # fmt: skip

    try:
        return load(None)
    except OSError as error:
        log = ctypes.create_string_buffer(_LOG_BYTES)
        try:
            return load(log)
        except OSError:
            said = log.value.decode(errors="replace").strip().splitlines()
        raise OSError(error.errno, f"{name}: {error.strerror}: {' / '.join(said[-3:])}") from error


def is_allowed() -> bool:
    """Whether we may load programs such as ours, which takes capabilities in the initial user namespace."""
    code = INSTRUCTION.pack(_MOVE, 0, 0, 0) + INSTRUCTION.pack(EXIT, 0, 0, 0)
    try:
        os.close(load_program("nothing", code, {}))
    except OSError:
        return False
    return True


def can_load_anywhere(cast: int) -> bool:
    """Whether programs may load from any address that the kernel function `cast`, bpf_rdonly_cast(), says is memory.

    So it is from Linux 6.17 on; before, that function takes structs alone.
    """
    steps = ((_MOVE, 1, 0), (_MOVE, 2, 0), (CALL, 0, FUNCTION_BASE + cast), (_MOVE, 0, 0), (EXIT, 0, 0))
    code = b"".join(INSTRUCTION.pack(opcode, register, 0, value) for opcode, register, value in steps)
    try:
        os.close(load_program("cast", code, {}))
    except OSError:
        return False
    return True


def attach_raw_tracepoint(name: str, program: int) -> int:
    """Attach; the program runs until the descriptor returned is closed. OSError (ENOENT: no such tracepoint)."""
    text = ctypes.create_string_buffer(name.encode())
    return _call(_TRACEPOINT_OPEN, struct.pack("<QI", _address(text), program))
