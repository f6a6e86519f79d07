"""A virtual machine with a kernel of a Debian package and this system's files. Owns qemu, and what it boots.

The files are those of the running system, read-only: nothing is installed and nothing can be damaged. What is written
lies in memory, and is gone with the machine; only `outside` stays.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

NEEDED = ("qemu-system-x86_64", "depmod", "modprobe", "cpio", "busybox")
MODULES = (
    "virtio_pci", "9pnet_virtio", "9p", "overlay", "ext4", "xfs", "btrfs", "fuse", "loop",
    "vfat", "nls_cp437", "nls_iso8859-1", "nls_ascii", "exfat", "ntfs3", "ntfs", "f2fs", "unicode", "utf8",
)  # fmt: skip
HERE = Path(__file__).parent
MEMORY = 6144  # MB
OPTIONS = "console=ttyS0 quiet panic=-1 mitigations=off"
_SHARE = "local,security_model=none,multidevs=remap"


class NotBootableError(Exception):
    """The kernel, or something that it takes to boot one, is not there."""


def unpack(packages: Sequence[Path], into: Path) -> Path:
    """Debian packages of one kernel, or a directory that they were unpacked to. Returns where the files are."""
    if len(packages) == 1 and packages[0].is_dir():
        return packages[0]
    for package in packages:
        subprocess.run(["dpkg-deb", "--extract", package, into], check=True)
    return into


class Kernel:
    """One that was unpacked to `top`. `initrd` is made of its modules."""

    def __init__(self, top: Path, scratch: Path) -> None:
        missing = [program for program in NEEDED if not shutil.which(program)]
        if missing:
            raise NotBootableError(f"no {', '.join(missing)}: apt install qemu-system-x86 kmod cpio busybox-static")
        images = sorted(top.rglob("vmlinuz*"))
        modules = sorted(path for path in top.glob("**/lib/modules/*") if (path / "kernel").is_dir())
        if not images or not modules:
            raise NotBootableError(f"{top}: has no vmlinuz and lib/modules of a kernel")
        self.image, self.release = images[0], modules[0].name
        base = scratch / "modules"
        (base / "lib/modules").mkdir(parents=True)
        shutil.copytree(modules[0], base / "lib/modules" / self.release)
        subprocess.run(["depmod", "-b", base, self.release], check=True, stderr=subprocess.DEVNULL)
        self.initrd = scratch / "initrd.gz"
        self._pack(self._wanted(base), scratch / "initrd")

    def _wanted(self, base: Path) -> list[Path]:
        """Files of the modules, each after what it needs. What is built in has none."""
        found: dict[Path, None] = {}
        for name in MODULES:
            command = ["modprobe", "-d", str(base), "-S", self.release, "--show-depends", name]
            said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            found |= {Path(line.split()[1]): None for line in said.splitlines() if line.startswith("insmod")}
        return list(found)

    def _pack(self, modules: Sequence[Path], top: Path) -> None:
        for name in ("bin", "modules", "proc", "sys", "dev", "new"):
            (top / name).mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "", top / "bin/busybox")
        shutil.copy(HERE / "init.sh", top / "init")
        (top / "init").chmod(0o755)
        order = []
        for path in modules:
            packed = path.suffix == ".xz"
            name = path.stem if packed else path.name
            (top / "modules" / name).write_bytes(lzma.decompress(path.read_bytes()) if packed else path.read_bytes())
            order.append(name)
        (top / "modules/order").write_text("\n".join([*order, ""]))
        names = "\n".join(str(path.relative_to(top)) for path in sorted(top.rglob("*")))
        command = ["cpio", "--create", "--format=newc", "--quiet"]
        archive = subprocess.run(command, cwd=top, input=names.encode(), capture_output=True, check=True).stdout
        self.initrd.write_bytes(gzip.compress(archive, 1))

    def run(self, job: str, outside: Path, *, timeout: float, accelerator: str = "tcg,thread=multi") -> None:
        """Boot, run a shell script, and power off. It finds `outside` at /run/outside. TimeoutError."""
        (outside / "job.sh").write_text(f"{job}\nsync\necho o > /proc/sysrq-trigger\nsleep 60\n")
        command = [
            "qemu-system-x86_64", "-accel", accelerator, "-cpu", "max", "-m", str(MEMORY), "-smp", "2", "-nographic",
            "-no-reboot", "-net", "none", "-kernel", str(self.image), "-initrd", str(self.initrd), "-append", OPTIONS,
            "-fsdev", f"{_SHARE},id=root,path=/,readonly=on", "-device", "virtio-9p-pci,fsdev=root,mount_tag=root",
            "-fsdev", f"{_SHARE},id=outside,path={outside}", "-device", "virtio-9p-pci,fsdev=outside,mount_tag=outside",
        ]  # fmt: skip
        with open(outside / "console.log", "wb") as console:
            try:
                subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, timeout=timeout, check=True
                )
            except subprocess.TimeoutExpired as error:
                raise TimeoutError(f"{self.release}: not done after {timeout:.0f} s; see {outside}") from error
