/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Calls that move and clear parts of a file without bytes of their own: fallocate, its older ioctls, and clones. */

#define FALLOC_KEEP_SIZE_ 0x01
#define FALLOC_PUNCH_HOLE_ 0x02
#define FALLOC_COLLAPSE_ 0x08
#define FALLOC_ZERO_RANGE_ 0x10
#define FALLOC_INSERT_ 0x20
#define FALLOC_UNSHARE_ 0x40
#define FALLOC_WRITE_ZEROES_ 0x80
#define FALLOC_CLEARS_ (FALLOC_PUNCH_HOLE_ | FALLOC_ZERO_RANGE_ | FALLOC_WRITE_ZEROES_)

#define FICLONE_ 0x40049409
#define FICLONERANGE_ 0x4020940D
#define FS_IOC_RESVSP_ 0x40305828
#define FS_IOC_UNRESVSP_ 0x40305829
#define FS_IOC_RESVSP64_ 0x4030582a
#define FS_IOC_UNRESVSP64_ 0x4030582b
#define FS_IOC_ZERO_RANGE_ 0x40305839
#define FS_IOC_SETFLAGS_ 0x40086602
#define FS_IOC_FSSETXATTR_ 0x401c5820
#define LOOP_SET_FD_ 0x4C00
#define LOOP_CHANGE_FD_ 0x4C06
#define LOOP_CONFIGURE_ 0x4C0A

/* Whether `on_ioctl` tells what it does. */
static inline int is_followed_ioctl(u32 request)
{
	return request == FICLONE_ || request == FICLONERANGE_ || request == FS_IOC_RESVSP_ || request == FS_IOC_UNRESVSP_ ||
	       request == FS_IOC_RESVSP64_ || request == FS_IOC_UNRESVSP64_ || request == FS_IOC_ZERO_RANGE_ ||
	       request == FS_IOC_SETFLAGS_ || request == FS_IOC_FSSETXATTR_;
}

struct dk_space { /* struct space_resv of linux/falloc.h, as far as it is read */
	s16 type, whence;
	s64 start, length;
};

/*
 * What fallocate(2) with this mode did to a file whose facts are inode 0. Only what moves bytes about is read again: what
 * it clears is known to be zeroes, and space alone shows in the size, if at all. Filesystems differ in which of them set
 * times, so there is a record in any case.
 */
static inline void change_space(
	struct bpf_raw_tracepoint_args *ctx, struct dk_scratch *s, char *file, int fd, u32 mode, u64 offset,
	u64 length)
{
	struct dk_inode *inode = (struct dk_inode *)s->body;
	u64 end = offset + length;
	note_change(s, WHOLE_FILE);
	if (mode & (FALLOC_COLLAPSE_ | FALLOC_INSERT_)) {
		dirty_with(ctx, s, file, fd, DK_F_TRUNC, offset, inode->size > offset ? inode->size - offset : 0);
		return;
	}
	if (mode & FALLOC_CLEARS_ && offset < inode->size) {
		begin(s, DK_OP_ZERO, 0, 1);
		s->ev.offset = offset;
		s->ev.length = (end < inode->size ? end : inode->size) - offset;
	} else if (!(mode & FALLOC_KEEP_SIZE_) && end == inode->size) {
		begin(s, DK_OP_TRUNCATE, 0, 1);
		s->ev.offset = end;
	} else {
		begin(s, DK_OP_UTIME, DK_F_TRUNC, 1);
		s->ev.offset = inode->size;
		s->ev.length = inode->mtime;
	}
	drop_stamps();
	send(s, sizeof(struct dk_event) + sizeof(struct dk_inode));
}

HANDLER(on_fallocate)
{
	struct dk_scratch *s = enter(ctx);
	if (!s)
		return 0;
	struct pt_regs *regs = &s->regs;
	if ((s64)ctx->args[1] < 0) {
		failed(ctx, s, regs->di); /* times are set before the range is looked at */
		return 0;
	}
	char *file = known_file(ctx, s, regs->di, REGULAR);
	if (file)
		change_space(ctx, s, file, regs->di, regs->si, regs->dx, regs->r10);
	return 0;
}

/* The flags of chattr(1) among FS_XFLAG_*, as far as both have a name for it. */
static inline u32 flags_of(u32 x)
{
	return (x & 0x8 ? 0x10 : 0) | (x & 0x10 ? 0x20 : 0) | (x & 0x20 ? 0x8 : 0) | (x & 0x40 ? 0x80 : 0) |
	       (x & 0x80 ? 0x40 : 0) | (x & 0x200 ? 0x20000000 : 0) | (x & 0x8000 ? 0x2000000 : 0);
}

