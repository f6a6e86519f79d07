/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Path forms of attribute calls (chmod, chown, utimes, truncate), and extended attributes in all forms. */

/* utimes arguments, in user memory, to nanoseconds; 0 pointer: now. */
static inline u64 times_argument(u64 nr, u64 user)
{
	s64 t[4] = {};
	if (!user)
		return DK_TIME_NOW;
	if (nr == NR_UTIME) {
		read_user(t, 16, (void *)user);
		return t[1] * 1000000000LL;
	}
	read_user(t, 32, (void *)user);
	if (nr != NR_UTIMENSAT)
		return t[2] * 1000000000LL + t[3] * 1000;
	if (t[3] == 0x3fffffff)
		return DK_TIME_NOW;
	if (t[3] == 0x3ffffffe)
		return DK_TIME_OMIT;
	return t[2] * 1000000000LL + t[3];
}

/* Attribute calls by path: chmod, chown, utimes, truncate and their *at forms, and file_setattr. */
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
		count(DK_C_CUTS, 1);
		c.path1 = regs->di;
		c.offset = regs->si;
		c.length = uid_of((char *)bpf_get_current_task()) | (u64)group_of((char *)bpf_get_current_task()) << 32;
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
	} else if (nr == NR_FILE_SETATTR) {
		u32 flags = 0;
		read_user(&flags, sizeof(flags), (void *)regs->dx);
		c.op = DK_OP_FLAGS;
		c.dirfd1 = regs->di;
		c.path1 = regs->si;
		c.offset = flags_of(flags);
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
		read_user(&first, 1, (void *)c.path1);
	int by_fd = !c.path1 || (!first && (at_flags & AT_EMPTY_PATH_)); /* the descriptor itself is meant */
	if (by_fd || is_apart()) {
		if (by_fd ? !known_file(ctx, s, c.dirfd1, ON_DISK) : !known_touched(ctx, s))
			return 0;
		if (c.op == DK_OP_TRUNCATE && ((struct dk_inode *)s->body)->size != c.offset)
			return 0; /* it touched nothing, and this is of a call before */
		begin(s, c.op, 0, 1);
		s->ev.offset = c.offset;
		s->ev.length = c.length;
		drop_stamps();
		send(s, sizeof(struct dk_event) + sizeof(struct dk_inode));
		return 0;
	}
	c.flags = at_flags & AT_SYMLINK_NOFOLLOW_ ? DK_F_NOFOLLOW : 0;
	find_start(&c.path1, &c.dirfd1);
	if (send_path_call(ctx, s, &c))
		go_on(ctx, HELPER_BIND);
	return 0;
}

#define NR_SETXATTR 188
#define NR_FSETXATTR 190
#define NR_REMOVEXATTR 197
#define NR_FREMOVEXATTR 199
#define NR_SETXATTRAT 463
#define NR_REMOVEXATTRAT 466
#define XATTR_MAX 65536u

/* As struct xattr_args of linux/xattr.h. */
struct dk_xattr_args {
	u64 value;
	u32 size;
	u32 flags;
};

static inline void xattr_call(struct dk_xattr_call *c, struct pt_regs *regs)
{
	u64 nr = regs->orig_ax;
	int at = nr == NR_SETXATTRAT || nr == NR_REMOVEXATTRAT;
	c->sets = nr <= NR_FSETXATTR || nr == NR_SETXATTRAT;
	c->by_fd = nr == NR_FSETXATTR || nr == NR_FREMOVEXATTR;
	c->follows = at ? !(regs->dx & AT_SYMLINK_NOFOLLOW_) : nr == NR_SETXATTR || nr == NR_REMOVEXATTR;
	c->fd = at || c->by_fd ? (int)regs->di : AT_FDCWD_;
	c->path = at ? regs->si : regs->di;
	c->name = at ? regs->r10 : regs->si;
	if (at) {
		struct dk_xattr_args args = {};
		char first = 1;
		if (c->sets)
			read_user(&args, sizeof(args), (void *)regs->r8);
		c->value = args.value;
		c->size = args.size;
		if (c->path)
			read_user(&first, 1, (void *)c->path);
		c->by_fd = !c->path || (!first && (regs->dx & AT_EMPTY_PATH_));
	} else if (c->sets) {
		c->value = regs->dx;
		c->size = regs->r10;
	}
}

/* Extended attributes, ACLs among them (which change the mode as well). */
HANDLER(on_xattr)
{
	if ((s64)ctx->args[1] < 0)
		return 0;
	struct dk_scratch *s = enter(ctx);
	if (!s)
		return 0;
	struct dk_xattr_call c = {};
	xattr_call(&c, &s->regs);
	if (c.by_fd && !known_file(ctx, s, c.fd, ON_DISK))
		return 0;
	if (!c.by_fd && is_apart()) {
		c.by_fd = 1;
		if (!known_touched(ctx, s))
			return 0;
	}
	if (!c.by_fd) {
		find_start(&c.path, &c.fd);
		if (!is_start_known(ctx, s, c.fd))
			return 0;
	}
	s->xattr = c;
	go_on(ctx, HELPER_XATTR);
	return 0;
}

/* The call in scratch, on the file in inode 0, or on a path that starts there. */
HANDLER(send_xattr)
{
	struct dk_scratch *s = get_scratch();
	if (!s)
		return 0;
	struct dk_xattr_call *c = &s->xattr;
	struct dk_inode *slots = (struct dk_inode *)s->body;
	u16 op = c->sets ? DK_OP_SETXATTR : DK_OP_REMOVEXATTR;
	if (c->by_fd) {
		begin(s, op, 0, 1);
		drop_stamps();
		s->piece.offset = sizeof(struct dk_inode);
	} else {
		take_stamps(s, &slots[1]);
		begin(s, op, c->follows ? DK_F_PATH : DK_F_PATH | DK_F_NOFOLLOW, 1 + s->stamps);
		s->piece.offset = s->ev.inodes * sizeof(struct dk_inode);
		s->piece.offset = add_string(s, s->piece.offset, c->path, c->saved);
	}
	u32 start = s->ev.inodes * sizeof(struct dk_inode);
	u32 at = add_string(s, s->piece.offset, c->name, c->saved);
	u32 size = c->size;
	if (size > XATTR_MAX)
		size = XATTR_MAX;
	asm volatile("" : "+r"(size), "+r"(at)); /* or the compiler moves the masks to where the verifier loses them */
	size &= 2 * XATTR_MAX - 1;
	at &= 32767;
	if (size && (c->saved ? bpf_probe_read_kernel(s->body + at, size, (void *)c->value)
			      : read_user(s->body + at, size, (void *)c->value))) {
		s->ev.flags |= DK_F_INEXACT;
		count(DK_C_UNREAD, 1);
	}
	s->ev.length = size;
	s->ev.size = at + size - start;
	size = (sizeof(struct dk_event) + at + size) & (PIECE - 1);
	if (c->by_fd)
		send(s, size);
	else
		send_judged(ctx, s, size);
	return 0;
}
