/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Linux AIO: writes are recorded when they are handed over (io_submit), as nothing tells when they are done. Until then
 * the program must leave the buffers alone, so the bytes are the right ones; one that fails later is put right at the end.
 */

#define IOCB_PWRITE 1
#define IOCB_PWRITEV 8
#define IOCB_VECTORS 8

struct dk_iocb { /* struct iocb of include/uapi/linux/aio_abi.h */
	u64 data;
	u32 key;
	u32 rw_flags;
	u16 opcode;
	s16 priority;
	u32 fd;
	u64 buffer;
	u64 length;
	u64 offset;
	u64 reserved;
	u32 flags;
	u32 event_fd;
};

HANDLER(on_io_submit)
{
	if ((s64)ctx->args[1] <= 0)
		return 0;
	struct dk_scratch *s = enter(ctx);
	if (!s)
		return 0;
	s->iocb_at = 0;
	s->again = HELPER_AIO;
	helpers.call(ctx, HELPER_AIO);
	return 0;
}

/* One control block; then the next, by a tail call, of which there can be some thirty. */
HANDLER(aio_write)
{
	struct dk_scratch *s = get_scratch();
	if (!s || s->iocb_at >= (s64)ctx->args[1])
		return 0;
	struct dk_iocb cb = {};
	u64 address = 0;
	bpf_probe_read_user(&address, sizeof(address), (void *)(s->regs.dx + s->iocb_at * sizeof(u64)));
	bpf_probe_read_user(&cb, sizeof(cb), (void *)address);
	char *file = 0;
	if (cb.opcode == IOCB_PWRITE || cb.opcode == IOCB_PWRITEV)
		file = known_file(ctx, s, cb.fd, REGULAR);
	s->iocb_at++; /* only now: to get to know a file starts this anew */
	if (file) {
		struct dk_inode *inode = (struct dk_inode *)s->body;
		begin(s, DK_OP_WRITE, 0, 1);
		s->piece.offset = cb.offset;
		s->piece.from = cb.buffer;
		s->piece.left = s->ev.length = cb.length;
		int done = 1;
		if ((rd32(file + FILE_FLAGS) & O_APPEND_) || cb.rw_flags & RWF_APPEND_) {
			done = 0; /* where it went is not to be seen here */
		} else if (cb.opcode == IOCB_PWRITEV) {
			bpf_probe_read_user(s->iov, sizeof(s->iov), (void *)cb.buffer);
			s->ev.length = 0;
			for (u32 i = 0; i < IOCB_VECTORS; i++)
				if (i < cb.length)
					s->ev.length += s->iov[i].len;
			s->piece.rest = s->ev.length;
			done = cb.length <= IOCB_VECTORS && send_vectors(s, cb.length, IOCB_VECTORS);
		} else if (cb.length <= DIRECT_MAX) {
			send_pieces(s);
		} else {
			done = 0;
		}
		if (!done) {
			if (s->iocb_at < (s64)ctx->args[1])
				count(DK_C_ASYNC, 1); /* those that follow it */
			dirty(ctx, s, file, cb.fd, 0, inode->size);
			return 0;
		}
	}
	helpers.call(ctx, HELPER_AIO);
	count(DK_C_ASYNC, 1);
	return 0;
}
