/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Linux AIO: writes are recorded when they are handed over (io_submit), as nothing tells when they are done. Until then
 * the program must leave the buffers alone, so the bytes are the right ones; one that fails later is put right at the end.
 */

#define IOCB_PWRITE 1
#define IOCB_PWRITEV 8
#define IOCB_VECTORS 8

HANDLER(on_io_submit)
{
	if ((s64)ctx->args[1] <= 0)
		return 0;
	struct dk_scratch *s = enter(ctx);
	if (!s)
		return 0;
	s->iocb_at = 0;
	s->iocb_fifo = 0;
	s->piece.crowded = 0;
	s->again = HELPER_AIO;
	go_on(ctx, HELPER_AIO);
	return 0;
}

#define IOCBS 8 /* plain ones that are done in one go */

/* The control block whose turn it is; one vector is as good as none. */
static inline void read_iocb(struct dk_scratch *s, struct dk_iocb *cb)
{
	u64 address = 0;
	read_user(&address, sizeof(address), (void *)(s->regs.dx + s->iocb_at * sizeof(u64)));
	read_user(cb, sizeof(*cb), (void *)address);
	if (cb->opcode != IOCB_PWRITEV || cb->length != 1)
		return;
	struct dk_iovec only = {};
	read_user(&only, sizeof(only), (void *)cb->buffer);
	cb->opcode = IOCB_PWRITE;
	cb->buffer = only.base;
	cb->length = only.len;
}

static inline int appends(struct dk_iocb *cb, char *file)
{
	return (rd32(file + FILE_FLAGS) & O_APPEND_) || cb->rw_flags & RWF_APPEND_;
}

/*
 * A control block whose bytes cannot be copied: all of its file, on s->iocb_fd, is read again. That is the end of the
 * handler, so those that follow it must be about the same file, or they are lost.
 */
#define IOCBS_BEHIND 32
HANDLER(aio_behind)
{
	struct dk_scratch *s = get_scratch();
	if (!s)
		return 0;
	struct dk_inode *inode = (struct dk_inode *)s->body;
	u32 fd = s->iocb_fd;
	s->iocb_others = 0;
	for (u32 i = 0; i < IOCBS_BEHIND; i++) {
		struct dk_iocb cb = {};
		u64 address = 0;
		if (s->iocb_at >= (s64)ctx->args[1])
			break;
		read_user(&address, sizeof(address), (void *)(s->regs.dx + s->iocb_at * sizeof(u64)));
		read_user(&cb, sizeof(cb), (void *)address);
		if ((cb.opcode == IOCB_PWRITE || cb.opcode == IOCB_PWRITEV) && cb.fd != fd)
			s->iocb_others = 1;
		s->iocb_at++;
	}
	if (s->iocb_others || s->iocb_at < (s64)ctx->args[1])
		count(DK_C_ASYNC, 1);
	dirty(ctx, s, file_of(fd), fd, 0, inode->size);
	return 0;
}

/* The control block in scratch, whose turn it is, writes several buffers, or a long one, or nobody knows where. */
static inline void write_long(struct bpf_raw_tracepoint_args *ctx, struct dk_scratch *s)
{
	struct dk_iocb *cb = &s->iocb;
	char *file = file_of(cb->fd);
	u64 length = cb->length;
	int copied = 1;
	s->iocb_at++;
	s->iocb_fd = cb->fd;
	note_change(s, WHOLE_FILE);
	if (cb->opcode == IOCB_PWRITEV) {
		copied = !read_user(s->iov, IOCB_VECTORS * sizeof(struct dk_iovec), (void *)cb->buffer);
		length = 0;
		for (u32 i = 0; i < IOCB_VECTORS; i++)
			if (i < cb->length)
				length += s->iov[i].len;
		begin_write(s, cb->offset, length);
		copied = copied && cb->length <= IOCB_VECTORS && begin_vectors(s, cb->length, IOCB_VECTORS);
	} else {
		begin_write(s, cb->offset, length);
		begin_vector(s, cb->buffer);
	}
	if (copied && length <= DIRECT_MAX && file && !appends(cb, file)) /* else it is not to be seen where it went */
		programs.call(ctx, HELPER_VECTORS);
	go_on(ctx, HELPER_AIO_BEHIND);
}

/* The control blocks from s->iocb_at on, some of them; then by a tail call what comes next. */
HANDLER(aio_write)
{
	struct dk_scratch *s = get_scratch();
	int is_long = 0;
	if (!s)
		return 0;
	for (u32 i = 0; i < IOCBS; i++) {
		struct dk_iocb cb = {};
		if (s->iocb_at >= (s64)ctx->args[1]) {
			hold_if_crowded(s);
			if (s->iocb_fifo)
				wrote_fifo(ctx);
			return 0;
		}
		read_iocb(s, &cb);
		if (cb.opcode == IOCB_PWRITE || cb.opcode == IOCB_PWRITEV) {
			char *file = known_file(ctx, s, cb.fd, REGULAR | KIND(S_IFIFO));
			if (file && KIND(((struct dk_inode *)s->body)->mode) != REGULAR) {
				s->iocb_fifo = 1;
			} else if (file) {
				if (cb.opcode == IOCB_PWRITEV || cb.length > PIECE || appends(&cb, file)) {
					s->iocb = cb;
					is_long = 1;
					break;
				}
				note_change(s, WHOLE_FILE);
				begin_write(s, cb.offset, cb.length);
				s->piece.from = cb.buffer;
				s->piece.left = cb.length;
				if (!send_piece(s, 0)) {
					s->iocb_at++;
					s->iocb_fd = cb.fd;
					go_on(ctx, HELPER_AIO_BEHIND);
					return 0;
				}
			}
		}
		s->iocb_at++; /* only now: to get to know a file starts this anew */
	}
	hold_if_crowded(s);
	if (is_long)
		write_long(ctx, s);
	else
		go_on(ctx, HELPER_AIO);
	return 0;
}
