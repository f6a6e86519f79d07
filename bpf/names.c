/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Calls that make, move and remove names, and path forms of attribute calls: strings, where they start, stamps. */

#define NR_OPEN 2
#define NR_RENAME 82
#define NR_MKDIR 83
#define NR_RMDIR 84
#define NR_CREAT 85
#define NR_LINK 86
#define NR_UNLINK 87
#define NR_SYMLINK 88
#define NR_CHMOD 90
#define NR_CHOWN 92
#define NR_LCHOWN 94
#define NR_TRUNCATE 76
#define NR_UTIME 132
#define NR_MKNOD 133
#define NR_UTIMES 235
#define NR_OPENAT 257
#define NR_MKDIRAT 258
#define NR_MKNODAT 259
#define NR_FCHOWNAT 260
#define NR_FUTIMESAT 261
#define NR_UNLINKAT 263
#define NR_RENAMEAT 264
#define NR_LINKAT 265
#define NR_SYMLINKAT 266
#define NR_FCHMODAT 268
#define NR_UTIMENSAT 280
#define NR_RENAMEAT2 316
#define NR_OPENAT2 437
#define NR_FCHMODAT2 452
#define AT_SYMLINK_NOFOLLOW_ 0x100
#define AT_REMOVEDIR_ 0x200
#define AT_EMPTY_PATH_ 0x1000
#define FMODE_CREATED_ 0x100000
#define O_TRUNC_ 01000
#define O_PATH_ 010000000

/* Where a user path starts: descriptor, working directory or root. Says 0 when there is nothing to stand on. */
static inline int base_of(int dirfd, u64 user_path, struct dk_inode *out, char **dentry, char **mnt, char **inode)
{
	char first = 0;
	bpf_probe_read_user(&first, 1, (void *)user_path);
	char *path;
	char *fs = rdp((char *)bpf_get_current_task() + TASK_FS);
	if (first == '/') {
		path = fs + FS_ROOT;
	} else if (dirfd == AT_FDCWD_) {
		path = fs + FS_PWD;
	} else {
		char *file = file_of(dirfd);
		if (!file)
			return 0;
		path = file + FILE_PATH;
	}
	*dentry = rdp(path + PATH_DENTRY);
	*mnt = rdp(path + PATH_MNT);
	*inode = rdp(*dentry + DENTRY_INODE);
	if (!*inode)
		return 0;
	read_inode(out, *inode);
	return 1;
}

/* What a path call asks for, spelt the same way for all its forms. */
struct dk_call {
	u64 path1, path2, offset, length;
	int dirfd1, dirfd2;
	u16 op;
	u8 flags, bases;
};

/* Adds a user string to the payload; says where the payload ends now. */
static inline u32 add_string(struct dk_scratch *s, u32 at, u64 from)
{
	at &= 32767;
	int n = bpf_probe_read_user_str(s->body + at, PATH_MAX_, (void *)from);
	if (n <= 0) {
		s->ev.flags |= DK_F_INEXACT;
		s->body[at] = 0;
		n = 1;
	}
	return at + (n & (2 * PATH_MAX_ - 1));
}

/* Send a path call whose form is `c`. Returns 1 when the caller must tail-call the bind helper first. */
static inline int send_path_call(struct dk_scratch *s, struct dk_call *c)
{
	struct dk_inode *slots = (struct dk_inode *)s->body;
	char *dentry = 0, *mnt = 0, *raw = 0;
	if (!base_of(c->dirfd1, c->path1, &slots[0], &dentry, &mnt, &raw))
		return 0;
	if (!is_seen(&slots[0], dentry, mnt, raw))
		return 1;
	if (c->bases == 2) {
		if (!base_of(c->dirfd2, c->path2, &slots[1], &dentry, &mnt, &raw))
			return 0;
		if (!is_seen(&slots[1], dentry, mnt, raw))
			return 1;
		begin(s, c->op, DK_F_PATH | c->flags, 2 + DK_SLOTS);
		take_stamps(s, &slots[2]);
	} else {
		begin(s, c->op, DK_F_PATH | c->flags, 1 + DK_SLOTS);
		take_stamps(s, &slots[1]);
	}
	u32 start = (c->bases + DK_SLOTS) * sizeof(struct dk_inode);
	u32 at = start;
	s->ev.offset = c->offset;
	s->ev.length = c->length;
	at = add_string(s, at, c->path1);
	if (c->op == DK_OP_MKDIR || c->op == DK_OP_MKNOD || c->op == DK_OP_SYMLINK) {
		u32 end = 0;
		bpf_probe_read_kernel(&end, 3, s->body + ((at - 4) & 32767));
		stamp_child(s, &slots[1], &slots[1 + DK_STAMPS], end);
	}
	if (c->path2)
		at = add_string(s, at, c->path2);
	s->ev.size = at - start;
	send(s, (sizeof(struct dk_event) + at) & 32767);
	return 0;
}

