"""The kinds of change, each as lines of Python that do it in an empty directory of its own.

Owns the list alone. The names that the lines may use are those of `worker.NAMES`; `file` is there before, with 64 KiB
in it, and `fd` is open on it for reading and writing.
"""

from __future__ import annotations

from typing import NamedTuple


class Change(NamedTuple):
    """One row of the table."""

    family: str
    name: str
    code: str


WRITES = "Writes"
NO_BUFFER = "Changes without a buffer"
MAPPED = "Stores to mapped memory"
ASYNC = "Asynchronous calls"
NAMES = "Names"
ATTRIBUTES = "Attributes"

CHANGES = (
    Change(WRITES, "`write`, `pwrite`", "os.write(fd, b'one'); os.pwrite(fd, b'two', 5000)"),
    Change(WRITES, "`writev`, `pwritev`", "os.writev(fd, [b'a', b'bc'] * 20); os.pwritev(fd, [b'x' * 70] * 30, 9000)"),
    Change(WRITES, "`writev` of 200 buffers", "os.writev(fd, [b'many'] * 200)"),
    Change(WRITES, "`write` of 20 MiB in one call", "os.pwrite(fd, bytes(range(256)) * 81920, 3)"),
    Change(WRITES, "`pwrite` on `O_APPEND`", "os.pwrite(os.open('file', os.O_WRONLY | os.O_APPEND), b'end', 0)"),
    Change(WRITES, "`pwritev2` with `RWF_APPEND`, or offset -1",
           "b = system.Memory(b'tail'); system.pwritev2(fd, [(b.address, 4)], 0, 16);"
           " system.pwritev2(fd, [(b.address, 4)], -1, 0)"),
    Change(WRITES, "`O_DIRECT`", "direct()"),
    Change(WRITES, "a position shared by `dup` and `fork`",
           "other = os.dup(fd); os.write(fd, b'a'); child(lambda: os.write(other, b'b'))"),
    Change(WRITES, "a short write, cut by `RLIMIT_FSIZE`", "child(limited)"),
    Change(WRITES, "a write that fails half-way (EFAULT)", "half_way()"),
    Change(WRITES, "an unlinked file, still written",
           "os.link('file', 'kept'); os.unlink('file'); os.write(fd, b'on'); os.unlink('kept');"
           " os.write(fd, b'and on')"),
    Change(WRITES, "`truncate`, `ftruncate`, `O_TRUNC`",
           "os.ftruncate(fd, 9999); os.truncate('file', 5000); os.open('file', os.O_TRUNC | os.O_WRONLY)"),
    Change(NO_BUFFER, "`sendfile`", "os.sendfile(fd, source(), 0, 30000)"),
    Change(NO_BUFFER, "`splice` from a pipe",
           "r, w = os.pipe(); os.write(w, b'piped'); os.splice(r, fd, 5, offset_dst=100)"),
    Change(NO_BUFFER, "`copy_file_range`", "os.copy_file_range(source(), fd, 20000, 0, 40000)"),
    Change(NO_BUFFER, "`FICLONE`", "fcntl.ioctl(fd, 0x40049409, source())"),
    Change(NO_BUFFER, "`FICLONERANGE`", "system.clone_range(fd, source(), 0, 4096, 8192)"),
    Change(NO_BUFFER, "`FIDEDUPERANGE`", "system.dedupe(fd, 0, 4096, twin(), 0)"),
    Change(NO_BUFFER, "`fallocate`", "os.posix_fallocate(fd, 60000, 30000)"),
    Change(NO_BUFFER, "`fallocate`: keep size", "system.fallocate(fd, 1, 0, 200000)"),
    Change(NO_BUFFER, "`fallocate`: punch hole", "system.fallocate(fd, 3, 4000, 9000)"),
    Change(NO_BUFFER, "`fallocate`: zero range", "system.fallocate(fd, 16, 4000, 9000)"),
    Change(NO_BUFFER, "`fallocate`: collapse range", "system.fallocate(fd, 8, 8192, 8192)"),
    Change(NO_BUFFER, "`fallocate`: insert range", "system.fallocate(fd, 32, 8192, 8192)"),
    Change(NO_BUFFER, "a core dump", "crash()"),
    Change(MAPPED, "then `msync`", "m = mmap.mmap(fd, 65536); m[100:104] = b'sync'; m.flush()"),
    Change(MAPPED, "then `fsync`", "m = mmap.mmap(fd, 65536); m[100:104] = b'sync'; os.fsync(fd)"),
    Change(MAPPED, "then `munmap`", "m = mmap.mmap(fd, 65536); m[100:104] = b'unmp'; m.close()"),
    Change(MAPPED, "then a mark", "m = keep(mmap.mmap(fd, 65536)); m[100:104] = b'mark'"),
    Change(MAPPED, "`mprotect`, `mremap`",
           "m = mmap.mmap(fd, 65536); m.resize(99999); m[90000:90004] = b'grew'; m.close()"),
    Change(MAPPED, "by a process that exits", "child(lambda: mmap.mmap(fd, 65536).__setitem__(7, 65))"),
    Change(MAPPED, "by a process that is killed",
           "child(lambda: (keep(mmap.mmap(fd, 65536)).__setitem__(7, 66), os.kill(os.getpid(), 9)))"),
    Change(MAPPED, "by `process_vm_writev`", "m = keep(mmap.mmap(fd, 65536)); poke(m)"),
    Change(ASYNC, "io_uring: writes, vectors, fixed buffers, splice, space, names, xattrs", "asynchronous('plain')"),
    Change(ASYNC, "the same, completed by the submitter alone", "asynchronous('deferred')"),
    Change(ASYNC, "the same, submitted by a kernel thread", "asynchronous('poll')"),
    Change(ASYNC, "Linux AIO", "asynchronous('aio')"),
    Change(NAMES, "`open(O_CREAT)`, `mkdir`, `symlink`, `mknod`, `bind`",
           "open('new', 'w').write('n'); os.mkdir('d'); os.symlink('new', 's'); os.mkfifo('p');"
           " os.mknod('c', 0o20600, os.makedev(1, 3)); socket.socket(socket.AF_UNIX).bind('sock')"),
    Change(NAMES, "`O_TMPFILE`, then `linkat`", "t = os.open('.', os.O_TMPFILE | os.O_RDWR); os.write(t, b'tmp');"
           " os.link(f'/proc/self/fd/{t}', 'named', src_dir_fd=0, follow_symlinks=True)"),
    Change(NAMES, "hard links made, broken and renamed",
           "os.link('file', 'l'); os.rename('l', 'm'); os.unlink('file'); os.write(fd, b'x')"),
    Change(NAMES, "`rename`, over a file and open",
           "os.rename('file', 'other'); os.write(fd, b'on'); open('n', 'w').close(); os.rename('n', 'other')"),
    Change(NAMES, "a directory renamed over a directory",
           "os.mkdir('a'); open('a/x', 'w').close(); os.mkdir('b'); os.rename('a', 'b')"),
    Change(NAMES, "`RENAME_EXCHANGE`", "os.mkdir('d'); system.renameat2(-100, b'file', -100, b'd', 2)"),
    Change(NAMES, "`RENAME_NOREPLACE`", "system.renameat2(-100, b'file', -100, b'free', 1)"),
    Change(NAMES, "`RENAME_WHITEOUT`", "system.renameat2(-100, b'file', -100, b'away', 4)"),
    Change(NAMES, "`unlink`, `rmdir`", "os.mkdir('d'); os.rmdir('d'); os.unlink('file')"),
    Change(NAMES, "paths through symlinks, `..`, `fchdir`",
           "os.mkdir('d'); os.symlink('d', 's'); open('s/../s/f', 'w').write('1'); h = os.open('.', 0); os.chdir('s');"
           " os.rename('f', '../g'); os.fchdir(h)"),
    Change(NAMES, "names of 255 bytes, not UTF-8, with newlines",
           "[open(n, 'w').close() for n in (b'n' * 255, b'\\xff\\xfe', b'a\\nb')]"),
    Change(NAMES, "`chroot`", "os.mkdir('jail'); child(lambda: (os.chroot('jail'), open('/inside', 'w').write('x')))"),
    Change(NAMES, "through a bind mount in a mount namespace of its own",
           "os.mkdir('d'); os.mkdir('e'); open('d/f', 'w').write('1');"
           " run('unshare', '-m', 'sh', '-euc', 'mount --bind d e; cd /; echo 2 >> $0/e/f; mv $0/e/f $0/e/g;"
           " mkdir $0/e/s; ln $0/e/g $0/e/s/h; chmod 600 $0/e/g', os.getcwd())"),
    Change(NAMES, "on a tmpfs that hides a directory from the process alone",
           "os.mkdir('d'); open('d/f', 'w').write('1');"
           " run('unshare', '-m', 'sh', '-euc', 'mount -t tmpfs none d; echo 2 > $0/d/f; mkdir $0/d/s; rm $0/d/f',"
           " os.getcwd())"),
    Change(ATTRIBUTES, "`chmod`, set-id bits and sticky",
           "os.chmod('file', 0o6751); os.mkdir('d'); os.chmod('d', 0o1777)"),
    Change(ATTRIBUTES, "`chown`", "os.chown('file', 123, 456); os.fchown(fd, 124, -1)"),
    Change(ATTRIBUTES, "`utimensat`, nanoseconds", "os.utime('file', ns=(5, 1_234_567_891_234_567_891))"),
    Change(ATTRIBUTES, "extended attributes",
           "os.setxattr('file', 'user.a', b'1'); os.setxattr(fd, 'user.b', b'2' * 500);"
           " os.removexattr('file', 'user.a')"),
    Change(ATTRIBUTES, "POSIX ACLs", "run('setfacl', '-m', 'u:1:rw', 'file'); os.chmod('file', 0o640)"),
    Change(ATTRIBUTES, "flags of `chattr` (told, in no moment)", "system.chattr(fd, flags_of(fd) | 0x40)"),
)  # fmt: skip
