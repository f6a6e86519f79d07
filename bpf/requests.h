/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Asking user space to look at a file, while the writer stands still where that can be. */

/* A request in scratch, to be filled in; nothing is asked before `post`. */
static inline struct dk_request *new_request(struct dk_scratch *s, u32 kind, int fd, u64 offset, u64 length)
{
	struct dk_request *r = &s->request;
	u64 id = current_id();
	r->time = bpf_ktime_get_boot_ns();
	r->offset = offset;
	r->length = length;
	r->pid = id >> 32;
	r->tid = id;
	r->fd = fd;
	r->kind = kind;
	r->stopped = 0;
	r->sent = 1;
	r->path_size = 0;
	r->apart = 0;
	return r;
}

/* Asks, and stops the caller if the request says so. What is in the ring by now is older than what user space will see. */
static inline void post(struct dk_request *r)
{
	u64 key = r->time << 8 | (bpf_get_smp_processor_id() & 255);
	r->position = bpf_ringbuf_query(ring(), 3 /* BPF_RB_PROD_POS */);
	if (requests.update(&key, r))
		count(DK_C_UNASKED, 1);
	/* Only now: whoever is continued must have no request that was not yet to be seen. */
	if (r->stopped && stop_now()) { /* it was asked whether it may be, and may not be any more */
		r->stopped = 0;
		requests.update(&key, r);
	}
	count(DK_C_STOPPED, 1);
	void *nothing = bpf_ringbuf_reserve(ring(), 8, 0);
	if (nothing)
		bpf_ringbuf_discard(nothing, BPF_RB_FORCE_WAKEUP);
}

/* The request in scratch is about this file, wherever it is. */
static inline void ask_about(struct dk_scratch *s, char *file)
{
	s->dentry = (u64)rdp(file + FILE_PATH + PATH_DENTRY); /* 0 of no file, too */
	s->mnt = (u64)rdp(file + FILE_PATH + PATH_MNT);
}

/*
 * `length` bytes at `offset` of the file in inode 0 changed and cannot be copied here: say so, stop the writer if it `stops`,
 * and leave a request for user space to read the range. `fd`: where the file is open; -1: only its path tells.
 * The last thing that a handler does.
 */
static inline void ask_for_range(struct bpf_raw_tracepoint_args *ctx, struct dk_scratch *s, int fd, u8 flags, u64 offset,
				 u64 length, int stops)
{
	struct dk_request *r = new_request(s, DK_R_RANGE, fd, offset, length);
	note_change(s, WHOLE_FILE);
	begin(s, DK_OP_DIRTY, flags, 1);
	s->ev.time = r->time;
	s->ev.offset = offset;
	s->ev.length = length;
	r->inode = *(struct dk_inode *)s->body;
	r->stopped = stops;
	if (!r->stopped || fd < 0)
		s->ev.flags |= DK_F_INEXACT;
	r->sent = bpf_ringbuf_output(ring(), s, sizeof(struct dk_event) + sizeof(struct dk_inode), BPF_RB_FORCE_WAKEUP) == 0;
	go_on(ctx, HELPER_REQUEST);
}

static inline void dirty_with(struct bpf_raw_tracepoint_args *ctx, struct dk_scratch *s, char *file, int fd, u8 flags,
			      u64 offset, u64 length)
{
	ask_about(s, file);
	ask_for_range(ctx, s, fd, flags, offset, length, may_stop());
}

static inline void dirty(struct bpf_raw_tracepoint_args *ctx, struct dk_scratch *s, char *file, int fd, u64 offset,
			 u64 length)
{
	dirty_with(ctx, s, file, fd, 0, offset, length);
}

/*
 * `dirty` for a request to io_uring. The stop reaches the thread that completes it, maybe a worker; whoever waits for the completion
 * is held when it comes back from the ring. Nothing holds a program that looks for completions without a call.
 */
static inline void dirty_async(struct bpf_raw_tracepoint_args *ctx, struct dk_scratch *s, char *file, u64 offset, u64 length)
{
	u32 tgid = current_id() >> 32;
	u64 now = bpf_ktime_get_boot_ns();
	if (may_stop())
		holds.update(&tgid, &now);
	dirty(ctx, s, file, -1, offset, length);
}

/* The pages that are mapped are to be looked at before anything that follows. `stops`: this task may be stopped for it. */
static inline void ask_for_sync(struct dk_scratch *s, u32 kind, int stops)
{
	struct dk_request *r = new_request(s, kind, -1, 0, 0);
	r->stopped = stops && may_stop();
	post(r);
}
