/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* What a request of io_uring did that has completed: one program for each kind, called by io_uring_complete in uring.c. */

#if HAVE_URING

#define EPERM_ 1
#define EBADF_ 9
#define ETXTBSY_ 26
#define EOPNOTSUPP_ 95
#define OVERLAYFS_MAGIC_ 0x794c7630

/* Whether fallocate(2) asks the filesystem for this: vfs_fallocate() refuses the rest by itself. */
static inline int is_asked_for(char *req)
{
	u32 mode = rd32(req + URING_SYNC_MODE), how = mode & ~FALLOC_KEEP_SIZE_;
	if ((s64)rdp(req + URING_SYNC_OFFSET) < 0 || (s64)rdp(req + URING_SYNC_LENGTH) <= 0)
		return 0;
	if (mode & FALLOC_KEEP_SIZE_)
		return how == 0 || how == FALLOC_PUNCH_HOLE_ || how == FALLOC_ZERO_RANGE_ || how == FALLOC_UNSHARE_;
	return how == 0 || how == FALLOC_ZERO_RANGE_ || how == FALLOC_UNSHARE_ || how == FALLOC_COLLAPSE_ ||
	       how == FALLOC_INSERT_ || how == FALLOC_WRITE_ZEROES_;
}

/*
 * Whether a request that failed may have taken away what a change of the file takes away. A filesystem looks first whether
 * it knows what it is asked for; but overlayfs takes away, and then has the one below look.
 */
static inline int may_have_begun(char *req, char *file, s32 ret)
{
	if (ret == -EBADF_ || ret == -EPERM_ || ret == -ETXTBSY_)
		return 0;
	if (opcode_of(req) != URING_FALLOCATE)
		return ret != -EOPNOTSUPP_;
	char *inode = rdp(file + FILE_INODE);
	return is_asked_for(req) && (ret != -EOPNOTSUPP_ || (u64)rdp((char *)rdp(inode + INODE_SB) + SB_MAGIC) == OVERLAYFS_MAGIC_);
}

/* A request that failed may have set times before, in another thread than this one: they are told as they are. */
static inline void send_times(struct dk_scratch *s, char *req, char *file)
{
	struct dk_inode *inode = (struct dk_inode *)s->body;
	s32 ret = result_of(req);
	int began = KIND(inode->mode) & REGULAR && (ret >= 0 || may_have_begun(req, file, ret));
	begin(s, DK_OP_UTIME, began ? DK_F_TRUNC : 0, 1);
	s->ev.offset = inode->size;
	s->ev.length = inode->mtime;
	send(s, sizeof(struct dk_event) + sizeof(struct dk_inode));
}

HANDLER(uring_write)
{
	char *req = (char *)ctx->args[1];
	u64 key = (u64)req;
	struct dk_scratch *s = get_scratch();
	s32 ret = result_of(req);
	if (!s || !ret)
		return 0;
	u8 opcode = opcode_of(req);
	char *file = known(ctx, s, rdp(req), REGULAR | KIND(S_IFIFO));
	if (!file)
		return 0;
	if (ret < 0 || KIND(((struct dk_inode *)s->body)->mode) != REGULAR) {
		send_times(s, req, file); /* it may have set times all the same */
		return 0;
	}
	u64 offset = (u64)rdp(req + URING_RW_POS) - ret; /* where the write ended up is left there */
	if (lands(req, file) || ret > DIRECT_MAX) {
		dirty_async(ctx, s, file, offset, ret);
		return 0;
	}
	note_change(s, offset, ret);
	begin_write(s, offset, ret);
	if (opcode == URING_WRITE || opcode == URING_WRITE_FIXED) {
		begin_vector(s, (u64)rdp(req + URING_RW_ADDR));
		programs.call(ctx, HELPER_VECTORS);
		return 0;
	}
	struct dk_pending *p = pending.lookup(&key);
	if (p) {
		bpf_probe_read_kernel(s->iov, sizeof(p->iov), p->iov);
		u32 vectors = p->flags;
		pending.delete(&key);
		if (begin_vectors(s, vectors, SAVED_IOVECS))
			programs.call(ctx, HELPER_VECTORS);
	}
	dirty_async(ctx, s, file, s->piece.offset, s->piece.rest);
	return 0;
}

