/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * io_uring: what a request did is told when it completes (completed.c), in the submitter or in one of its worker threads,
 * and before the program can see the completion. Its buffers are still what they were then; paths, vectors and attributes
 * are not, and are put aside when it is submitted.
 */

#if HAVE_URING

#define URING_WRITEV 2
#define URING_FSYNC 3
#define URING_WRITE_FIXED 5
#define URING_SYNC_RANGE 8
#define URING_FALLOCATE 17
#define URING_OPENAT 18
#define URING_WRITE 23
#define URING_OPENAT2 28
#define URING_SPLICE 30
#define URING_RENAMEAT 35
#define URING_UNLINKAT 36
#define URING_MKDIRAT 37
#define URING_SYMLINKAT 38
#define URING_LINKAT 39
#define URING_FSETXATTR 41
#define URING_SETXATTR 42
#define URING_FTRUNCATE 55
#define URING_WRITEV_FIXED 61
#define URING_SKIPS (1ULL << 6) /* REQ_F_CQE_SKIP */

static inline u8 opcode_of(char *req)
{
	return LOAD(u8, req + URING_OPCODE);
}

static inline s32 result_of(char *req)
{
	return rd32(req + URING_RESULT);
}

static inline int is_uring_write(u8 opcode)
{
	return opcode == URING_WRITE || opcode == URING_WRITE_FIXED || opcode == URING_WRITEV || opcode == URING_WRITEV_FIXED;
}

static inline int is_uring_name(u8 opcode)
{
	return opcode >= URING_RENAMEAT && opcode <= URING_LINKAT;
}

static inline int is_uring_xattr(u8 opcode)
{
	return opcode == URING_SETXATTR || opcode == URING_FSETXATTR;
}

HANDLER(on_uring_enter)
{
	u32 tgid = current_id() >> 32;
	u64 *asked = holds.lookup(&tgid);
	if (!asked)
		return 0;
	u64 *done = served.lookup(&tgid);
	if (!done || *done < *asked)
		stop_current();
	return 0;
}

static inline void save_path(char *to, char *filename)
{
	if (bpf_probe_read_kernel_str(to, PATH_MAX_, rdp(filename + FILENAME_NAME)) < 0)
		to[0] = 0;
}

/* Puts aside what will be gone when the request completes. */
HANDLER(io_uring_submit_req)
{
	char *req = (char *)ctx->args[0];
	u32 tgid = current_id() >> 32;
	if (!is_tracked(tgid))
		return 0;
	u8 opcode = opcode_of(req);
	u64 flags = (u64)rdp(req + URING_FLAGS), key = (u64)req;
	int vector = opcode == URING_WRITEV || opcode == URING_WRITEV_FIXED, name = is_uring_name(opcode);
	int xattr = is_uring_xattr(opcode);
	if (flags & URING_SKIPS && (name || xattr || is_uring_write(opcode) || opcode == URING_FALLOCATE || opcode == URING_FTRUNCATE))
		count(DK_C_ASYNC, 1);
	if (!name && !xattr && !is_uring_write(opcode))
		return 0;
	struct dk_scratch *s = get_scratch();
	if (!s)
		return 0;
	struct dk_pending *p = (struct dk_pending *)s->body;
	u64 length = rd32(req + URING_RW_LEN);
	if (!vector && !name && !xattr) {
		takes_off(s, req, length);
		return 0;
	}
	p->dirfd1 = p->dirfd2 = AT_FDCWD_;
	p->flags = 0;
	p->path1[0] = p->path2[0] = 0;
	if (vector) {
		read_user(p->iov, sizeof(p->iov), rdp(req + URING_RW_ADDR));
		p->flags = length;
		u64 bytes = length > SAVED_IOVECS ? 1ULL << 40 : 0;
		for (int i = 0; i < SAVED_IOVECS; i++)
			if (i < length)
				bytes += p->iov[i].len;
		takes_off(s, req, bytes);
	} else if (xattr) {
		u64 size = (u64)rdp(req + URING_XATTR_SIZE);
		bpf_probe_read_kernel_str(p->name, sizeof(p->name), rdp(req + URING_XATTR_NAME));
		if (size > PATH_MAX_ ||
		    (size && bpf_probe_read_kernel(p->path2, size & (2 * PATH_MAX_ - 1), rdp(req + URING_XATTR_VALUE)))) {
			pending.delete(&key); /* what another request at this address has left */
			count(DK_C_ASYNC, 1);
			return 0;
		}
		p->flags = size;
		if (opcode == URING_SETXATTR)
			save_path(p->path1, rdp(req + URING_XATTR_PATH));
	} else if (opcode == URING_RENAMEAT || opcode == URING_LINKAT || opcode == URING_SYMLINKAT) {
		/* struct io_rename and struct io_link begin alike */
		p->dirfd1 = rd32(req + URING_LINK_OLD_DFD);
		p->dirfd2 = rd32(req + URING_LINK_NEW_DFD);
		p->flags = rd32(req + URING_LINK_FLAGS);
		save_path(p->path1, rdp(req + URING_LINK_OLD));
		save_path(p->path2, rdp(req + URING_LINK_NEW));
	} else { /* as do struct io_unlink and struct io_mkdir */
		p->dirfd1 = rd32(req + URING_UNLINK_DFD);
		p->flags = rd32(req + URING_UNLINK_FLAGS);
		save_path(p->path1, rdp(req + URING_UNLINK_PATH));
	}
	pending.update(&key, p);
	return 0;
}

HANDLER(io_uring_complete)
{
	char *req = (char *)ctx->args[1];
	u32 tgid = current_id() >> 32;
	if (!req || !is_tracked(tgid))
		return 0;
	u8 opcode = opcode_of(req);
	if (result_of(req) < 0) {
		u64 key = (u64)req;
		if (is_uring_write(opcode) && rdp(req))
			lands(req, rdp(req));
		if (is_uring_name(opcode) || is_uring_xattr(opcode) || opcode == URING_WRITEV || opcode == URING_WRITEV_FIXED)
			pending.delete(&key);
		if (!is_uring_write(opcode) && opcode != URING_FALLOCATE && opcode != URING_FTRUNCATE)
			return 0;
	}
	u32 helper = 0;
	if (is_uring_write(opcode))
		helper = HELPER_URING_WRITE;
	else if (opcode == URING_FALLOCATE || opcode == URING_FTRUNCATE || opcode == URING_SPLICE || opcode == URING_FSYNC ||
		 opcode == URING_SYNC_RANGE)
		helper = HELPER_URING_FILE;
	else if (opcode == URING_OPENAT || opcode == URING_OPENAT2)
		helper = HELPER_URING_OPEN;
	else if (is_uring_name(opcode))
		helper = HELPER_URING_NAME;
	else if (is_uring_xattr(opcode))
		helper = HELPER_URING_XATTR;
	else
		return 0;
	struct dk_scratch *s = get_scratch();
	if (!s)
		return 0;
	s->again = helper;
	go_on(ctx, helper);
	return 0;
}

/* No room for a completion: whatever it was, it went by unseen. */
HANDLER(io_uring_cqe_overflow)
{
	if (is_tracked(current_id() >> 32) && (s32)ctx->args[2] >= 0)
		count(DK_C_ASYNC, 1);
	return 0;
}

#endif

/* A ring is made. Where nothing tells of requests, what is done through it is lost. */
HANDLER(on_uring_setup)
{
	if ((s64)ctx->args[1] >= 0 && !control_value(DK_C_URING) && is_tracked(current_id() >> 32))
		count(DK_C_ASYNC, 1);
	return 0;
}
