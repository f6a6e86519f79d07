"""The kernel half of a recording: our programs loaded and attached, and the maps that steer them.

Owns what the C parts in bpf/ mean to user space: their order, the `control` slots, which tracepoints; what requests
are is in `requests`. `diffkeeper.record.ring` reads the ring buffer this opens; nothing here knows of traces.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from ..errors import KernelTooOldError, NoBccError, NotPermittedError
from ..progress import Progress, Silent
from ..wire import Inode
from . import bpf, compiler, layout, limits, memory, namespaces, symbols, syscalls
from .requests import Request, decode

PARTS = (
    "event.h",
    "maps.h",
    "memory.h",
    "numbers.h",
    "objects.h",
    "hold.h",
    "verdicts.h",
    "send.h",
    "requests.h",
    "stamps.h",
    "apart.h",
    "dispatch.c",
    "data.c",
    "space.c",
    "mapped.c",
    "names.c",
    "apart.c",
    "verdicts.c",
    "attributes.c",
    "files.c",
    "process.c",
    "unseen.h",
    "touch.c",
    "aio.c",
    "flights.h",
    "uring.c",
    "completed.c",
    "vectors.c",
)
JUDGE = "judge_call"
# In the order of the HELPER_* numbers in bpf/maps.h.
HELPERS = ("bind_inode", "add_request", "uring_write", "uring_file", "uring_open", "uring_name", "aio_write",
           "send_name", "aio_behind", "report_failed", JUDGE, "send_apart", "write_vectors", "send_made",
           "send_xattr", "core_dumped", "thread_ended", "uring_xattr")  # fmt: skip
REQUIRED_TRACEPOINTS = ("sched_process_fork", "sched_process_exec", "sched_process_exit", "sys_exit")
CHANGES = "inode_set_ctime_to_ts"
CLOCK = "tk_core"
URING = ("io_uring_submit_req", "io_uring_complete", "io_uring_cqe_overflow")
OPTIONAL_TRACEPOINTS = (CHANGES, "ctime_ns_xchg", "ctime_xchg_skip", "writeback_mark_inode_dirty", *URING)
BIND_DEPTH = 256
COMPILING = "compiling programs for this kernel: some seconds, the first time"
PASSES = 8  # over what is asked: more only where somebody asks without end
FILTERS = 64  # whose verdicts the kernel half can tell apart
MINIMUM_KERNEL = (5, 8)
QUESTIONS_BYTES = 1 << 20
_RING_PLACEHOLDER, _QUESTIONS_PLACEHOLDER = 999_983, 999_979  # in the bytecode, where the rings' descriptors will be
_MAPPING = struct.Struct("<QQQII")  # struct dk_mapping
_MAPPINGS = 64
_KEY = struct.Struct("<QII")  # struct dk_key and struct dk_block
_BLOCK_SHIFT = 16
_QUESTION = struct.Struct("<QQ")  # struct dk_question
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class Control:
    """Slots of the `control` map, as enum dk_control in bpf/maps.h numbers them."""

    DISABLED, LOST, STOPS, STOPPED, COMPAT, UNREAD, UNSTOPPABLE, THRESHOLD = range(8)
    UNASKED, UNMAPPED, ASYNC, CUTS, MAPPED, JUDGES, EPOCH, MOVES = range(8, 16)
    APART, MOUNTS, EXITS, CHANGES, CUT_SHORT, UNFOLLOWED, CORES, UNSEEN, GIVEN, CLOCK, URING, GROUP = range(16, 28)
    PIDNS = 28


def sources() -> Path:
    """The directory of the C parts: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_bpf"
    return installed if installed.is_dir() else package.parent / "bpf"


def check_kernel() -> None:
    """Raise when this user or this kernel cannot record. Cheap: compiles nothing."""
    release = os.uname().release
    version = tuple(int(part) for part in release.split("-")[0].split(".")[:2])
    if version < MINIMUM_KERNEL:
        raise KernelTooOldError(f"kernel {release} is too old: recording needs Linux 5.8 or newer")
    if os.geteuid() != 0:
        raise NotPermittedError(
            "recording needs root: run it as 'sudo diffkeeper record ...' (the command runs as you)"
        )
    namespaces.check_proc()
    if not bpf.is_allowed():
        raise NotPermittedError(
            "this root may load no programs into the kernel: a container needs --privileged, or CAP_BPF and CAP_PERFMON"
            " in the initial user namespace, and bpf(2) in its seccomp profile"
        )
    layout.load()