/* chattr(1), and what filesystems of the XFS kind have beside it: the bits differ, and both calls name them all. */
static inline void send_flags(struct bpf_raw_tracepoint_args *ctx, struct dk_scratch *s, u32 request)
{
	u32 flags = 0;
	if (!known_file(ctx, s, s->regs.di, REGULAR | KIND(S_IFDIR)))
		return;
	read_user(&flags, sizeof(flags), (void *)s->regs.dx);
	if (request == FS_IOC_FSSETXATTR_)
		flags = flags_of(flags);
	begin(s, DK_OP_FLAGS, 0, 1);
	s->ev.offset = flags;
	drop_stamps();
	send(s, sizeof(struct dk_event) + sizeof(struct dk_inode));
}

struct dk_clone { /* struct file_clone_range of include/uapi/linux/fs.h */
	s64 fd;
	u64 offset;
	u64 length; /* 0: up to the end */
	u64 to;
};

/* A clone of what lies behind the end of its source succeeds and leaves all as it is. */
static inline int clones_nothing(struct pt_regs *regs, u32 request)
{
	struct dk_clone clone = {.fd = (int)regs->dx};
	if (request == FICLONERANGE_)
		read_user(&clone, sizeof(clone), (void *)regs->dx);
	char *source = file_of(clone.fd);
	return !clone.length && source && clone.offset >= LOAD(u64, (char *)rdp(source + FILE_INODE) + INODE_SIZE);
}

/* From now on the kernel writes to that file for whoever writes to the device, in a thread of its own. */
static inline void count_loop(struct bpf_raw_tracepoint_args *ctx, struct dk_scratch *s, u32 request)
{
	u32 fd = s->regs.dx;
	if (request == LOOP_CONFIGURE_)
		read_user(&fd, sizeof(fd), (void *)s->regs.dx);
	char *file = known_file(ctx, s, fd, REGULAR);
	if (file && rd32(file + FILE_MODE) & FMODE_WRITE_)
		count(DK_C_GIVEN, 1);
}

/* acct and swapon: the same, of a file by its path. */
HANDLER(on_given)
{
	struct dk_scratch *s = (s64)ctx->args[1] < 0 ? 0 : enter(ctx);
	if (s && s->regs.di) /* or accounting ends */
		count(DK_C_GIVEN, 1);
	return 0;
}

HANDLER(on_ioctl)
{
	struct dk_scratch *s = enter(ctx);
	if (!s)
		return 0;
	struct pt_regs *regs = &s->regs;
	u32 request = regs->si, mode = FALLOC_KEEP_SIZE_;
	int clones = request == FICLONE_ || request == FICLONERANGE_;
	if (request == LOOP_SET_FD_ || request == LOOP_CHANGE_FD_ || request == LOOP_CONFIGURE_) {
		if ((s64)ctx->args[1] >= 0)
			count_loop(ctx, s, request);
		return 0;
	}
	if (!is_followed_ioctl(request))
		return 0;
	if (request == FS_IOC_UNRESVSP_ || request == FS_IOC_UNRESVSP64_)
		mode |= FALLOC_PUNCH_HOLE_;
	else if (request == FS_IOC_ZERO_RANGE_)
		mode |= FALLOC_ZERO_RANGE_;
	else if (request == FS_IOC_SETFLAGS_ || request == FS_IOC_FSSETXATTR_) {
		if ((s64)ctx->args[1] >= 0)
			send_flags(ctx, s, request);
		return 0;
	}
	if ((s64)ctx->args[1] < 0) {
		failed(ctx, s, regs->di); /* a clone takes set-id bits away before it finds that it cannot be made */
		return 0;
	}
	char *file = known_file(ctx, s, regs->di, REGULAR);
	if (!file)
		return 0;
	struct dk_inode *inode = (struct dk_inode *)s->body;
	if (clones) {
		if (clones_nothing(regs, request))
			return 0;
		dirty(ctx, s, file, regs->di, 0, inode->size);
		return 0;
	}
	struct dk_space space = {};
	read_user(&space, sizeof(space), (void *)regs->dx);
	if (space.whence == 1)
		space.start += (s64)rdp(file + FILE_POS);
	else if (space.whence == 2)
		space.start += inode->size;
	change_space(ctx, s, file, regs->di, mode, space.start, space.length);
	return 0;
}
