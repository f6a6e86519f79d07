"""Where the running kernel keeps what the BPF programs read: byte offsets of struct members, from BTF.

And the numbers of its functions that programs may call. Owns parsing /sys/kernel/btf/vmlinux, the list of
members wanted with the names they had over the years, and a cache of the answer (parsing takes
0.2-0.5 s). Knows nothing of bcc. The format is documented in the kernel's Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from .. import cache
from ..errors import KernelTooOldError, NoBtfError

BTF_PATH = Path("/sys/kernel/btf/vmlinux")
LAYOUT_VERSION = 18

WANTED: dict[str, tuple[tuple[str, str], ...]] = {
    "TASK_FILES": (("task_struct", "files"),),
    "TASK_FS": (("task_struct", "fs"),),
    "TASK_NSPROXY": (("task_struct", "nsproxy"),),
    "NSPROXY_MNT": (("nsproxy", "mnt_ns"),),
    "TASK_TGID": (("task_struct", "tgid"),),
    "TASK_THREAD_PID": (("task_struct", "thread_pid"),),
    "TASK_FLAGS": (("task_struct", "flags"),),
    "TASK_COMM": (("task_struct", "comm"),),
    "TASK_CRED": (("task_struct", "cred"),),
    "TASK_MM": (("task_struct", "mm"),),
    "TASK_SIGNAL": (("task_struct", "signal"),),
    "TASK_EXIT_CODE": (("task_struct", "exit_code"),),
    "TASK_STATUS": (("task_struct", "thread_info.status"),),
    "TASK_REAL_PARENT": (("task_struct", "real_parent"),),
    "TASK_PTRACE": (("task_struct", "ptrace"),),
    "TASK_STATE": (("task_struct", "__state"), ("task_struct", "state")),
    "TASK_START": (("task_struct", "start_time"),),
    "TASK_STACK": (("task_struct", "stack"),),
    "TASK_BLOCKED": (("task_struct", "blocked"),),
    "TASK_REAL_BLOCKED": (("task_struct", "real_blocked"),),
    "TASK_SIGHAND": (("task_struct", "sighand"),),
    "SIGHAND_ACTION": (("sighand_struct", "action"),),
    "SIGNAL_PIDS": (("signal_struct", "pids"),),
    "PID_LEVEL": (("pid", "level"),),
    "PID_NUMBERS": (("pid", "numbers"),),
    "UPID_NR": (("upid", "nr"),),
    "UPID_NS": (("upid", "ns"),),
    "PIDNS_INUM": (("pid_namespace", "ns.inum"),),
    "CRED_UID": (("cred", "uid"),),
    "CRED_FSUID": (("cred", "fsuid"),),
    "CRED_FSGID": (("cred", "fsgid"),),
    "MM_TASK_SIZE": (("mm_struct", "task_size"),),
    "MM_ARG_START": (("mm_struct", "arg_start"),),
    "MM_ARG_END": (("mm_struct", "arg_end"),),
    "SIGNAL_LIVE": (("signal_struct", "live"),),
    "SIGNAL_EXIT_CODE": (("signal_struct", "group_exit_code"),),
    "FILES_FDT": (("files_struct", "fdt"),),
    "FDT_FD": (("fdtable", "fd"),),
    "FDT_MAX_FDS": (("fdtable", "max_fds"),),
    "FS_PWD": (("fs_struct", "pwd"),),
    "FS_ROOT": (("fs_struct", "root"),),
    "FS_UMASK": (("fs_struct", "umask"),),
    "PATH_MNT": (("path", "mnt"),),
    "PATH_DENTRY": (("path", "dentry"),),
    "FILE_INODE": (("file", "f_inode"),),
    "FILE_PATH": (("file", "f_path"),),
    "FILE_POS": (("file", "f_pos"),),
    "FILE_REFERENCES": (("file", "f_ref"), ("file", "f_count")),
    "FILES_COUNT": (("files_struct", "count"),),
    "FILE_MODE": (("file", "f_mode"),),
    "FILE_FLAGS": (("file", "f_flags"),),
    "INODE_MODE": (("inode", "i_mode"),),
    "INODE_UID": (("inode", "i_uid"),),
    "INODE_GID": (("inode", "i_gid"),),
    "INODE_SB": (("inode", "i_sb"),),
    "INODE_INO": (("inode", "i_ino"),),
    "INODE_NLINK": (("inode", "i_nlink"),),
    "INODE_FLAGS": (("inode", "i_flags"),),
    "INODE_RDEV": (("inode", "i_rdev"),),
    "INODE_SIZE": (("inode", "i_size"),),
    "INODE_GENERATION": (("inode", "i_generation"),),
    "INODE_ALIASES": (("inode", "i_dentry"),),
    "INODE_MTIME_SEC": (("inode", "i_mtime_sec"), ("inode", "__i_mtime"), ("inode", "i_mtime")),
    "INODE_CTIME_SEC": (("inode", "i_ctime_sec"), ("inode", "__i_ctime"), ("inode", "i_ctime")),
    "INODE_MTIME_NSEC": (("inode", "i_mtime_nsec"), ("inode", "__i_mtime+8"), ("inode", "i_mtime+8")),
    "INODE_CTIME_NSEC": (("inode", "i_ctime_nsec"), ("inode", "__i_ctime+8"), ("inode", "i_ctime+8")),
    "SB_DEV": (("super_block", "s_dev"),),
    "SB_MAGIC": (("super_block", "s_magic"),),
    "SB_FLAGS": (("super_block", "s_flags"),),
    "DENTRY_PARENT": (("dentry", "d_parent"),),
    "DENTRY_NAME": (("dentry", "d_name.name"),),
    "DENTRY_NAME_LEN": (("dentry", "d_name.len"),),
    "DENTRY_INODE": (("dentry", "d_inode"),),
    "DENTRY_ALIAS": (("dentry", "d_u.d_alias"), ("dentry", "d_alias")),
    "DENTRY_HASH_PPREV": (("dentry", "d_hash.pprev"),),
    "DENTRY_CHILDREN": (("dentry", "d_children"), ("dentry", "d_subdirs")),
    "DENTRY_SIBLING": (("dentry", "d_sib"), ("dentry", "d_child")),
    "VFSMOUNT_ROOT": (("vfsmount", "mnt_root"),),
    "MOUNT_MNT": (("mount", "mnt"),),
    "MOUNT_PARENT": (("mount", "mnt_parent"),),
    "MOUNT_MOUNTPOINT": (("mount", "mnt_mountpoint"),),
    "MOUNT_NAMESPACE": (("mount", "mnt_ns"),),
}

OPTIONAL: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
    "HAVE_URING": {
        "URING_OPCODE": (("io_kiocb", "opcode"),),
        "URING_FLAGS": (("io_kiocb", "flags"),),
        "URING_RESULT": (("io_kiocb", "cqe.res"),),
        "URING_FD": (("io_kiocb", "cqe.fd"),),
        "URING_RW_POS": (("io_rw", "kiocb.ki_pos"),),
        "URING_RW_ADDR": (("io_rw", "addr"),),
        "URING_RW_LEN": (("io_rw", "len"),),
        "URING_OPEN_HOW": (("io_open", "how"),),
        "URING_OPEN_SLOT": (("io_open", "file_slot"),),
        "URING_UNLINK_DFD": (("io_unlink", "dfd"),),
        "URING_UNLINK_FLAGS": (("io_unlink", "flags"),),
        "URING_UNLINK_PATH": (("io_unlink", "filename"),),
        "URING_LINK_OLD_DFD": (("io_link", "old_dfd"),),
        "URING_LINK_NEW_DFD": (("io_link", "new_dfd"),),
        "URING_LINK_OLD": (("io_link", "oldpath"),),
        "URING_LINK_NEW": (("io_link", "newpath"),),
        "URING_LINK_FLAGS": (("io_link", "flags"),),
        "URING_SYNC_LENGTH": (("io_sync", "len"),),
        "URING_SYNC_OFFSET": (("io_sync", "off"),),
        "URING_SYNC_MODE": (("io_sync", "mode"),),
        "URING_SPLICE_OFFSET": (("io_splice", "off_out"),),
        "URING_XATTR_NAME": (("io_xattr", "ctx.kname"),),
        "URING_XATTR_VALUE": (("io_xattr", "ctx.kvalue"),),
        "URING_XATTR_SIZE": (("io_xattr", "ctx.size"),),
        "URING_XATTR_PATH": (("io_xattr", "filename"),),
        "FILENAME_NAME": (("filename", "name"),),
        "TASK_URING": (("task_struct", "io_uring"),),
    },
    "HAVE_CLOCK": {
        "CLOCK_SEC": (("timekeeper", "xtime_sec"),),
        "CLOCK_NSEC": (("timekeeper", "tkr_mono.xtime_nsec"),),
        "CLOCK_SHIFT": (("timekeeper", "tkr_mono.shift"),),
        "CLOCK_TO_MONOTONIC": (("timekeeper", "wall_to_monotonic"),),
    },
}
"""How requests of io_uring look, and the clock by which inodes get their times. A kernel that lacks a member of one
is recorded without it."""

FUNCTIONS = {
    "RDONLY_CAST": "bpf_rdonly_cast",
    "READ_USER_DYNPTR": "bpf_probe_read_user_dynptr",
    "TASK_REGISTERS": "bpf_task_pt_regs",
}
"""Functions of the kernel that programs call where they are there: by their number in BTF, 0 where not. The last one is
called as a helper, by the number that it has as such: this one says whether the kernel has it."""

# Kinds of types that carry more than the common 12 bytes: (fixed part, part for each of vlen members).
_EXTRA = {1: (4, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 13: (0, 8), 14: (4, 0), 15: (0, 12),
          17: (4, 0), 19: (0, 12)}  # fmt: skip
_HEADER = struct.Struct("<HBBIIIII")
_MAGIC = b"\x9f\xeb"
_STRUCT, _UNION, _FUNCTION = 4, 5, 12
_WRAPPERS = frozenset({8, 9, 10, 11, 18})  # typedef, volatile, const, restrict, type tag


class _Btf:
    """The types of one BTF blob, indexed by number."""

    def __init__(self, blob: bytes) -> None:
        if len(blob) < _HEADER.size or blob[:2] != _MAGIC:
            raise NoBtfError(f"{BTF_PATH} is not BTF: recording needs a kernel built with CONFIG_DEBUG_INFO_BTF")
        _magic, _version, _flags, header, type_at, type_size, string_at, string_size = _HEADER.unpack_from(blob)
        self._strings = blob[header + string_at : header + string_at + string_size]
        self._data = blob[header + type_at : header + type_at + type_size]
        self._types: list[tuple[int, int, int, int]] = [(0, 0, 0, 0)]  # info, offset of members, size or type, name
        at, data, unpack = 0, self._data, struct.Struct("<III").unpack_from
        types = self._types
        while at < len(data):
            name, info, size = unpack(data, at)
            fixed, each = _EXTRA.get(info >> 24 & 31, (0, 0))
            types.append((info, at + 12, size, name))
            at += 12 + fixed + each * (info & 0xFFFF)

    def _name(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def numbers(self, wanted: Iterable[str], *kinds: int) -> dict[str, int]:
        """Numbers of the types of these names that are of one of the kinds; not of structs that are only declared."""
        offsets = {}
        for name in wanted:
            at = self._strings.find(b"\0" + name.encode() + b"\0") + 1
            if at:
                offsets[at] = name
        return {
            offsets[name]: number
            for number, (info, _at, _size, name) in enumerate(self._types)
            if name in offsets and info >> 24 & 31 in kinds and (info & 0xFFFF or _FUNCTION in kinds)
        }

    def _members(self, number: int, base: int) -> Iterator[tuple[str, int, int]]:
        """(name, byte offset, type) of the members, those of anonymous members included."""
        info, at, _size, _name = self._types[number]
        for index in range(info & 0xFFFF):
            name, kind, bits = struct.unpack_from("<III", self._data, at + 12 * index)
            offset = base + (bits & 0xFFFFFF if info >> 31 else bits) // 8
            if name:
                yield self._name(name), offset, kind
            elif self._types[kind][0] >> 24 & 31 in (_STRUCT, _UNION):
                yield from self._members(kind, offset)

    def offset(self, number: int, path: str) -> int | None:
        """Offset of a dotted member path ("a.b", "a+8") in bytes."""
        path, _, plus = path.partition("+")
        at = 0
        for part in path.split("."):
            while self._types[number][0] >> 24 & 31 in _WRAPPERS:
                number = self._types[number][2]
            for name, offset, kind in self._members(number, 0):
                if name == part:
                    at, number = at + offset, kind
                    break
            else:
                return None
        return at + int(plus or 0)


def parse(blob: bytes) -> dict[str, int]:
    """Offsets of everything in WANTED. KernelTooOldError names a member that is nowhere."""
    btf = _Btf(blob)
    optional = {key: spellings for group in OPTIONAL.values() for key, spellings in group.items()}
    members = WANTED | optional
    structs = btf.numbers({name for spellings in members.values() for name, _ in spellings}, _STRUCT, _UNION)
    found: dict[str, int] = {}
    for key, spellings in members.items():
        for name, member in spellings:
            offset = btf.offset(structs[name], member) if name in structs else None
            if offset is not None:
                found[key] = offset
                if key == "FILE_REFERENCES":  # file_ref_t (6.13) counts from 0, f_count from 1
                    found["FILE_ONE_REFERENCE"] = int(member == "f_count")
                break
        else:
            if key in optional:
                continue
            raise KernelTooOldError(
                f"this kernel's {spellings[0][0]} has no {spellings[0][1]}: DiffKeeper does not know it"
            )
    heads = [value + 8 for key, value in found.items() if key.startswith("INODE_") and key not in _NOT_IN_HEAD]
    found["INODE_HEAD"] = max(heads) + 7 & ~7
    functions = btf.numbers(FUNCTIONS.values(), _FUNCTION)
    found |= {key: functions.get(name, 0) for key, name in FUNCTIONS.items()}
    found |= {name: int(found.keys() >= group.keys()) for name, group in OPTIONAL.items()}
    return found


_NOT_IN_HEAD = frozenset({"INODE_GENERATION", "INODE_ALIASES"})


def _cache_path(release: str, blob: bytes) -> Path:
    digest = hashlib.blake2b(blob, digest_size=12).hexdigest()
    return cache.directory() / f"layout-{LAYOUT_VERSION}-{release}-{digest}.json"


def load() -> dict[str, int]:
    """The running kernel's offsets, from the cache where they are there. NoBtfError without BTF."""
    try:
        blob = BTF_PATH.read_bytes()
    except OSError as error:
        raise NoBtfError(
            f"{BTF_PATH} cannot be read ({error.strerror}): recording needs a kernel with CONFIG_DEBUG_INFO_BTF=y"
        ) from error
    path = _cache_path(os.uname().release, blob)
    try:
        cached = json.loads(path.read_bytes())
        whole = set(cached) >= {*WANTED, *FUNCTIONS, "INODE_HEAD", "FILE_ONE_REFERENCE", *OPTIONAL}
        if whole and all(isinstance(value, int) for value in cached.values()):
            return dict(cached)
    except (OSError, ValueError):
        pass  # not there, or not ours: found out again below
    offsets = parse(blob)
    cache.write(path, json.dumps(offsets).encode())
    return offsets