def _cpu_numbers() -> int:
    """One more than the highest CPU number, which with gaps is more than there are CPUs."""
    ranges = Path("/sys/devices/system/cpu/present").read_text().strip()
    return int(ranges.replace("-", ",").rpartition(",")[2]) + 1


def program_text() -> str:
    """The whole C program but for the rings' descriptors: offsets and sizes as macros, then the parts in order."""
    defines = {**layout.load(), "NCPU": _cpu_numbers(), "BIND_DEPTH": BIND_DEPTH}
    calls = {name: defines.pop(name) for name in layout.FUNCTIONS}
    if calls["RDONLY_CAST"] and not bpf.can_load_anywhere(calls["RDONLY_CAST"]):
        calls["RDONLY_CAST"] = 0
    defines |= {name: bpf.FUNCTION_BASE + number for name, number in calls.items() if number}
    if namespaces.pid_namespace() != namespaces.INITIAL_PID_NAMESPACE:
        defines["PID_NAMESPACE"] = 1
    text = [f"#define {name} {value}" for name, value in defines.items()]
    text += [(sources() / part).read_text() for part in PARTS]
    return "\n".join(text)


def compiled(ring_bytes: int = memory.MOST_RING, compiling: Callable[[], None] = lambda: None) -> bpf.Bytecode:
    """The programs for the running kernel. Raises NoBtfError, KernelTooOldError and NoBccError.

    `compiling` is called where they have to be compiled first.
    """
    ring = bpf.MapSpec("dk_events", bpf.MAP_RINGBUF, 0, 0, ring_bytes, 0, _RING_PLACEHOLDER)
    asked = bpf.MapSpec("dk_questions", bpf.MAP_RINGBUF, 0, 0, QUESTIONS_BYTES, 0, _QUESTIONS_PLACEHOLDER)
    return compiler.bytecode(program_text(), {"RING_FD": ring, "QUESTIONS_FD": asked}, compiling)


def _refused(error: OSError) -> NoBccError:
    return NoBccError(f"this kernel does not take the recorder's programs: {error}")


