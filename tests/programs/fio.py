"""fio, an engine at a time: random and sequential writes of several jobs, read back and verified by fio itself."""

from __future__ import annotations

from .program import Program

SCRIPT = r"""
# fio 3.39 finds other seeds than it has written
seeds=$(fio --cmdhelp=verify_header_seed 2>/dev/null | grep -q type: && echo --verify_header_seed=0) || true
fio --output=/dev/null --name=job --directory=. --ioengine=$ENGINE --rw=$RW --size=$SIZE \
    --bsrange=$BLOCKS --blockalign=${BLOCKS%-*} --numjobs=2 --iodepth=8 --thread=$THREAD --fsync=64 \
    --verify=crc32c --do_verify=1 --verify_fatal=1 --random_generator=lfsr --norandommap=0 --randseed=1 $seeds $MORE
moment written
fio --output=/dev/null --name=again --directory=. --filename=job.0.0 --ioengine=$ENGINE --rw=randrw --bs=4k \
    --size=$SIZE --iodepth=4 --randseed=2 $MORE
"""
LONG = {"SIZE": "64m"}


def _program(
    engine: str, rw: str = "randwrite", *, blocks: str = "512-64k", thread: int = 0, more: str = ""
) -> Program:
    shape = {"SIZE": "2m", "ENGINE": engine, "RW": rw, "BLOCKS": blocks, "THREAD": thread, "MORE": more}
    name = " ".join(["fio", engine, rw, *(["threads"] if thread else []), *([more] if more else [])])
    return Program(name, SCRIPT, shape, LONG, events=50)


PROGRAMS = [
    _program("sync"),
    _program("psync", "write", thread=1),
    _program("psync", "randwrite"),
    _program("vsync", "write"),
    _program("pvsync2", "randwrite"),
    _program("psync", "randwrite", more="--fallocate=posix"),
    _program("mmap", blocks="4k-64k"),
    _program("libaio"),
    _program("posixaio"),
    _program("io_uring"),
    _program("splice", "write"),
]
