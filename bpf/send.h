/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Sending a record, and telling user space of an inode the first time. */

static inline void begin(struct dk_scratch *s, u16 op, u8 flags, u8 inodes)
{
	u64 id = current_id();
	s->ev.time = bpf_ktime_get_boot_ns();
	s->ev.pid = id >> 32;
	s->ev.tid = id;
	s->ev.op = op;
	s->ev.flags = flags;
	s->ev.inodes = inodes;
	s->ev.size = 0;
	s->ev.offset = 0;
	s->ev.length = 0;
}

/* How the next record is to be sent: so that user space wakes up where the ring is crowded. */
static inline u64 urgency(void)
{
	u64 waiting = bpf_ringbuf_query(ring(), 0 /* BPF_RB_AVAIL_DATA */);
	/* NO_WAKEUP, or FORCE_WAKEUP, which is one more; no branch, or the verifier would go both ways from here on */
	return BPF_RB_NO_WAKEUP + ((control_value(DK_C_THRESHOLD) - waiting) >> 63);
}

/* Send `size` bytes of scratch. Says 0 when sent; a full ring counts as lost. */
static inline int send(struct dk_scratch *s, u32 size)
{
	u64 flags = urgency();
	int failed = bpf_ringbuf_output(ring(), s, size, flags);
	if (failed)
		count(DK_C_LOST, 1);
	if (flags == BPF_RB_FORCE_WAKEUP)
		hold();
	return failed;
}

#define HEADER (sizeof(struct dk_event) + sizeof(struct dk_inode))

#ifdef READ_USER_DYNPTR
struct dynptr {
	u64 opaque[2];
} __attribute__((aligned(8)));
static long (*reserve)(void *ring, u32 size, u64 flags, struct dynptr *) = (void *)198;
static void (*submit)(struct dynptr *, u64 flags) = (void *)199;
static void (*discard)(struct dynptr *, u64 flags) = (void *)200;
static long (*fill)(struct dynptr *, u32 offset, const void *from, u32 size, u64 flags) = (void *)202;
static int (*fill_from_user)(struct dynptr *, u64 offset, u64 size, const void *from) = (void *)READ_USER_DYNPTR;

#define SMALL 512 /* bytes that are copied twice in less time than it takes to prepare for copying them once */

/* What send_user() does, with the bytes going straight into the ring. */
static inline int send_directly(struct dk_scratch *s, u32 n, void *from)
{
	u64 flags = urgency();
	struct dynptr room;
	if (reserve(ring(), HEADER + n, 0, &room) || fill_from_user(&room, HEADER, n, from)) {
		discard(&room, BPF_RB_NO_WAKEUP);
		return 0;
	}
	fill(&room, 0, s, HEADER, 0);
	submit(&room, flags);
	s->piece.crowded |= flags;
	return 1;
}
#endif

/*
 * Send the event and inode 0 in scratch, and `n` bytes (PIECE at most) of user memory. Says 0 when these cannot be read,
 * or find no room: then the file can be read instead, and nothing is lost.
 * `directly`: if that can be; it costs the verifier more than a program with a long loop should take.
 * s->piece.crowded says if the writer is to be held, which is done when all is sent.
 */
static inline int send_user(struct dk_scratch *s, u32 n, void *from, int directly)
{
#ifdef READ_USER_DYNPTR
	if (directly && n > SMALL)
		return send_directly(s, n, from);
#endif
	u64 flags = urgency();
	if (read_user(s->body + sizeof(struct dk_inode), n, from) ||
	    bpf_ringbuf_output(ring(), s, HEADER + n, flags))
		return 0;
	s->piece.crowded |= flags;
	return 1;
}

/*
 * True when user space was told where this inode is. When not, `bind` is set up
 * and the caller tail-calls it; it comes back to the handler from its start.
 */
static inline int is_seen(struct dk_inode *inode, char *dentry, char *mnt, char *raw)
{
	struct dk_key key = {};
	key_of(&key, inode);
	struct dk_seen *e = seen.lookup(&key);
	if (e && e->told && (!e->question.id || e->epoch == (u32)control_value(DK_C_EPOCH)))
		return 1;
	int cpu = bpf_get_smp_processor_id();
	struct dk_binding *b = bindings.lookup(&cpu);
	if (!b)
		return 1;
	b->dentry = (u64)dentry;
	b->mnt = (u64)mnt;
	b->inode = (u64)raw;
	return 0;
}

static inline int is_key(struct dk_key *key, struct dk_inode *inode)
{
	return key->ino == inode->ino && key->dev == inode->dev && key->gen == inode->gen;
}

/* The same of a directory that a path starts from, or that something was made in: mostly the one of the call before. */
static inline int is_place_seen(struct dk_scratch *s, struct dk_inode *inode, char *dentry, char *mnt, char *raw)
{
	if (judges()) /* the path of any may have to be judged anew */
		return is_seen(inode, dentry, mnt, raw);
	if (is_key(&s->last_directory, inode))
		return 1;
	if (!is_seen(inode, dentry, mnt, raw))
		return 0;
	key_of(&s->last_directory, inode);
	return 1;
}

