/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Calls that write bytes: from a user buffer (copied here), or without one (read again by user space). */

#define NR_SENDFILE 40
#define NR_PWRITEV 296
#define NR_PWRITEV2 328
#define O_APPEND_ 02000
#define RWF_APPEND_ 0x10
#define RWF_NOAPPEND_ 0x20

/* A write of `length` bytes at `offset` to the file in inode 0: its pieces come next. */
static inline void begin_write(struct dk_scratch *s, u64 offset, u64 length)
{
	begin(s, DK_OP_WRITE, 0, 1);
	s->ev.length = length;
	s->piece.offset = offset;
	s->piece.rest = length;
	s->piece.crowded = 0;
}

/* All of a write was sent. */
static inline void hold_if_crowded(struct dk_scratch *s)
{
	if (s->piece.crowded & BPF_RB_FORCE_WAKEUP)
		hold();
	s->piece.crowded = 0;
}

/* One record: the next PIECE bytes at most of what s->piece says, which moves on. Says 0 when they cannot be sent. */
static inline int send_piece(struct dk_scratch *s, int directly)
{
	s->ev.offset = s->piece.offset;
	s->ev.size = s->piece.left > PIECE ? PIECE : s->piece.left;
	u32 n = anew(s->ev.size) & (2 * PIECE - 1);
	if (n > PIECE)
		return 0;
	if (!send_user(s, n, (void *)s->piece.from, directly))
		return 0;
	s->ev.flags = DK_F_CONT;
	s->piece.offset += n;
	return 1;
}

/* Whether somebody else may write with the same file position: through another descriptor or thread. */
static inline int is_shared(char *file)
{
	char *files = rdp((char *)bpf_get_current_task() + TASK_FILES);
	return (u64)rdp(file + FILE_REFERENCES) != FILE_ONE_REFERENCE || rd32(files + FILES_COUNT) > 1;
}

/*
 * The position is read when the call returns. Where it is shared, another writer may have moved it by then, so `offset`
 * may be too high. Sure it is only where the last write we saw ended just there. Says from where on the file must be read
 * again to have both writers' bytes in their places; `offset` itself after a seek, or when all is well: DK_SURE. Where none
 * was seen, as the position was not shared before, nobody knows how far others have come, but at the file's beginning.
 */
#define DK_SURE (~0ULL)
#define UNSURE_MAX 1048576
#define UNSEEN_MAX 65536
static inline u64 unsure_from(char *file, u64 ino, u64 offset, u64 length)
{
	u64 key = (u64)file, from = offset;
	struct dk_position now = {.end = offset + length, .ino = ino};
	struct dk_position *last = positions.lookup(&key);
	int sure;
	if (!last || last->ino != ino) {
		sure = !offset;
		from = offset > UNSEEN_MAX ? offset - UNSEEN_MAX : 0;
	} else {
		sure = last->end == offset;
		if (last->end < offset && now.end - last->end <= UNSURE_MAX)
			from = last->end;
	}
	positions.update(&key, &now);
	return sure ? DK_SURE : from;
}

/*
 * A write that ended short, at a buffer that cannot be read: what it was asked for within the file, 0 if no more than it
 * did. XFS leaves there what was in the page before, in a block that was a hole.
 */
#define BEHIND_MAX 1048576
static inline u64 left_behind(struct dk_scratch *s, u64 offset, u64 done, u64 asked)
{
	struct dk_inode *inode = (struct dk_inode *)s->body;
	u64 end = offset + (asked < done + BEHIND_MAX ? asked : done + BEHIND_MAX);
	if (end > inode->size)
		end = inode->size;
	return end > offset + done ? end - offset : 0;
}

/*
 * What the write family has in common: is it for us, and where did it write?
 * Leaves scratch ready for the pieces; 0 when there is nothing (more) to do.
 */