#define NR_SETXATTR 188
#define NR_LSETXATTR 189
#define NR_FSETXATTR 190
#define NR_REMOVEXATTR 197
#define NR_LREMOVEXATTR 198
#define NR_FREMOVEXATTR 199
#define XATTR_MAX 65536u

/* Extended attributes, ACLs among them (which change the mode as well). */
HANDLER(on_xattr)
{
	if ((s64)ctx->args[1] < 0)
		return 0;
	struct dk_scratch *s = enter(ctx);
	if (!s)
		return 0;
	struct pt_regs *regs = &s->regs;
	u64 nr = regs->orig_ax;
	int sets = nr <= NR_FSETXATTR, by_fd = nr == NR_FSETXATTR || nr == NR_FREMOVEXATTR;
	struct dk_inode *slots = (struct dk_inode *)s->body;
	char *dentry = 0, *mnt = 0, *raw = 0;
	u32 start;
	if (by_fd && !known_file(ctx, s, regs->di, ON_DISK))
		return 0;
	if (!by_fd) {
		if (!base_of(AT_FDCWD_, regs->di, slots, &dentry, &mnt, &raw))
			return 0;
		if (!is_seen(slots, dentry, mnt, raw)) {
			helpers.call(ctx, HELPER_BIND);
			return 0;
		}
	}
	u16 op = sets ? DK_OP_SETXATTR : DK_OP_REMOVEXATTR;
	if (by_fd) {
		begin(s, op, 0, 1);
		drop_stamps();
		s->piece.offset = sizeof(struct dk_inode);
	} else {
		u8 follows = nr == NR_SETXATTR || nr == NR_REMOVEXATTR;
		begin(s, op, follows ? DK_F_PATH : DK_F_PATH | DK_F_NOFOLLOW, 1 + DK_SLOTS);
		take_stamps(s, &slots[1]);
		s->piece.offset = (1 + DK_SLOTS) * sizeof(struct dk_inode);
		s->piece.offset = add_string(s, s->piece.offset, regs->di);
	}
	start = by_fd ? sizeof(struct dk_inode) : (1 + DK_SLOTS) * sizeof(struct dk_inode);
	u32 at = add_string(s, s->piece.offset, regs->si);
	u32 size = sets ? regs->r10 : 0;
	if (size > XATTR_MAX)
		size = XATTR_MAX;
	asm volatile("" : "+r"(size), "+r"(at)); /* or the compiler moves the masks to where the verifier loses them */
	size &= 2 * XATTR_MAX - 1;
	at &= 32767;
	if (size && bpf_probe_read_user(s->body + at, size, (void *)regs->dx)) {
		s->ev.flags |= DK_F_INEXACT;
		count(DK_C_UNREAD, 1);
	}
	s->ev.length = size;
	s->ev.size = at + size - start;
	send(s, (sizeof(struct dk_event) + at + size) & (PIECE - 1));
	return 0;
}

HANDLER(on_name)
{
	if ((s64)ctx->args[1] < 0)
		return 0;
	struct dk_scratch *s = enter(ctx);
	if (!s)
		return 0;
	struct pt_regs *regs = &s->regs;
	u64 nr = regs->orig_ax;
	struct dk_call c = {.dirfd1 = AT_FDCWD_, .dirfd2 = AT_FDCWD_, .bases = 1};
	if (nr == NR_MKDIR || nr == NR_MKDIRAT) {
		c.op = DK_OP_MKDIR;
		c.path1 = nr == NR_MKDIR ? regs->di : regs->si;
		c.offset = nr == NR_MKDIR ? regs->si : regs->dx;
		c.dirfd1 = nr == NR_MKDIR ? AT_FDCWD_ : (int)regs->di;
	} else if (nr == NR_UNLINK || nr == NR_RMDIR) {
		c.op = nr == NR_UNLINK ? DK_OP_UNLINK : DK_OP_RMDIR;
		c.path1 = regs->di;
	} else if (nr == NR_UNLINKAT) {
		c.op = regs->dx & AT_REMOVEDIR_ ? DK_OP_RMDIR : DK_OP_UNLINK;
		c.dirfd1 = regs->di;
		c.path1 = regs->si;
	} else if (nr == NR_MKNOD || nr == NR_MKNODAT) {
		c.op = DK_OP_MKNOD;
		c.path1 = nr == NR_MKNOD ? regs->di : regs->si;
		c.offset = nr == NR_MKNOD ? regs->si : regs->dx;
		c.length = nr == NR_MKNOD ? regs->dx : regs->r10;
		c.dirfd1 = nr == NR_MKNOD ? AT_FDCWD_ : (int)regs->di;
	} else if (nr == NR_SYMLINK) {
		c.op = DK_OP_SYMLINK;
		c.path1 = regs->si;
		c.path2 = regs->di;
	} else if (nr == NR_SYMLINKAT) {
		c.op = DK_OP_SYMLINK;
		c.path1 = regs->dx;
		c.path2 = regs->di;
		c.dirfd1 = regs->si;
	} else {
		c.op = nr == NR_LINK || nr == NR_LINKAT ? DK_OP_LINK : DK_OP_RENAME;
		c.bases = 2;
		if (nr == NR_LINK || nr == NR_RENAME) {
			c.path1 = regs->di;
			c.path2 = regs->si;
		} else {
			c.dirfd1 = regs->di;
			c.path1 = regs->si;
			c.dirfd2 = regs->dx;
			c.path2 = regs->r10;
			c.offset = nr == NR_RENAMEAT ? 0 : (u32)regs->r8;
		}
	}
	if (send_path_call(s, &c))
		helpers.call(ctx, HELPER_BIND);
	return 0;
}

