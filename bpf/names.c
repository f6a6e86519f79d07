/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Calls that make, move and remove names; and what calls with paths have in common: strings, where they start, stamps. */

#define NR_OPEN 2
#define NR_BIND 49
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
#define NR_UNLINKAT 263
#define NR_RENAMEAT 264
#define NR_LINKAT 265
#define NR_SYMLINKAT 266
#define NR_FCHMODAT 268
#define NR_UTIMENSAT 280
#define NR_RENAMEAT2 316
#define NR_OPEN_BY_HANDLE_AT 304
#define NR_OPENAT2 437
#define NR_FCHMODAT2 452
#define NR_FILE_SETATTR 469
#define AT_SYMLINK_NOFOLLOW_ 0x100
#define AT_REMOVEDIR_ 0x200
#define AT_EMPTY_PATH_ 0x1000
#define FMODE_CREATED_ 0x100000
#define O_CREAT_ 0100
#define O_TRUNC_ 01000
#define O_PATH_ 010000000
#define RENAME_EXCHANGE_ 2
#define RENAME_WHITEOUT_ 4
#define AF_UNIX_ 1
#define S_IFSOCK_ 0140000

#define FROM_ROOT (-101) /* in place of a descriptor, as AT_FDCWD is */

/* Where a path starts: descriptor, working directory or root. Says 0 when there is nothing to stand on. */
static inline int base_of(int dirfd, struct dk_inode *out, char **dentry, char **mnt, char **inode)
{
	char *path;
	char *fs = rdp((char *)bpf_get_current_task() + TASK_FS);
	if (dirfd == FROM_ROOT) {
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

/* Whether the directory that a path starts from is known to user space, now inode 0; if not, the handler begins anew. */
static inline int is_start_known(struct bpf_raw_tracepoint_args *ctx, struct dk_scratch *s, int dirfd)
{
	struct dk_inode *inode = (struct dk_inode *)s->body;
	char *dentry = 0, *mnt = 0, *raw = 0;
	if (!base_of(dirfd, inode, &dentry, &mnt, &raw))
		return 0;
	if (is_place_seen(s, inode, dentry, mnt, raw))
		return 1;
	go_on(ctx, HELPER_BIND);
	return 0;
}

#define DESCRIPTOR_PREFIX 14
#define DIGITS 6
/*
 * An absolute path starts from the root, whatever descriptor comes with it. But /proc/self/fd/N is how programs name a
 * descriptor where no call takes one: the path then starts from that descriptor.
 */
static inline void find_start(u64 *path, int *dirfd)
{
	char head[DESCRIPTOR_PREFIX + DIGITS + 2] = {};
	int n = read_user_str(head, sizeof(head), (void *)*path);
	if (head[0] != '/')
		return;
	*dirfd = FROM_ROOT;
	if (n <= DESCRIPTOR_PREFIX)
		return;
	#pragma unroll
	for (int i = 0; i < DESCRIPTOR_PREFIX; i++)
		if (head[i] != "/proc/self/fd/"[i])
			return;
	u32 number = 0, length = 0;
	char next = 0;
	#pragma unroll
	for (int i = 0; i <= DIGITS; i++) {
		char digit = head[DESCRIPTOR_PREFIX + i];
		if (length != i)
			continue;
		next = digit;
		if (digit >= '0' && digit <= '9') {
			number = number * 10 + digit - '0';
			length++;
		}
	}
	if (!length || length > DIGITS || (next && next != '/'))
		return;
	*path += DESCRIPTOR_PREFIX + length + (next == '/');
	*dirfd = number;
}

/* Adds a string to the payload, the user's or one that was saved; says where the payload ends now. */
static inline u32 add_string(struct dk_scratch *s, u32 at, u64 from, u8 saved)
{
	at &= 32767;
	int n = saved ? bpf_probe_read_kernel_str(s->body + at, PATH_MAX_, (void *)from)
		      : read_user_str(s->body + at, PATH_MAX_, (void *)from);
	if (n <= 0) {
		s->ev.flags |= DK_F_INEXACT;
		s->body[at] = 0;
		n = 1;
	}
	return at + (n & (2 * PATH_MAX_ - 1));
}

#define SLASHES 4
/* The last three bytes, slashes left out, of the path that ends before `at`. */
static inline u32 name_end(struct dk_scratch *s, u32 at)
{
	u32 end = 0;
	for (int i = 0; i <= SLASHES; i++) {
		bpf_probe_read_kernel(&end, 3, s->body + ((at - 4) & 32767));
		if (end >> 16 != '/')
			break;
		at--;
	}
	return end;
}

/* The record of a path call, of `size` bytes: it is sent, or left out. The last thing that a handler does. */
static inline void send_judged(struct bpf_raw_tracepoint_args *ctx, struct dk_scratch *s, u32 size)
{
	s->record = size;
	if (judges())
		programs.call(ctx, HELPER_JUDGE);
	send(s, size & (PIECE - 1));
}

/* Where the record of MKDIR, MKNOD and SYMLINK has what was made. */
static inline struct dk_inode *made(struct dk_scratch *s)
{
	return (struct dk_inode *)s->body + 1 + (s->stamps & (2 * DK_STAMPS - 1));
}

/* Send a path call whose form is `c`. Returns 1 when the caller must tail-call the bind helper first. */
static inline int send_path_call(struct bpf_raw_tracepoint_args *ctx, struct dk_scratch *s, struct dk_call *c)
{
	struct dk_inode *slots = (struct dk_inode *)s->body;
	char *dentry = 0, *mnt = 0, *raw = 0;
	if (!base_of(c->dirfd1, &slots[0], &dentry, &mnt, &raw))
		return 0;
	if (!is_place_seen(s, &slots[0], dentry, mnt, raw))
		return 1;
	if (c->bases == 2) {
		if (!base_of(c->dirfd2, &slots[1], &dentry, &mnt, &raw))
			return 0;
		if (!is_place_seen(s, &slots[1], dentry, mnt, raw))
			return 1;
		take_stamps(s, &slots[2]);
	} else {
		take_stamps(s, &slots[1]);
	}
	int makes = c->op == DK_OP_MKDIR || c->op == DK_OP_MKNOD || c->op == DK_OP_SYMLINK;
	u32 inodes = c->bases + (s->stamps & (2 * DK_STAMPS - 1)) + makes;
	begin(s, c->op, DK_F_PATH | c->flags, inodes);
	u32 start = inodes * sizeof(struct dk_inode), at = start;
	s->ev.offset = c->offset;
	s->ev.length = c->length;
	at = add_string(s, at, c->path1, c->saved);
	if (c->limit && at - start > c->limit + 1) {
		at = start + (c->limit & 127);
		s->body[at & 32767] = 0;
		at++;
	}
	if (makes)
		begin_looking(s, &slots[1], made(s), name_end(s, at), slots[0].dev);
	if (c->path2)
		at = add_string(s, at, c->path2, c->saved);
	s->ev.size = at - start;
	s->record = (sizeof(struct dk_event) + at) & 32767;
	if (makes)
		go_on(ctx, HELPER_MADE);
	send_judged(ctx, s, s->record);
	return 0;
}

HANDLER(on_name)
{
	struct dk_scratch *s = enter(ctx);
	if (!s)
		return 0;
	struct pt_regs *regs = &s->regs;
	u64 nr = regs->orig_ax;
	if ((s64)ctx->args[1] < 0) {
		if (nr != NR_RENAMEAT2 || !(regs->r8 & RENAME_WHITEOUT_))
			return 0;
		s->written = 0;
		go_on(ctx, HELPER_FAILED); /* the whiteout may have been made, and taken away again */
		return 0;
	}
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
	} else if (nr == NR_BIND) { /* of a Unix socket to a path: not to nothing, nor to an abstract name */
		u16 family = 0;
		char first = 0;
		c.limit = regs->dx - sizeof(family);
		read_user(&family, sizeof(family), (void *)regs->si);
		read_user(&first, 1, (void *)(regs->si + sizeof(family)));
		if (family != AF_UNIX_ || regs->dx <= sizeof(family) || !first)
			return 0;
		c.op = DK_OP_MKNOD;
		c.path1 = regs->si + sizeof(family);
		c.offset = S_IFSOCK_ | 0777;
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
	find_start(&c.path1, &c.dirfd1);
	if (c.bases == 2)
		find_start(&c.path2, &c.dirfd2);
	s->call = c;
	call_on_name(ctx);
	return 0;
}

/* The path call in scratch: shared by all who have one to send, as it takes the verifier long. */
HANDLER(send_name)
{
	struct dk_scratch *s = get_scratch();
	if (s && send_path_call(ctx, s, &s->call))
		go_on(ctx, HELPER_BIND);
	return 0;
}

/* The record of something made: what it is, is looked for first. */
HANDLER(send_made)
{
	struct dk_scratch *s = get_scratch();
	if (!s)
		return 0;
	if (look_for_child(s, (struct dk_inode *)s->body + 1, made(s)))
		go_on(ctx, HELPER_MADE);
	send_judged(ctx, s, s->record);
	return 0;
}

/* Where ".." ends from now on. Of a process apart, paths are told by what they led to. */
HANDLER(on_chroot)
{
	struct dk_scratch *s = (s64)ctx->args[1] < 0 || is_apart() ? 0 : enter(ctx);
	if (!s || !is_start_known(ctx, s, FROM_ROOT))
		return 0;
	begin(s, DK_OP_CHROOT, 0, 1);
	send(s, sizeof(struct dk_event) + sizeof(struct dk_inode));
	return 0;
}