HANDLER(uring_file)
{
	char *req = (char *)ctx->args[1];
	u8 opcode = opcode_of(req);
	struct dk_scratch *s = get_scratch();
	if (!s)
		return 0;
	struct dk_inode *inode = (struct dk_inode *)s->body;
	if (opcode == URING_FSYNC || opcode == URING_SYNC_RANGE) {
		u32 tgid = current_id() >> 32;
		if (mappings.lookup(&tgid))
			ask_for_sync(s, DK_R_SYNC, 0);
		return 0;
	}
	/* of a splice the first member of the request is the file written to, as of all others */
	char *file = known(ctx, s, rdp(req), REGULAR);
	if (!file)
		return 0;
	s32 ret = result_of(req);
	if (ret < 0) {
		send_times(s, req, file);
		return 0;
	}
	if (opcode == URING_FTRUNCATE) {
		note_change(s, WHOLE_FILE);
		begin(s, DK_OP_TRUNCATE, 0, 1);
		s->ev.offset = inode->size;
		drop_stamps();
		send(s, sizeof(struct dk_event) + sizeof(struct dk_inode));
		return 0;
	}
	u64 offset, length;
	if (opcode == URING_SPLICE) {
		length = result_of(req);
		offset = (u64)rdp(req + URING_SPLICE_OFFSET);
		if (offset == ~0ULL)
			offset = (u64)rdp(file + FILE_POS);
		if (!length)
			return 0;
		offset -= length; /* the call left the end here */
		dirty_async(ctx, s, file, offset, length);
	} else {
		offset = (u64)rdp(req + URING_SYNC_OFFSET);
		length = (u64)rdp(req + URING_SYNC_LENGTH);
		change_space(ctx, s, file, -1, rd32(req + URING_SYNC_MODE), offset, length);
	}
	return 0;
}

HANDLER(uring_open)
{
	char *req = (char *)ctx->args[1];
	struct dk_scratch *s = get_scratch();
	if (!s)
		return 0;
	u64 flags = (u64)rdp(req + URING_OPEN_HOW);
	if (!rd32(req + URING_OPEN_SLOT))
		send_open(ctx, s, result_of(req), flags);
	else if (flags & (O_CREAT_ | O_TRUNC_)) /* into a table of the ring's own */
		count(DK_C_ASYNC, 1);
	return 0;
}

/* A request that a worker has done: it is the worker that touched what it changed. */
static inline void choose_stamps(struct dk_scratch *s)
{
	s->stamps_of = current_id();
	if (!is_worker()) {
		u32 tgid = current_id() >> 32, *worker = workers.lookup(&tgid);
		if (worker)
			s->stamps_of = *worker;
	}
}

HANDLER(uring_xattr)
{
	char *req = (char *)ctx->args[1];
	u64 key = (u64)req;
	struct dk_scratch *s = get_scratch();
	struct dk_pending *p = pending.lookup(&key);
	if (!s || !p) /* too long to be put aside: that is counted */
		return 0;
	struct dk_xattr_call c = {.fd = AT_FDCWD_, .sets = 1, .follows = 1, .saved = 1, .size = p->flags};
	c.path = (u64)p->path1;
	c.name = (u64)p->name;
	c.value = (u64)p->path2;
	c.by_fd = opcode_of(req) == URING_FSETXATTR;
	choose_stamps(s);
	if (c.by_fd) {
		if (!known(ctx, s, rdp(req), ON_DISK))
			return 0;
	} else if (is_apart()) {
		c.by_fd = 1;
		if (!known_touched(ctx, s))
			return 0;
	} else {
		if (LOAD(char, (char *)c.path) == '/')
			c.fd = FROM_ROOT;
		if (!is_start_known(ctx, s, c.fd))
			return 0;
	}
	s->xattr = c;
	go_on(ctx, HELPER_XATTR);
	return 0;
}

HANDLER(uring_name)
{
	char *req = (char *)ctx->args[1];
	u64 key = (u64)req;
	u8 opcode = opcode_of(req);
	struct dk_scratch *s = get_scratch();
	struct dk_pending *p = pending.lookup(&key);
	if (!s)
		return 0;
	if (!p) {
		count(DK_C_ASYNC, 1);
		return 0;
	}
	choose_stamps(s);
	struct dk_call c = {.dirfd1 = p->dirfd1, .dirfd2 = p->dirfd2, .bases = 1, .saved = 1};
	c.path1 = (u64)p->path1;
	if (opcode == URING_MKDIRAT) {
		c.op = DK_OP_MKDIR;
		c.offset = p->flags;
	} else if (opcode == URING_UNLINKAT) {
		c.op = p->flags & AT_REMOVEDIR_ ? DK_OP_RMDIR : DK_OP_UNLINK;
	} else if (opcode == URING_SYMLINKAT) {
		c.op = DK_OP_SYMLINK;
		c.dirfd1 = p->dirfd2;
		c.path1 = (u64)p->path2;
		c.path2 = (u64)p->path1;
	} else {
		c.op = opcode == URING_LINKAT ? DK_OP_LINK : DK_OP_RENAME;
		c.bases = 2;
		c.path2 = (u64)p->path2;
		c.offset = p->flags;
	}
	if (LOAD(char, (char *)c.path1) == '/')
		c.dirfd1 = FROM_ROOT;
	if (c.bases == 2 && LOAD(char, (char *)c.path2) == '/')
		c.dirfd2 = FROM_ROOT;
	s->call = c;
	call_on_name(ctx);
	return 0;
}

#endif
