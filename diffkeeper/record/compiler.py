"""From bpf/*.c to bytecode: bcc's compiler, and a cache of what it made.

The only importer of bcc, which comes from the system's Python packages whatever Python runs us.
Compiling takes some seconds, so the result is kept by the hash of everything it depends on; what runs
it is `diffkeeper.record.bpf`.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from .. import cache
from ..errors import NoBccError
from . import headers
from .bpf import Bytecode, MapSpec
from .loops import closed_by_jumps

SYSTEM_PACKAGES = ("/usr/lib/python3/dist-packages", "/usr/lib/python3/site-packages")
CACHE_VERSION = 2
FLAGS = ("-g0", "-Xclang", "-disable-llvm-passes")
"""For clang: no debug information, and no optimization, as bcc optimizes what comes from there. A third of the time."""
DEBUG_VARIABLE = "DIFFKEEPER_DEBUG_BPF"
"""Set it to see what the compiler says, and to pass the cache by."""


# Functions of libbcc's C API (bpf_module.h) that bcc's own Python does not declare.
_UNDECLARED = (
    ("bpf_num_tables", ctypes.c_size_t, (ctypes.c_void_p,)),
    ("bpf_table_name", ctypes.c_char_p, (ctypes.c_void_p, ctypes.c_size_t)),
    ("bpf_table_key_size_id", ctypes.c_size_t, (ctypes.c_void_p, ctypes.c_size_t)),
    ("bpf_table_leaf_size_id", ctypes.c_size_t, (ctypes.c_void_p, ctypes.c_size_t)),
)


def find_bcc() -> ModuleType:
    """The system's bcc. NoBccError when there is none."""
    path = list(sys.path)
    sys.path += [directory for directory in SYSTEM_PACKAGES if directory not in path]
    try:
        return importlib.import_module("bcc")
    except ImportError as error:
        raise NoBccError(f"bcc cannot be imported ({error}): install it with 'apt install python3-bpfcc'") from error
    finally:
        sys.path[:] = path


def bytecode(text: str, rings: Mapping[str, MapSpec], compiling: Callable[[], None]) -> Bytecode:
    """Compile C `text`, in which these names stand for maps; from the cache when it is there. NoBccError.

    `compiling` is called before what takes long, in another process.
    """
    key = hashlib.blake2b(f"{CACHE_VERSION}\0{FLAGS}\0{rings}\0{text}".encode(), digest_size=16).hexdigest()
    path = cache.directory() / f"programs-{key}.msgpack"
    if not os.environ.get(DEBUG_VARIABLE):
        with suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
            return msgspec.msgpack.decode(path.read_bytes(), type=Bytecode)
    with headers.tree() as tree:  # here, as nobody there may be left to remove it
        made = _apart(lambda: _compile(text, rings, tree, compiling))
    cache.write(path, made)
    return msgspec.msgpack.decode(made, type=Bytecode)


def _apart(make: Callable[[], Bytecode]) -> bytes:
    """What is made, packed, in a process of its own: LLVM may end that, bcc changes its directory, both take memory."""
    source, sink = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.close(source)
            with open(sink, "wb") as out:
                try:
                    out.write(msgspec.msgpack.encode(make()))
                    status = 0
                except NoBccError as error:
                    out.write(str(error).encode(errors="replace"))
        finally:
            os._exit(status)
    os.close(sink)
    with open(source, "rb") as told:
        made = told.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        gone = f"bcc's compiler ended ({status}): set {DEBUG_VARIABLE}=1 to see why"
        raise NoBccError(made.decode() if status == 1 and made else gone)
    return made


def _compile(text: str, rings: Mapping[str, MapSpec], tree: Path, compiling: Callable[[], None]) -> Bytecode:
    """In a process of its own. `tree`: of the headers that bcc asks for."""
    bcc = find_bcc()
    compiling()
    lib: Any = bcc.lib
    defines = "".join(f"#define {name} {ring.placeholder}\n" for name, ring in rings.items())
    os.environ["BCC_KERNEL_SOURCE"] = str(tree)
    if not os.environ.get(DEBUG_VARIABLE):  # clang's warnings are about bcc's own headers
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        module: Any = bcc.BPF(text=(defines + text).encode(), cflags=list(FLAGS))
    except Exception as error:  # bcc raises nothing narrower
        raise NoBccError(
            f"bcc could not compile the recorder's programs: {error} (set {DEBUG_VARIABLE}=1 to see why)"
        ) from error
    maps = [*rings.values()]
    for function, result, arguments in _UNDECLARED:
        getattr(lib, function).restype, getattr(lib, function).argtypes = result, arguments
    for number in range(lib.bpf_num_tables(module.module)):
        name = lib.bpf_table_name(module.module, number)
        maps.append(
            MapSpec(
                name=name.decode(),
                kind=lib.bpf_table_type_id(module.module, number),
                key_size=lib.bpf_table_key_size_id(module.module, number),
                value_size=lib.bpf_table_leaf_size_id(module.module, number),
                entries=lib.bpf_table_max_entries_id(module.module, number),
                flags=lib.bpf_table_flags_id(module.module, number),
                placeholder=lib.bpf_table_fd(module.module, name),
            )
        )
    names = [lib.bpf_function_name(module.module, number) for number in range(lib.bpf_num_functions(module.module))]
    programs = {name.decode(): closed_by_jumps(module.dump_func(name)) for name in names}
    module.cleanup()
    return Bytecode(tuple(maps), programs)