class Loading:
    """Programs on their way into the kernel, in a thread of their own: that takes as long as importing the rest.

    Raises KernelTooOldError, NotPermittedError, NoBtfError and NoBccError when it is begun. `limits`: those that we
    were given; ours are lifted from here on.
    """

    def __init__(self, ui: Progress | None = None, ring_bytes: int = 0) -> None:
        """`ring_bytes`: 0: as fits the memory that there is."""
        ui = ui or Silent()
        self.limits = limits.lift()
        check_kernel()
        fitting = memory.ring_bytes(memory.limit())
        code = compiled(ring_bytes or fitting, partial(ui.note, COMPILING))
        self._pool = ThreadPoolExecutor(1)
        self._kernel = self._pool.submit(Kernel, code, ring_bytes or fitting, memory.MOST_RING // fitting)

    def wait(self) -> Kernel:
        """The programs, when the thread has ended: what forks must be alone. Raises NoBccError."""
        with self._pool:
            return self._kernel.result()

    def abandon(self) -> None:
        """Nothing is to be recorded after all."""
        with suppress(NoBccError):
            self.wait().close()


class Kernel:
    """The loaded programs. `ring_fd`, `questions_fd` and `control` stay valid until `close()`."""

    def __init__(self, code: bpf.Bytecode, ring_bytes: int, part: int = 1) -> None:
        """Load; nothing is attached yet. `ring_bytes`: a power of two of pages. NoBccError when it cannot be.

        `part`: maps have one of so many of their entries, where memory is short.
        """
        self.ring_bytes = ring_bytes
        self.notes: list[str] = []
        if part > 1:
            self.notes.append(f"the ring has {ring_bytes >> 20} MiB, as memory is short here: writers are held sooner")
        self._fds: list[int] = []
        self._maps: dict[str, bpf.Map] = {}
        try:
            self._load(code, part)
        except OSError as error:
            raise _refused(error) from error
        self._fds += self._programs.values()
        for slot, program in enumerate(HELPERS):
            if program in self._programs:
                self._help(slot, self._programs[program])
        for program, numbers in syscalls.handlers().items():
            for number in numbers if program in self._programs else ():
                self._maps["on_exit"].put(_U32.pack(number), _U32.pack(self._programs[program]))
                self._maps["handled"].put(_U32.pack(number), bytes([program not in syscalls.PARTLY]))
        self.ring_fd = self._maps["dk_events"].fd
        self.questions_fd = self._maps["dk_questions"].fd
        self._control_map = mmap.mmap(self._maps["control"].fd, mmap.PAGESIZE)
        self.control = memoryview(self._control_map).cast("Q")
        self._changes = 0  # of the control slot, when the maps were looked at last
        self.control[Control.THRESHOLD] = ring_bytes // 2
        self.control[Control.PIDNS] = namespaces.pid_namespace()

    def _load(self, code: bpf.Bytecode, part: int) -> None:
        by_placeholder = {}
        for spec in (each.smaller(part) for each in code.maps):
            self._maps[spec.name] = by_placeholder[spec.placeholder] = bpf.Map(spec)
        self._load_judge = partial(bpf.load_program, JUDGE, code.programs.pop(JUDGE), by_placeholder)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # the verifier takes its time, and one CPU a program
            load = partial(bpf.load_program, maps=by_placeholder)
            found = pool.map(load, code.programs.keys(), code.programs.values())
            self._programs = dict(zip(code.programs, found, strict=True))

    def attach(self) -> None:
        """Attach the tracepoints, sys_exit last. What this kernel does not have is noted in `notes`."""
        for name in (*OPTIONAL_TRACEPOINTS, *REQUIRED_TRACEPOINTS):
            if name in URING and not self._follows_uring:  # all of them, or nothing is done right
                continue
            try:
                if name not in self._programs:
                    raise OSError(errno.ENOENT, "not for this kernel")
                self._fds.append(bpf.attach_raw_tracepoint(name, self._programs[name]))
            except OSError as error:
                if name in REQUIRED_TRACEPOINTS or error.errno != errno.ENOENT:
                    raise NoBccError(f"tracepoint {name} cannot be attached: {error.strerror}") from error
                self.notes.append(f"no tracepoint {name}")
        self.control[Control.MOUNTS] = self._tells_changes  # 1: the kernel half finds it out
        self.control[Control.URING] = self._follows_uring
        if not self._tells_changes:
            self.control[Control.CLOCK] = symbols.address(CLOCK)

    def detach(self) -> None:
        """Let go of the programs: they end when no forked copy of us holds them either. The maps stay."""
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def close(self) -> None:
        """Detach and free everything."""
        self.control.release()
        self._control_map.close()
        self.detach()
        for each in self._maps.values():
            each.close()

    def _help(self, slot: int, program: int) -> None:
        """Programs may call this one by that number."""
        self._maps["programs"].put(_U32.pack(slot), _U32.pack(program))

    # ---- maps ----

    def track(self, pid: int) -> None:
        self._maps["tracked"].put(_U32.pack(pid), b"\1")

    def tracked(self) -> list[int]:
        return [_U32.unpack(key)[0] for key in self._maps["tracked"]]

    def skip_devices(self, devices: Iterable[int]) -> None:
        """Leave files on these filesystems (kernel s_dev numbers) alone."""
        for device in devices:
            self._maps["skipped_devs"].put(_U32.pack(device), b"\1")

    def take_stopped(self) -> list[int]:
        """Processes that were stopped and not yet taken; they are the caller's to continue.

        Taken before they are continued: one that runs on while it is still listed would not be stopped again.
        """
        pids = self.stopped()
        for pid in pids:
            self._maps["stopped"].delete(_U32.pack(pid))
        return pids

    def stopped(self) -> list[int]:
        """Processes that were stopped and not yet taken."""
        return [_U32.unpack(key)[0] for key in self._maps["stopped"]]

    def take_requests(self) -> list[Request]:
        """What was asked and not yet taken, the oldest first."""
        found: list[Request] = []
        for _ in range(PASSES):
            more = self._requests()
            found += more
            if not more:
                break
        return sorted(found, key=lambda request: (request.position, request.time))

    def _requests(self) -> list[Request]:
        """In one pass. What is asked meanwhile may be missing, though something that was asked after it is there."""
        requests = self._maps["requests"]
        found = []
        for key in list(requests):
            raw = requests.get(key)
            requests.delete(key)
            if raw is not None:
                found.append(decode(raw))
        return found

    def judge(self) -> bool:
        """Ask about paths from now on. False: not here, as no tracepoint tells what a call with paths has changed."""
        try:
            self._fds.append(self._load_judge())  # only here: it takes the verifier longest
        except OSError as error:
            raise _refused(error) from error
        self._help(HELPERS.index(JUDGE), self._fds[-1])
        self.control[Control.JUDGES] = self._tells_changes
        return self._tells_changes

    @property
    def _tells_changes(self) -> bool:
        """Whether a tracepoint tells what a call with paths has changed."""
        return f"no tracepoint {CHANGES}" not in self.notes

    @property
    def _follows_uring(self) -> bool:
        return not any(f"no tracepoint {name}" in self.notes for name in URING)

    def reject(self, question: int, above: int, index: int) -> None:
        """What was asked about is left out, with all that is below it, by the filter of this index (below FILTERS).

        `above`: the directory so many levels above what the question was about.
        """
        self._maps["verdicts"].put(_QUESTION.pack(question, above), _U32.pack(index))

    def left_out(self) -> list[int]:
        """Calls that were left out so far, by filter."""
        counted = (self._maps["left_out"].get(_U32.pack(index)) for index in range(FILTERS))
        return [_U64.unpack(each)[0] if each else 0 for each in counted]

    def release(self, request: Request) -> None:
        """Nothing that the process asked for by then holds its threads when they come back from an io_uring."""
        self._maps["served"].put(_U32.pack(request.pid), _U64.pack(request.time))

    def follow(self, inode: Inode) -> None:
        """Tell, from now on, what calls change of a file (`changed_blocks`)."""
        self._maps["followed"].put(_KEY.pack(inode.ino, inode.dev, inode.gen), bytes(8))

    def unfollow(self, inode: Inode) -> None:
        self._maps["followed"].delete(_KEY.pack(inode.ino, inode.dev, inode.gen))

    def changed_blocks(self) -> Iterator[tuple[tuple[int, int], range | None]]:
        """(device, inode number) and bytes of followed files that calls changed meanwhile; None: all of it."""
        changes = self.control[Control.CHANGES]
        if changes == self._changes:
            return
        self._changes = changes
        followed, written = self._maps["followed"], self._maps["written"]
        for key in list(followed):
            if followed.get(key) not in (None, bytes(8)):
                followed.put(key, bytes(8))
                ino, dev, _ = _KEY.unpack(key)
                yield (dev, ino), None
        for key in list(written):
            written.delete(key)
            ino, dev, block = _KEY.unpack(key)
            yield (dev, ino), range(block << _BLOCK_SHIFT, block + 1 << _BLOCK_SHIFT)

    def mapped(self) -> tuple[dict[tuple[int, int], set[int]], set[int]]:
        """Who has files mapped, shared: the processes of each (device, inode number), and those with too many."""
        files: dict[tuple[int, int], set[int]] = {}
        many = set()
        mappings = self._maps["mappings"]
        for key in mappings:
            raw = mappings.get(key)
            if raw is None:
                continue
            pid = _U32.unpack(key)[0]
            if _U64.unpack_from(raw, _MAPPING.size * _MAPPINGS)[0]:
                many.add(pid)
            for _start, end, ino, dev, _writable in _MAPPING.iter_unpack(raw[: _MAPPING.size * _MAPPINGS]):
                if end:
                    files.setdefault((dev, ino), set()).add(pid)
        return files, many
