"""Run system tests on other kernels: `python -m tests.kernels linux-image-6.1*.deb`, or a directory, unpacked.

`apt-get download linux-image-VERSION-amd64` gets one. A kernel that comes in several packages is given as a directory.
The machine is emulated: all takes some ten times as long as here, six minutes for what is run if nothing else is asked
for. Before Linux 6.13 a time is a tick off where the clock ticks during a call. As calls take so long here, half of the
runs have a path or two, healed. This checkout must not lie below /tmp, which is another one in the machine.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

from .machine import Kernel, NotBootableError, unpack

TOP = Path(__file__).resolve().parents[2]
RECORD, FILESYSTEMS = "tests/system/test_record.py", "tests/system/test_filesystems.py"
FURTHER = "tests/kernels/further_filesystems.py"
TESTS = (
    f"{RECORD}::test_every_call_of_the_recorded_families_is_recorded_exactly",
    f"{RECORD}::test_moments_are_what_was_there_when_the_mark_was_set",
    f"{RECORD}::test_a_filter_leaves_paths_out",
    f"{FILESYSTEMS}::test_every_call_on_every_filesystem",
    FURTHER,
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kernels", description=__doc__.partition("\n")[0])
    parser.add_argument("kernels", nargs="+", type=Path, metavar="KERNEL", help="a Debian package, or a directory")
    parser.add_argument("--test", action="append", metavar="WORD", help="for pytest (default: every call)")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds for each kernel (%(default)s)")
    parser.add_argument("--accelerator", default="tcg,thread=multi", help="for qemu (%(default)s)")
    options = parser.parse_args()
    failed = False
    for kernel in options.kernels:
        try:
            passed, said = run(kernel, options.test or TESTS, options.timeout, options.accelerator)
        except (NotBootableError, TimeoutError) as error:
            passed, said = False, str(error)
        print(said, flush=True)
        failed |= not passed
    return int(failed)


def run(package: Path, tests: list[str] | tuple[str, ...], timeout: float, accelerator: str) -> tuple[bool, str]:
    """Whether the tests passed on a kernel, and what pytest said in the end."""
    with tempfile.TemporaryDirectory(prefix="diffkeeper-kernel-") as scratch:
        top = Path(scratch)
        for name in ("unpacked", "outside"):
            (top / name).mkdir()
        kernel = Kernel(unpack([package], top / "unpacked"), top)
        report = top / "outside/report.txt"
        options = ("-p", "no:cacheprovider", "-q", "--tb=short")
        command = [sys.executable, "-m", "pytest", *options, *tests]
        settings = "HOME=/tmp PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1"
        words = f"{settings} {shlex.join(command)} > /run/outside/report.txt 2>&1 < /dev/null"
        kernel.run(f"cd {shlex.quote(str(TOP))} && {words}", top / "outside", timeout=timeout, accelerator=accelerator)
        said = report.read_text(errors="replace").strip() if report.exists() else "nothing came of it"
        last = said.rpartition("\n")[2]
        passed = " passed" in last and "failed" not in last and "error" not in last
        return passed, f"Linux {kernel.release}: {last if passed else said}"


if __name__ == "__main__":
    sys.exit(main())
