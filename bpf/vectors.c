/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Writes from several buffers, whoever has one to tell: writev and its like, AIO or io_uring. They have found out which
 * buffers (`begin_vectors` in data.c), and call this for the bytes.
 */

#define VECTORS 8 /* at once, as of the names of a path */

/* The next of the buffers in s->iov. Says 0 when one cannot be sent. */
static inline int send_vectors(struct dk_scratch *s)
{
	for (u32 i = 0; i < VECTORS; i++) {
		if (!s->piece.rest)
			break;
		struct dk_iovec *v = &s->iov[s->piece.vector & (IOVECS - 1)];
		u64 n = v->len;
		if (n > s->piece.rest)
			n = s->piece.rest; /* a short write ended inside this vector */
		s->piece.from = v->base;
		s->piece.left = n;
		s->piece.vector++;
		if (anew(s->piece.left) && !send_piece(s, 0))
			return 0;
		s->piece.rest -= n;
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
		helpers.call(ctx, HELPER_VECTORS);
	if (sent)
		hold_if_crowded(s);
	if (s->again == HELPER_AIO) {
		if (!sent) {
			helpers.call(ctx, HELPER_AIO_BEHIND);
			return 0;
		}
		helpers.call(ctx, HELPER_AIO);
		count(DK_C_ASYNC, 1);
	} else if (s->piece.rest) {
		if (s->again)
			dirty_async(ctx, s, rdp((char *)ctx->args[1]), s->piece.offset, s->piece.rest);
		else
			dirty(ctx, s, file_of(s->regs.di), s->regs.di, s->piece.offset, s->piece.rest);
	}
	return 0;
}
