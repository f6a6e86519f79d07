/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The wire layout: the one definition of what a record in the ring and in the
 * journal looks like. diffkeeper/wire.py parses this very file for the op and
 * flag numbers and checks the struct sizes against its own.
 *
 * A record is: struct dk_event, then `inodes` times struct dk_inode, then
 * `size` bytes of payload. All integers are little-endian; all times are
 * nanoseconds. "Path" below is bytes as the program passed them; "kernel path"
 * is a list of names from the leaf up to the root of the mount namespace, each
 * closed by a NUL (so "/a/b" is "b\0a\0", and "/" is empty).
 */
#ifndef DK_EVENT_H
#define DK_EVENT_H

#define DK_WIRE_VERSION 1
#define DK_CALLER 0xFFFFFFFF /* for a device */
#define DK_STAMPS 8 /* inodes a call can be seen to have changed, at most; a power of two */

/* What an inode said when the call returned. dev, ino and gen are the kernel's
 * own identity (s_dev, i_ino, i_generation), not what stat() shows. */
struct dk_inode {
	u64 ino;
	u32 dev;
	u32 gen;
	u64 size;
	s64 mtime;
	s64 ctime;
	u64 parent; /* of a stamp: i_ino of the directory it is in; 0: not known, or several */
	u32 mode;
	u32 uid;
	u32 gid;
	u32 nlink;
	u32 rdev;   /* as stat() shows it: makedev(major, minor) */
	u32 tag;    /* of a stamp: length of its name (low byte) and the name's last three bytes above; 0: not known */
};

struct dk_event {
	u64 time;   /* CLOCK_BOOTTIME at the exit of the call */
	u32 pid;    /* thread group id, in the recorder's pid namespace */
	u32 tid;
	u16 op;     /* enum dk_op */
	u8 flags;   /* DK_F_* */
	u8 inodes;
	u32 size;   /* bytes of payload */
	u64 offset; /* meaning by op, below */
	u64 length; /* meaning by op, below */
};

/*
 * Calls come in two forms. Without DK_F_PATH inode 0 is the file itself (the
 * call had a descriptor). With DK_F_PATH inode 0 is the directory that path 1
 * starts from (dirfd, working directory, or root when the path is absolute);
 * for LINK and RENAME inode 1 is the one path 2 starts from. The inodes after
 * those are stamps: inodes whose ctime the thread changed since its last path
 * call, as they stand now, the latest first; the last one of MKDIR, MKNOD and SYMLINK is what they made. One
 * with ino 0 says nothing; but with dev DK_CALLER, where no tracepoint tells of changes, what inodes get from the caller:
 * mtime and ctime (0: not known), uid and gid; mode is its umask.
 * With DK_F_APART a path is that of a process with mounts of its own:
 * of its text the last name counts, and the stamps say in which directory; the rest only where these leave a choice.
 */
enum dk_op {
	DK_OP_BIND = 1,       /* inode 0 is at kernel path `payload` right now; DK_F_GONE: it was unlinked; DK_F_APART: that path ends at the root of its filesystem. Asked about paths: offset = question, length = also about so many directories above */
	DK_OP_WRITE = 2,      /* payload at `offset`; `length`: bytes the whole call wrote. DK_F_CONT: a later piece of the same call */
	DK_OP_OPEN = 3,       /* DK_F_CREATED and/or DK_F_TRUNC; created: inode 1 = directory, payload = name (empty: O_TMPFILE) */
	DK_OP_TRUNCATE = 4,   /* offset = new size; PATH form: payload = path 1, length = uid of the task, its group for files above */
	DK_OP_CHMOD = 5,      /* offset = mode argument */
	DK_OP_CHOWN = 6,      /* offset = uid argument, length = gid argument (as u32; ~0: unchanged) */
	DK_OP_UTIME = 7,      /* length = mtime (DK_TIME_NOW, DK_TIME_OMIT). DK_F_TRUNC: a write that failed, or a fallocate, left these times and the size `offset` */
	DK_OP_MKDIR = 8,      /* offset = mode argument */
	DK_OP_MKNOD = 9,      /* offset = mode argument, length = device as stat() shows it */
	DK_OP_SYMLINK = 10,   /* payload = path 1, NUL, target, NUL */
	DK_OP_LINK = 11,      /* payload = path 1 (existing), NUL, path 2 (new), NUL; offset = AT_* flags */
	DK_OP_RENAME = 12,    /* payload = path 1 (old), NUL, path 2 (new), NUL; offset = RENAME_* flags */
	DK_OP_UNLINK = 13,    /* payload = path 1 */
	DK_OP_RMDIR = 14,     /* payload = path 1 */
	DK_OP_SETXATTR = 15,  /* payload = [path 1, NUL,] name, NUL, value; length = size of value */
	DK_OP_REMOVEXATTR = 16, /* payload = [path 1, NUL,] name, NUL */
	DK_OP_FORK = 17,      /* pid = parent, offset = child pid, length = uid of the child; payload = comm */
	DK_OP_EXEC = 18,      /* length = uid; payload = comm, NUL, then argv joined by NUL (cut at 4 KiB) */
	DK_OP_EXIT = 19,      /* offset = wait status (as waitpid reports it) */
	DK_OP_MARK = 20,      /* payload = name of the mark */
	DK_OP_DIRTY = 21,     /* `length` bytes at `offset` of inode 0 changed, no user buffer; FILL follows. payload: none. DK_F_TRUNC: its size counts */
	DK_OP_ZERO = 22,      /* `length` bytes at `offset` of inode 0 are zeroes, and within its size */
	DK_OP_FLAGS = 23,     /* offset = the flags of chattr(1) that inode 0 has now (FS_*_FL of linux/fs.h); PATH form: payload = path 1 */
	DK_OP_CHROOT = 24,    /* inode 0 is "/" to the process and its children from now on */