static inline void mark_seen(struct dk_inode *inode, struct dk_question *question, u32 epoch)
{
	struct dk_key key = {};
	struct dk_seen e = {.question = *question, .epoch = epoch, .told = 1};
	key_of(&key, inode);
	if (question->id)
		e.was_rejected = was_rejected(seen.lookup(&key));
	seen.update(&key, &e);
}

/*
 * A call changed `length` bytes at `offset` of the file in inode 0. If its pages are followed as well, because it is
 * mapped, they are to be looked at: a store that undid the change would look as if nothing had happened.
 */
#define BLOCKS 8
static inline void note_change(struct dk_scratch *s, u64 offset, u64 length)
{
	if (!control_value(DK_C_MAPPED))
		return;
	struct dk_inode *inode = (struct dk_inode *)s->body;
	struct dk_key key = {};
	key_of(&key, inode);
	u64 *stale = followed.lookup(&key);
	if (!stale)
		return;
	struct dk_block b = {.ino = inode->ino, .dev = inode->dev, .block = offset >> BLOCK_SHIFT};
	u32 last = (offset + length - 1) >> BLOCK_SHIFT;
	if (length > ((u64)(BLOCKS - 1) << BLOCK_SHIFT) || !length)
		*stale = 1;
	for (int i = 0; i < BLOCKS; i++) {
		u8 one = 1;
		if (*stale || b.block > last)
			break;
		if (written.update(&b, &one))
			*stale = 1;
		b.block++;
	}
	count(DK_C_CHANGES, 1);
}
#define WHOLE_FILE 0, 0

#define KIND(mode) (1u << ((mode) >> 12 & 15))
#define REGULAR KIND(S_IFREG)
#define ON_DISK (KIND(S_IFREG) | KIND(S_IFDIR) | KIND(S_IFIFO) | KIND(S_IFLNK))

/*
 * `file`, its facts as inode 0: of one of `kinds`, on a filesystem in scope, known to user space. 0 when there is
 * nothing (more) to do: an unknown one goes to the bind helper, which starts the handler anew.
 */
static inline char *known(struct bpf_raw_tracepoint_args *ctx, struct dk_scratch *s, char *file, u32 kinds)
{
	struct dk_inode *inode = (struct dk_inode *)s->body;
	if (!file)
		return 0;
	char *raw = rdp(file + FILE_INODE);
	u16 mode = LOAD(u16, raw + INODE_MODE);
	if (!(KIND(mode) & kinds))
		return 0;
	read_inode(inode, raw);
	if (is_key(&s->last, inode))
		return file;
	if (skipped_devs.lookup(&inode->dev))
		return 0;
	if (judges() && is_left_out(inode))
		return 0;
	if (!is_seen(inode, rdp(file + FILE_PATH + PATH_DENTRY), rdp(file + FILE_PATH + PATH_MNT), raw)) {
		go_on(ctx, HELPER_BIND);
		return 0;
	}
	if (!judges()) /* or it may be left out by the next call */
		key_of(&s->last, inode);
	return file;
}

/* The same for the file behind a descriptor. */
static inline char *known_file(struct bpf_raw_tracepoint_args *ctx, struct dk_scratch *s, int fd, u32 kinds)
{
	return known(ctx, s, file_of(fd), kinds);
}

static inline int touch(char *inode);

static inline int is_touched(struct dk_touched *t, char *inode)
{
	for (int i = 0; i < DK_STAMPS; i++)
		if (t->inode[i] == (u64)inode) /* out at once: a sum would be another state for the verifier at every turn */
			return 1;
	return 0;
}

/* A FIFO was written to: its bytes are nobody's file, but it has times. The last thing that a handler does. */
static inline void wrote_fifo(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tid = current_id();
	struct dk_touched *t = touched.lookup(&tid);
	struct dk_scratch *s = get_scratch();
	if (!t || !t->count || !s)
		return;
	s->written = 0;
	go_on(ctx, HELPER_FAILED);
}

#define EIO_ 5
#define EFAULT_ 14
#define ENOSPC_ 28
#define EDQUOT_ 122

/*
 * The call on `fd` failed: had it begun to change a file, which a write may, then that is to be told. What it touched is
 * known; but its times may have been of this very moment already, and then only the error says that there may be more.
 */
static inline void failed(struct bpf_raw_tracepoint_args *ctx, struct dk_scratch *s, int fd)
{
	u32 tid = current_id();
	s64 error = -(s64)ctx->args[1];
	char *file = file_of(fd), *inode = file ? rdp(file + FILE_INODE) : 0;
	if (!inode || KIND(LOAD(u16, inode + INODE_MODE)) != REGULAR)
		return;
	if (error == EFAULT_ || error == ENOSPC_ || error == EIO_ || error == EDQUOT_)
		touch(inode);
	struct dk_touched *t = touched.lookup(&tid);
	if (!t || !t->count)
		return;
	if (!is_touched(t, inode) || !known_file(ctx, s, fd, REGULAR))
		return;
	s->written = (u64)inode;
	go_on(ctx, HELPER_FAILED);
}