static inline struct dk_scratch *enter_write(struct bpf_raw_tracepoint_args *ctx)
{
	s64 ret = ctx->args[1];
	if (!ret)
		return 0;
	struct dk_scratch *s = enter(ctx);
	if (!s)
		return 0;
	struct pt_regs *regs = &s->regs;
	if (ret < 0) {
		failed(ctx, s, regs->di);
		return 0;
	}
	struct dk_inode *inode = (struct dk_inode *)s->body;
	char *file = known_file(ctx, s, regs->di, REGULAR | KIND(S_IFIFO));
	if (!file)
		return 0;
	if (KIND(inode->mode) != REGULAR) {
		wrote_fifo(ctx);
		return 0;
	}
	u64 nr = regs->orig_ax, offset = regs->r10;
	int positioned = nr == NR_PWRITE64 || nr == NR_PWRITEV || (nr == NR_PWRITEV2 && (s64)regs->r10 != -1);
	u64 from = DK_SURE;
	if (!positioned) {
		offset = (u64)rdp(file + FILE_POS) - ret;
		if (is_shared(file))
			from = unsure_from(file, inode->ino, offset, ret);
	} else if ((rd32(file + FILE_FLAGS) & O_APPEND_) || (nr == NR_PWRITEV2 && (regs->r9 & RWF_APPEND_)))
		/* Linux appends, whatever the argument says. Where it is not to, overlayfs does all the same. */
		offset = nr == NR_PWRITEV2 && (regs->r9 & RWF_NOAPPEND_) ? -1 : inode->size - ret;
	if ((s64)offset < 0) { /* moved or cut back by somebody else since, or just that: nothing says where the bytes went */
		dirty(ctx, s, file, regs->di, 0, inode->size);
		return 0;
	}
	if (from != DK_SURE) {
		dirty(ctx, s, file, regs->di, from, offset + ret - from);
		return 0;
	}
	u64 asked = nr == NR_WRITE || nr == NR_PWRITE64 ? regs->dx : 0;
	if (asked > ret && (asked = left_behind(s, offset, ret, asked))) {
		dirty(ctx, s, file, regs->di, offset, asked);
		return 0;
	}
	note_change(s, offset, ret);
	begin_write(s, offset, ret);
	if (ret > DIRECT_MAX) {
		dirty(ctx, s, file, regs->di, offset, ret);
		return 0;
	}
	return s;
}

/* A write from one buffer, of no more than DIRECT_MAX bytes: they come next. */
static inline void begin_vector(struct dk_scratch *s, u64 base)
{
	s->iov[0].base = base;
	s->iov[0].len = s->piece.rest;
	s->piece.vector = 0;
}

HANDLER(on_write)
{
	struct dk_scratch *s = enter_write(ctx);
	if (!s)
		return 0;
	if (s->piece.rest > PIECE) {
		begin_vector(s, s->regs.si);
		programs.call(ctx, HELPER_VECTORS);
	}
	s->piece.from = s->regs.si;
	s->piece.left = s->piece.rest;
	if (s->piece.rest <= PIECE && send_piece(s, 1)) {
		hold_if_crowded(s);
		return 0;
	}
	/* swapped out, unmapped by another thread, or longer than there is room: what the file got of it is in the file */
	dirty(ctx, s, file_of(s->regs.di), s->regs.di, s->piece.offset, s->piece.rest);
	return 0;
}

/*
 * Whether s->piece.rest bytes can be copied from `vectors` buffers in s->iov, of which `room` were read; then they come next.
 * Not if there are more than are copied here, or the call has left bytes behind it that it did not write.
 */
static inline int begin_vectors(struct dk_scratch *s, u64 vectors, u32 room)
{
	s->piece.vector = 0;
	s->piece.held = 0;
	s->piece.left = vectors;
	for (u32 i = 0; i < room; i++) { /* nothing of it in registers: compilers differ in what they make of such a loop */
		u64 at = anew(s->piece.vector);
		if (at >= anew(s->piece.left))
			break;
		s->piece.held += s->iov[at & (IOVECS - 1)].len;
		s->piece.vector = at + 1;
	}
	s->piece.vector = 0;
	u64 held = s->piece.held;
	if (held < s->piece.rest)
		return 0;
	if (held > s->piece.rest && (held = left_behind(s, s->piece.offset, s->piece.rest, held))) {
		s->piece.rest = held;
		return 0;
	}
	return 1;
}

HANDLER(on_writev)
{
	struct dk_scratch *s = enter_write(ctx);
	if (!s)
		return 0;
	read_user(s->iov, sizeof(s->iov), (void *)s->regs.si);
	if (begin_vectors(s, s->regs.dx, IOVECS))
		programs.call(ctx, HELPER_VECTORS);
	dirty(ctx, s, file_of(s->regs.di), s->regs.di, s->piece.offset, s->piece.rest);
	return 0;
}

/* No user buffer: sendfile, splice, copy_file_range. The range is read again while the caller stands still. */
HANDLER(on_kernel_copy)
{
	s64 ret = ctx->args[1];
	struct dk_scratch *s = enter(ctx);
	if (!s)
		return 0;
	struct pt_regs *regs = &s->regs;
	u64 offset = 0, user_offset = 0;
	int fd = regs->di;
	if (regs->orig_ax != NR_SENDFILE) {
		fd = regs->dx;
		user_offset = regs->r10;
	}
	if (ret < 0)
		failed(ctx, s, fd);
	if (ret <= 0)
		return 0;
	char *file = known_file(ctx, s, fd, REGULAR);
	if (!file)
		return 0;
	if (user_offset)
		read_user(&offset, sizeof(offset), (void *)user_offset);
	else
		offset = (u64)rdp(file + FILE_POS);
	offset -= ret; /* the call left the end here */
	if ((s64)offset < 0) { /* or somebody else moved it since */
		offset = 0;
		ret = ((struct dk_inode *)s->body)->size;
	}
	dirty(ctx, s, file, fd, offset, ret);
	return 0;
}
