/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Calls that end with a descriptor, or have one: open and creation, marks, ftruncate, fchmod, fchown, xattrs. */

#define NR_FTRUNCATE 77
#define NR_FCHMOD 91
#define NR_FCHOWN 93

#define O_TMPFILE_ 020000000

#define MARK_PREFIX_LEN 18
#define MARK_MAX 256

/* A mark is a failing open of /.diffkeeper/mark/NAME: any language can set one with one call. */
static inline void send_mark(struct dk_scratch *s, u64 path)
{
	char *text = s->body;
	int n = read_user_str(text, MARK_MAX, (void *)path);
	if (n <= MARK_PREFIX_LEN + 1)
		return;
	#pragma unroll
	for (int i = 0; i < MARK_PREFIX_LEN; i++)
		if (text[i] != "/.diffkeeper/mark/"[i])
			return;
	if (control_value(DK_C_MAPPED)) /* whoever has it mapped: a mark is of all that was done by then */
		ask_for_sync(s, DK_R_SYNC, 1);
	begin(s, DK_OP_MARK, 0, 0);
	u32 size = (n - 1 - MARK_PREFIX_LEN) & (MARK_MAX - 1);
	read_user(s->body, size, (void *)(path + MARK_PREFIX_LEN));
	s->ev.size = size;
	send(s, sizeof(struct dk_event) + size);
}

/*
 * The directory that the file in inode 0 was made in, as inode 1, known to user space. Says 0 when there is nothing (more)
 * to do, as `known` does.
 */
static inline int known_parent(struct bpf_raw_tracepoint_args *ctx, struct dk_scratch *s, char *dentry, char *mnt)
{
	struct dk_inode *slots = (struct dk_inode *)s->body;
	char *parent = rdp(dentry + DENTRY_PARENT), *inode = rdp(parent + DENTRY_INODE);
	read_inode(&slots[1], inode);
	if (judges() && is_left_out_with(slots, &slots[1]))
		return 0;
	if (is_place_seen(s, &slots[1], parent, mnt, inode))
		return 1;
	go_on(ctx, HELPER_BIND);
	return 0;
}

/* The last name of a new file, behind the two inodes; says how long it is. */
static inline u32 add_name(struct dk_scratch *s, char *dentry)
{
	int n = bpf_probe_read_kernel_str(s->body + 2 * sizeof(struct dk_inode), 256, rdp(dentry + DENTRY_NAME));
	return n > 1 ? (n - 1) & 255 : 0;
}

/* `fd` was opened with `flags`: that is of interest when the call made the file or cut it to nothing. */
static inline void send_open(struct bpf_raw_tracepoint_args *ctx, struct dk_scratch *s, int fd, u64 flags)
{
	char *file = file_of(fd);
	if (!file)
		return;
	u32 created = (rd32(file + FILE_MODE) & FMODE_CREATED_) || (flags & O_TMPFILE_);
	u32 truncated = (flags & O_TRUNC_) && !(flags & O_PATH_);
	if (!created && !truncated)
		return;
	u64 key = (u64)file;
	positions.delete(&key);
	struct dk_inode *slots = (struct dk_inode *)s->body;
	char *raw = rdp(file + FILE_INODE), *dentry = rdp(file + FILE_PATH + PATH_DENTRY), *mnt = rdp(file + FILE_PATH + PATH_MNT);
	read_inode(slots, raw);
	if ((slots->mode & S_IFMT) != S_IFREG || skipped_devs.lookup(&slots->dev))
		return;
	if (!created) {
		if (!known_file(ctx, s, fd, REGULAR))
			return;
		note_change(s, WHOLE_FILE);
		begin(s, DK_OP_OPEN, DK_F_TRUNC, 1);
		drop_stamps();
		send(s, sizeof(struct dk_event) + sizeof(struct dk_inode));
		return;
	}
	if (!known_parent(ctx, s, dentry, mnt))
		return;
	begin(s, DK_OP_OPEN, DK_F_CREATED | (truncated ? DK_F_TRUNC : 0), 2);
	u32 size = is_unlinked(dentry) ? 0 : add_name(s, dentry); /* O_TMPFILE makes a file without a name */
	s->ev.size = size;
	if (judges())
		forget(slots); /* its verdict is asked for when it is used */
	else
		key_of(&s->last, slots); /* most are used at once or never; the others are bound by then */
	drop_stamps();
	send(s, sizeof(struct dk_event) + 2 * sizeof(struct dk_inode) + size);
}

HANDLER(on_open)
{
	s64 fd = ctx->args[1];
	struct dk_scratch *s = enter(ctx);
	if (!s)
		return 0;
	struct pt_regs *regs = &s->regs;
	u64 nr = regs->orig_ax;
	u64 path = nr == NR_OPEN || nr == NR_CREAT ? regs->di : regs->si;
	if (fd < 0) {
		if (fd == -2 /* ENOENT */ || fd == -20 /* ENOTDIR */ || fd == -13 /* EACCES */ || fd == -30 /* EROFS */)
			send_mark(s, path);
		return 0;
	}
	u64 flags = nr == NR_OPEN ? regs->si : nr == NR_CREAT ? O_TRUNC_ : regs->dx;
	if (nr == NR_OPENAT2)
		read_user(&flags, sizeof(flags), (void *)regs->dx);
	send_open(ctx, s, fd, flags);
	return 0;
}

/* ftruncate, fchmod, fchown: the inode says what came of it. */
HANDLER(on_fd_attribute)
{
	if ((s64)ctx->args[1] < 0)
		return 0;
	struct dk_scratch *s = enter(ctx);
	if (!s)
		return 0;
	struct pt_regs *regs = &s->regs;
	if (!known_file(ctx, s, regs->di, ON_DISK))
		return 0;
	u64 nr = regs->orig_ax;
	if (nr == NR_FTRUNCATE)
		note_change(s, WHOLE_FILE);
	begin(s, nr == NR_FTRUNCATE ? DK_OP_TRUNCATE : nr == NR_FCHMOD ? DK_OP_CHMOD : DK_OP_CHOWN, 0, 1);
	s->ev.offset = nr == NR_FCHMOD ? regs->si & 07777 : regs->si;
	s->ev.length = nr == NR_FCHOWN ? (u32)regs->dx : 0;
	drop_stamps();
	send(s, sizeof(struct dk_event) + sizeof(struct dk_inode));
	return 0;
}
