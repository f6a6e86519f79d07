/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Writes from several buffers, whoever has one to tell: writev and its like, AIO or io_uring. They have found out which
 * buffers (`begin_vectors` in data.c), and call this for the bytes.
 */

#define VECTORS 8 /* pieces at once, as of the names of a path */

/* What comes next of the buffers in s->iov. Says 0 when a piece cannot be sent. */
static inline int send_vectors(struct dk_scratch *s)
{
	for (u32 i = 0; i < VECTORS; i++) {
		if (!s->piece.rest)
			break;
		struct dk_iovec *v = &s->iov[s->piece.vector & (IOVECS - 1)];
		if (!v->len) {
			s->piece.vector++;
			continue;
		}
		s->piece.from = v->base;
		s->piece.left = v->len < s->piece.rest ? v->len : s->piece.rest; /* a short write ends inside a buffer */
		if (!send_piece(s, 1))
			return 0;
		v->base += s->ev.size;
		v->len -= s->ev.size;
		s->piece.rest -= s->ev.size;
	}
	return 1;
}

HANDLER(write_vectors)
{
	struct dk_scratch *s = get_scratch();
	if (!s)
		return 0;
	int sent = send_vectors(s);
	if (sent && s->piece.rest)
		programs.call(ctx, HELPER_VECTORS);
	if (sent)
		hold_if_crowded(s);
	if (s->again == HELPER_AIO) {
		if (!sent) {
			go_on(ctx, HELPER_AIO_BEHIND);
			return 0;
		}
		go_on(ctx, HELPER_AIO);
	} else if (s->piece.rest) {
		if (s->again)
			dirty_async(ctx, s, rdp((char *)ctx->args[1]), s->piece.offset, s->piece.rest);
		else
			dirty(ctx, s, file_of(s->regs.di), s->regs.di, s->piece.offset, s->piece.rest);
	}
	return 0;
}
