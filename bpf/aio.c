/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Linux AIO: writes are recorded when they are handed over (io_submit), as nothing tells when they are done. Until then
 * the program must leave the buffers alone, so the bytes are the right ones; one that fails later is put right at the end.
 */

#define IOCB_PWRITE 1
#define IOCB_PWRITEV 8
#define IOCB_STEPS 256 /* records of one call, at most */
#define IOCB_MAX 64
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

/* Makes the next control block of the call the current one. Says 0 for one that writes nothing we record. */
static inline int take_iocb(struct bpf_raw_tracepoint_args *ctx, struct dk_scratch *s, u32 index)
{
	struct dk_iocb cb = {};
	u64 address = 0;
	bpf_probe_read_user(&address, sizeof(address), (void *)(s->regs.dx + index * sizeof(u64)));
	if (bpf_probe_read_user(&cb, sizeof(cb), (void *)address))
		return 0;
	s->piece.left = s->piece.rest = 0;
	s->iov_at = s->iov_count = 0;
	if (cb.opcode != IOCB_PWRITE && cb.opcode != IOCB_PWRITEV)
		return 0;
	char *file = known_file(ctx, s, cb.fd, REGULAR);
	if (!file)
		return 0;
	begin(s, DK_OP_WRITE, 0, 1);
	s->piece.offset = cb.offset;
	if (cb.opcode == IOCB_PWRITE) {
		s->piece.from = cb.buffer;
		s->piece.left = cb.length;
		s->ev.length = cb.length;
	} else {
		bpf_probe_read_user(s->iov, sizeof(s->iov), (void *)cb.buffer);
		s->iov_count = cb.length;
		for (u32 i = 0; i < IOCB_VECTORS; i++)
			if (i < cb.length)
				s->ev.length += s->iov[i].len;
	}
	if ((rd32(file + FILE_FLAGS) & O_APPEND_) || cb.rw_flags & RWF_APPEND_ || s->iov_count > IOCB_VECTORS) {
		struct dk_inode *inode = (struct dk_inode *)s->body;
		dirty(ctx, s, file, cb.fd, 0, inode->size); /* where it went, or what it was, is not to be seen here */
		return 0;
	}
	return 1;
}

HANDLER(on_io_submit)
{
	s64 accepted = ctx->args[1];
	if (accepted <= 0)
		return 0;
	struct dk_scratch *s = enter(ctx);
	if (!s)
		return 0;
	/* First all files have to be known: getting to know one starts this handler anew. */
	for (u32 i = 0; i < IOCB_MAX; i++) {
		if (i >= accepted)
			break;
		struct dk_iocb cb = {};
		u64 address = 0;
		bpf_probe_read_user(&address, sizeof(address), (void *)(s->regs.dx + i * sizeof(u64)));
		bpf_probe_read_user(&cb, sizeof(cb), (void *)address);
		if (cb.opcode == IOCB_PWRITE || cb.opcode == IOCB_PWRITEV)
			known_file(ctx, s, cb.fd, REGULAR);
	}
	s->iocb_at = 0;
	s->piece.left = s->iov_at = s->iov_count = 0;
	for (u32 step = 0; step < IOCB_STEPS; step++) {
		if (s->piece.left) {
			send_piece(s);
		} else if (s->iov_at < s->iov_count) {
			struct dk_iovec *v = &s->iov[s->iov_at & (IOVECS - 1)];
			s->piece.from = v->base;
			s->piece.left = v->len;
			s->iov_at++;
		} else {
			if (s->iocb_at >= accepted)
				return 0;
			take_iocb(ctx, s, s->iocb_at++);
		}
	}
	count(DK_C_ASYNC, 1);
	return 0;
}
