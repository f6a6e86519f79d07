"""Run system tests on other kernels: `python -m tests.kernels linux-image-6.1*.deb`, or a directory, unpacked.

`apt-get download linux-image-VERSION-amd64` gets one. A kernel that comes in several packages is given as a directory.
The machine is emulated, so that all takes some ten times as long as here.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from .machine import Kernel, NotBootableError, quoted, unpack

TOP = Path(__file__).resolve().parents[2]
TESTS = ("tests/system/test_record.py", "tests/system/test_filesystems.py")
SLOW = "test_a_kernel_whose_functions_cannot_be_called"  # compiles the programs once more, for minutes


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kernels", description=__doc__.partition("\n")[0])
    parser.add_argument("kernels", nargs="+", type=Path, metavar="KERNEL", help="a Debian package, or a directory")
    parser.add_argument("--test", action="append", metavar="WORD", help=f"for pytest (default: {' '.join(TESTS)})")
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
        options = ("-p", "no:cacheprovider", "-q", "-k", f"not {SLOW}", "--tb=short")
        command = [sys.executable, "-m", "pytest", *options, *tests]
        kernel.run(
            f"cd {quoted([TOP])} && export HOME=/tmp PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "
            f"PYTHONDONTWRITEBYTECODE=1 && {quoted(command)} > /run/outside/report.txt 2>&1 < /dev/null",
            top / "outside", timeout=timeout, accelerator=accelerator,
        )  # fmt: skip
        said = report.read_text(errors="replace").strip() if report.exists() else "nothing came of it"
        last = said.rpartition("\n")[2]
        passed = " passed" in last and "failed" not in last and "error" not in last
        return passed, f"Linux {kernel.release}: {last if passed else said}"


if __name__ == "__main__":
    sys.exit(main())