	/* from here on: made in user space */
	DK_OP_BEGIN = 32,     /* the command starts: time is the trace's zero; offset = CLOCK_REALTIME at that time; pid = command */
	DK_OP_END = 33,       /* the command ended: offset = wait status */
	DK_OP_SNAPSHOT = 34,  /* what stands at absolute path, before the command or since it got a name that is recorded: payload = path, NUL, symlink target or first path of a hard link (DK_F_LINK), NUL, then xattrs (msgpack map) or nothing; offset = handle; inode 0 = attributes from stat() (identity not the kernel's) */
	DK_OP_CONTENT = 35,   /* payload at `offset` of the file that SNAPSHOT or HEAL gave the handle `length` */
	DK_OP_FILL = 36,      /* payload at `offset`, re-read for the DIRTY of this time and tid; no payload: `length` zeroes */
	DK_OP_GAP = 37,       /* something was missed: offset = how many events (0: not known), payload = cause */
	DK_OP_HEAL = 38,      /* like SNAPSHOT, found after the command: the recorded tree was wrong here; DK_F_GONE: nothing stands at path; length = in what it was wrong (enum dk_wrong); offset = 0: not in what it holds */
	DK_OP_SETTLE = 39,    /* payload = "key=value" fact about the finished recording (verified paths, tracepoints missing, ...) */
	DK_OP_SAME = 40,      /* the file that SNAPSHOT gave the handle `length` has the content that it had at path `payload` before the recording in TRACE/earlier */
	DK_OP_MOUNTS = 41,    /* the mounts that the recorder sees from now on: for each s_dev in decimal, the path within that filesystem, where it is mounted, and what kind it is of, each closed by a NUL */
};

enum dk_flag {
	DK_F_PATH = 1,     /* the path form of a call, see above */
	DK_F_CONT = 2,     /* WRITE: a later piece of the same call */
	DK_F_CREATED = 4,  /* OPEN: this call made the file */
	DK_F_TRUNC = 8,    /* OPEN: this call cut it to nothing; DIRTY: the file is as long as the inode says; UTIME: the size is told as well */
	DK_F_GONE = 16,    /* BIND: unlinked; HEAL: nothing there */
	DK_F_NOFOLLOW = 32,/* PATH form: a symlink in the last place is meant itself */
	DK_F_LINK = 64,    /* SNAPSHOT: another name of a file already given */
	DK_F_APART = 64,   /* BIND, PATH form: of a process with mounts of its own */
	DK_F_INEXACT = 128,/* the bytes could not be read at the call: zeroes here; or were read later (FILL, SNAPSHOT) */
};

enum dk_wrong {
	DK_W_NAME = 1,     /* there was nothing, or something and nothing should be */
	DK_W_KIND = 2,
	DK_W_MODE = 4,
	DK_W_OWNER = 8,
	DK_W_TIMES = 16,
	DK_W_TARGET = 32,  /* of a symlink */
	DK_W_XATTRS = 64,
	DK_W_CONTENT = 128,
	DK_W_OTHERS = 256, /* and nothing that was recorded touched it: it was somebody else */
};

#define DK_TIME_NOW (-1LL)
#define DK_TIME_OMIT (-2LL)

#endif
