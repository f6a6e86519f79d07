/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Path calls while paths are judged: left out when all that they changed is, else sent. One that gives something another
 * name makes its verdict void, and is told to user space a second time: it knows which paths are rejected, and reads again
 * what comes from there.
 */

static inline int is_directory(struct dk_inode *stamp)
{
	return (stamp->mode & S_IFMT) == S_IFDIR;
}

/*
 * Whether what is stamped may be what the last path of a call names: by the end of its name. That is not known of a file
 * with several names; and of a directory only if it is the root of a filesystem, which no call renames.
 */
static inline int may_be_named(struct dk_inode *stamp, u32 end)
{
	u32 length = stamp->tag & 255, shift = length < 3 ? (3 - length) * 8 : 0;
	if (!stamp->tag)
		return !is_directory(stamp);
	return stamp->tag >> 8 == end >> (shift & 31);
}

static inline void judge_stamps(struct dk_scratch *s, struct dk_inode *slots, struct dk_inode *stamps, u32 end)
{
	volatile struct dk_judged *j = &s->judged; /* not in registers: each turn is to look the same to the verifier */
	u32 dev = slots[0].dev;
	j->kept = j->rejected = j->directories = j->moved = j->moved_directory = j->near = 0;
	for (int i = 0; i < DK_STAMPS; i++)
		if (i < s->stamps && stamps[i].dev == dev)
			j->near = 1;
	for (int i = 0; i < DK_STAMPS; i++) {
		struct dk_inode *stamp = &stamps[i];
		if (i >= s->stamps || (j->near && stamp->dev != dev)) /* overlayfs has each twice */
			continue;
		struct dk_key key = {};
		key_of(&key, stamp);
		struct dk_seen *e = seen.lookup(&key);
		u32 *filter = verdict_on(e);
		if (!filter) {
			j->kept = 1;
		} else {
			j->rejected = 1;
			j->filter = *filter;
			if (is_directory(stamp))
				j->directories = 1;
		}
		j->named = may_be_named(stamp, end);
		if (is_directory(stamp) && j->named)
			j->moved_directory = 1;
		j->was_rejected = was_rejected(e);
		if ((is_directory(stamp) || j->named) && j->was_rejected)
			j->moved = 1;
	}
}

/* Inodes that are gone; and those that have another path now, if something is `moved` to a name with this end. */
static inline void forget_stamps(struct dk_scratch *s, struct dk_inode *stamps, int moved, u32 end)
{
	for (int i = 0; i < DK_STAMPS; i++) {
		struct dk_inode *stamp = &stamps[i];
		if (i < s->stamps && (!stamp->nlink || (moved && !is_directory(stamp) && may_be_named(stamp, end))))
			forget(stamp);
	}
}

/* Something has another name. `size`: of the record, which is what user space is told. */
static inline void tell_moved(struct dk_scratch *s, struct dk_inode *stamps, u32 end, u32 size)
{
	count(DK_C_MOVES, 1);
	if (s->judged.moved_directory || (s->ev.op == DK_OP_RENAME && s->ev.offset & RENAME_EXCHANGE_))
		count(DK_C_EPOCH, 1);
	forget_stamps(s, stamps, 1, end);
	/* What was rejected comes out, maybe: then its writer stands still until it was read. The work of io_uring does not. */
	int waits = s->judged.moved && !s->call.saved && may_stop();
	s->ev.length = waits;
	bpf_ringbuf_output(questions(), s, size, BPF_RB_NO_WAKEUP);
	if (!waits)
		return;
	struct dk_request *r = new_request(s, DK_R_JUDGE, -1, bpf_ringbuf_query(questions(), 3 /* BPF_RB_PROD_POS */), 0);
	r->stopped = 1;
	post(r);
}

/* The record of a path call in scratch, of s->record bytes. */
HANDLER(judge_call)
{
	struct dk_scratch *s = get_scratch();
	if (!s)
		return 0;
	u16 op = s->ev.op;
	struct dk_inode *slots = (struct dk_inode *)s->body;
	int renames = op == DK_OP_LINK || op == DK_OP_RENAME;
	struct dk_inode *stamps = renames ? &slots[2] : &slots[1], *made = &stamps[s->stamps & (2 * DK_STAMPS - 1)];
	u32 size = s->record & (PIECE - 1);
	u32 end = renames ? name_end(s, size - sizeof(struct dk_event)) : 0;
	judge_stamps(s, slots, stamps, end);
	struct dk_judged *j = &s->judged;
	if (op == DK_OP_MKDIR || op == DK_OP_MKNOD || op == DK_OP_SYMLINK) {
		for (int i = 0; i < DK_STAMPS; i++) {
			struct dk_inode *stamp = &stamps[i];
			if (i < s->stamps && made->ino && stamp->ino == made->parent && stamp->dev == made->dev && is_left_out_with(made, stamp))
				return 0;
		}
		forget(made);
		send(s, size);
		return 0;
	}
	int names = renames || op == DK_OP_UNLINK || op == DK_OP_RMDIR;
	if (j->rejected && !j->kept && (j->directories || !names)) {
		count_left_out(j->filter);
		if (names)
			forget_stamps(s, stamps, 0, 0);
		return 0;
	}
	send(s, size);
	if (renames)
		tell_moved(s, stamps, end, size);
	else if (names)
		forget_stamps(s, stamps, 0, 0);
	return 0;
}