/* utimes arguments, in user memory, to nanoseconds; 0 pointer: now. */
static inline u64 times_argument(u64 nr, u64 user)
{
	s64 t[4] = {};
	if (!user)
		return DK_TIME_NOW;
	if (nr == NR_UTIME) {
		bpf_probe_read_user(t, 16, (void *)user);
		return t[1] * 1000000000LL;
	}
	bpf_probe_read_user(t, 32, (void *)user);
	if (nr != NR_UTIMENSAT)
		return t[2] * 1000000000LL + t[3] * 1000;
	if (t[3] == 0x3fffffff)
		return DK_TIME_NOW;
	if (t[3] == 0x3ffffffe)
		return DK_TIME_OMIT;
	return t[2] * 1000000000LL + t[3];
}

/* Attribute calls by path: chmod, chown, utimes, truncate and their *at forms. */
HANDLER(on_path_attribute)
{
	if ((s64)ctx->args[1] < 0)
		return 0;
	struct dk_scratch *s = enter(ctx);
	if (!s)
		return 0;
	struct pt_regs *regs = &s->regs;
	u64 nr = regs->orig_ax, at_flags = 0;
	struct dk_call c = {.dirfd1 = AT_FDCWD_, .bases = 1};
	if (nr == NR_TRUNCATE) {
		c.op = DK_OP_TRUNCATE;
		c.path1 = regs->di;
		c.offset = regs->si;
	} else if (nr == NR_CHMOD) {
		c.op = DK_OP_CHMOD;
		c.path1 = regs->di;
		c.offset = regs->si & 07777;
	} else if (nr == NR_FCHMODAT || nr == NR_FCHMODAT2) {
		c.op = DK_OP_CHMOD;
		c.dirfd1 = regs->di;
		c.path1 = regs->si;
		c.offset = regs->dx & 07777;
		if (nr == NR_FCHMODAT2)
			at_flags = regs->r10;
	} else if (nr == NR_CHOWN || nr == NR_LCHOWN) {
		c.op = DK_OP_CHOWN;
		c.path1 = regs->di;
		c.offset = (u32)regs->si;
		c.length = (u32)regs->dx;
		if (nr == NR_LCHOWN)
			at_flags = AT_SYMLINK_NOFOLLOW_;
	} else if (nr == NR_FCHOWNAT) {
		c.op = DK_OP_CHOWN;
		c.dirfd1 = regs->di;
		c.path1 = regs->si;
		c.offset = (u32)regs->dx;
		c.length = (u32)regs->r10;
		at_flags = regs->r8;
	} else {
		c.op = DK_OP_UTIME;
		if (nr == NR_UTIME || nr == NR_UTIMES) {
			c.path1 = regs->di;
			c.length = times_argument(nr, regs->si);
		} else {
			c.dirfd1 = regs->di;
			c.path1 = regs->si;
			c.length = times_argument(nr, regs->dx);
			at_flags = nr == NR_UTIMENSAT ? regs->r10 : 0;
		}
	}
	char first = 1;
	if (c.path1)
		bpf_probe_read_user(&first, 1, (void *)c.path1);
	if (!c.path1 || (!first && (at_flags & AT_EMPTY_PATH_))) { /* the descriptor itself is meant */
		if (!known_file(ctx, s, c.dirfd1, ON_DISK))
			return 0;
		begin(s, c.op, 0, 1);
		s->ev.offset = c.offset;
		s->ev.length = c.length;
		drop_stamps();
		send(s, sizeof(struct dk_event) + sizeof(struct dk_inode));
		return 0;
	}
	c.flags = at_flags & AT_SYMLINK_NOFOLLOW_ ? DK_F_NOFOLLOW : 0;
	if (send_path_call(s, &c))
		helpers.call(ctx, HELPER_BIND);
	return 0;
}
