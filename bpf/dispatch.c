/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* sys_exit: one tail call by syscall number; a call nobody handles costs one failed look-up. And what handlers call. */

/* Back to the handler of the call that is ending. */
#define NR_WRITE 1
#define NR_PWRITE64 18

static inline void start_over(struct bpf_raw_tracepoint_args *ctx)
{
	on_exit.call(ctx, call_number(ctx));
	count(DK_C_CUT_SHORT, 1);
}

/* A call whose number is in the program is jumped to; for the others the kernel takes an address from the table, which
 * is slower. */
HANDLER(sys_exit)
{
	u64 nr = call_number(ctx);
	if (nr == NR_WRITE)
		on_exit.call(ctx, NR_WRITE);
	if (nr == NR_PWRITE64)
		on_exit.call(ctx, NR_PWRITE64);
	on_exit.call(ctx, nr);
	return 0;
}

/*
 * Tell user space where an inode is. Then go back to the handler that needed it, which starts over.
 */
HANDLER(bind_inode)
{
	int cpu = bpf_get_smp_processor_id();
	struct dk_binding *b = bindings.lookup(&cpu);
	struct dk_scratch *s = get_scratch();
	if (!b || !s)
		return 0;
	struct dk_inode *inode = (struct dk_inode *)s->body;
	char *dentry = (char *)b->dentry;
	if (!s->walk.turns) {
		b->epoch = control_value(DK_C_EPOCH);
		b->moves = control_value(DK_C_MOVES);
		begin(s, DK_OP_BIND, 0, 1);
		read_inode(inode, (char *)b->inode);
		if (is_unlinked(dentry))
			s->ev.flags = DK_F_GONE;
		char *mnt = (char *)b->mnt;
		if (mnt && is_mounted_apart(mnt))
			mnt = 0;
		if (!mnt) /* which no dentry is the root of: the path is the one in its filesystem */
			s->ev.flags |= DK_F_APART;
		begin_walk(s, dentry, mnt);
	}
	enum dk_walked walked = walk_path(s, sizeof(struct dk_inode));
	if (walked == DK_WALKS_ON)
		go_on(ctx, HELPER_BIND);
	if (walked != DK_AT_TOP)
		s->ev.flags |= DK_F_INEXACT; /* the names up to here */
	s->walk.turns = 0;
	u64 epoch = b->epoch;
	u32 size = sizeof(struct dk_event) + sizeof(struct dk_inode) + (s->ev.size & (WALK_MAX - 1));
	struct dk_question question = {};
	u32 asks = 0;
	if (judges())
		question_on(s, dentry, epoch, &question, &asks);
	mark_seen(inode, &question, epoch);
	if (control_value(DK_C_MOVES) != b->moves) { /* it may have been this file, and the path of before: nobody judges it */
		asks = 0;
		new_question(s, &question);
		mark_seen(inode, &question, epoch);
	}
	send(s, size);
	if (asks) /* a directory is worth an answer at once: more will be made in it */
		bpf_ringbuf_output(questions(), s, size,
				   s->ev.length || KIND(inode->mode) & KIND(S_IFDIR) ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
	if (s->again)
		go_on(ctx, s->again);
	else
		start_over(ctx);
	return 0;
}

/* Posts the request in scratch, with the path of its file: for when the descriptor is gone, because nobody was stopped. */
HANDLER(add_request)
{
	struct dk_scratch *s = get_scratch();
	if (!s)
		return 0;
	struct dk_request *r = &s->request;
	if (s->dentry) {
		if (!s->walk.turns) {
			char *mnt = (char *)s->mnt;
			if (!mnt || is_mounted_apart(mnt)) {
				r->apart = 1;
				mnt = 0;
			}
			begin_walk(s, (char *)s->dentry, mnt);
		}
		enum dk_walked walked = walk_path(s, 0);
		if (walked == DK_WALKS_ON)
			go_on(ctx, HELPER_REQUEST);
		s->walk.turns = 0;
		if (walked == DK_AT_TOP && s->ev.size <= REQUEST_PATH) {
			r->path_size = s->ev.size;
			bpf_probe_read_kernel(r->path, REQUEST_PATH, s->body);
		}
	}
	post(r);
	if (s->again == HELPER_CORE)
		go_on(ctx, HELPER_EXIT);
	return 0;
}

/*
 * A call that failed has changed times all the same, and perhaps a size: a write does before it finds that the bytes
 * cannot be had. That file is told as it is now, or what else the thread touched since its last record: but no other
 * file, which an earlier call may have touched, and of which overlayfs has the times of then.
 */
HANDLER(report_failed)
{
	struct dk_scratch *s = get_scratch();
	u32 tid = current_id();
	struct dk_touched *t = touched.lookup(&tid);
	if (!s || !t)
		return 0;
	struct dk_inode *inode = (struct dk_inode *)s->body;
	for (int i = 0; i < DK_STAMPS; i++) {
		char *raw = (char *)t->inode[i];
		if (!raw || (u64)rdp(raw + INODE_INO) != t->ino[i])
			continue;
		read_inode(inode, raw);
		/* a directory that nobody has used before is made known first, by its place in the filesystem: this starts anew */
		char *alias = KIND(inode->mode) == KIND(S_IFDIR) ? rdp(raw + INODE_ALIASES) : 0;
		if (alias && inode->nlink && control_value(DK_C_MOUNTS) > 1 && !skipped_devs.lookup(&inode->dev) &&
		    !(judges() && is_left_out(inode)) && !is_seen(inode, alias - DENTRY_ALIAS, 0, raw)) {
			go_on(ctx, HELPER_BIND);
			return 0;
		}
		t->inode[i] = 0;
		struct dk_key key = {};
		key_of(&key, inode);
		u32 is_file = KIND(inode->mode) & REGULAR;
		if ((is_file && s->written != (u64)raw) || !(KIND(inode->mode) & ON_DISK) ||
		    (!seen.lookup(&key) && !is_key(&s->last, inode)))
			continue;
		begin(s, DK_OP_UTIME, is_file ? DK_F_TRUNC : 0, 1);
		s->ev.offset = inode->size;
		s->ev.length = inode->mtime;
		send(s, sizeof(struct dk_event) + sizeof(struct dk_inode));
	}
	t->count = 0;
	return 0;
}
