/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Which processes belong to the recording, and what became of them. */

#define COMM_LEN 16u

/* The task's name to the front of the body; says how long it is. */
static inline u32 copy_comm(struct dk_scratch *s, char *task)
{
	int n = bpf_probe_read_kernel_str(s->body, COMM_LEN, task + TASK_COMM);
	return n > 0 ? (n - 1) & (COMM_LEN - 1) : 0;
}

HANDLER(sched_process_fork)
{
	char *parent = (char *)ctx->args[0], *child = (char *)ctx->args[1];
	find_numbers(child);
	u32 parent_tgid = tgid_of(parent), child_tgid = tgid_of(child);
	u8 one = 1;
	if (parent_tgid == child_tgid || !is_tracked(parent_tgid))
		return 0;
	if (tracked.update(&child_tgid, &one))
		count(DK_C_UNFOLLOWED, 1);
	inherit_mappings(parent, child);
	struct dk_scratch *s = get_scratch();
	if (!s)
		return 0;
	begin(s, DK_OP_FORK, 0, 0);
	s->ev.offset = child_tgid;
	s->ev.length = uid_of(child);
	u32 size = copy_comm(s, child);
	s->ev.size = size;
	send(s, sizeof(struct dk_event) + size);
	return 0;
}

HANDLER(sched_process_exec)
{
	char *task = (char *)ctx->args[0];
	if (!is_tracked(tgid_of(task)))
		return 0;
	struct dk_scratch *s = get_scratch();
	if (!s)
		return 0;
	unmap_all(s);
	u32 tgid = tgid_of(task);
	waits.delete(&tgid);
	if (!control_value(DK_C_GROUP)) /* the command */
		count(DK_C_GROUP, (u64)pid_of(task, PIDTYPE_PGID));
	if (control_value(DK_C_MOUNTS) == 1)
		keep_mounts(task);
	begin(s, DK_OP_EXEC, 0, 0);
	s->ev.length = uid_of(task);
	u32 at = copy_comm(s, task);
	s->body[at++] = 0;
	char *mm = rdp(task + TASK_MM);
	if ((u64)rdp(mm + MM_TASK_SIZE) >> 32 == 0)
		count(DK_C_COMPAT, 1);
	u64 from = (u64)rdp(mm + MM_ARG_START), to = (u64)rdp(mm + MM_ARG_END);
	u32 n = to - from;
	if (to - from > PATH_MAX_ - 1)
		n = PATH_MAX_ - 1;
	n &= PATH_MAX_ - 1;
	if (read_user(s->body + at, n, (void *)from))
		n = 0;
	s->ev.size = at + n;
	send(s, sizeof(struct dk_event) + at + n);
	return 0;
}

#define CORE_DUMPED 0x80 /* of an exit status, as of wait(2) */
#define CORE_TOLD 2 /* among the processes that are followed */

/*
 * The file that the kernel has dumped this process into: of what this thread touched the last, as no call came after it.
 * On the filesystem of the working directory, if one is: overlayfs has it twice. 0: some other thread's, or a program's.
 * It is kept in memory, so that each turn looks the same to the verifier.
 */
static inline char *core_of(struct dk_scratch *s, struct dk_touched *t, u32 here)
{
	volatile u64 *core = &s->core;
	*core = 0;
	for (int i = 0; i < DK_STAMPS; i++) {
		char *raw = (char *)t->inode[i], *alias = raw ? rdp(raw + INODE_ALIASES) : 0;
		if (!alias || KIND(LOAD(u16, raw + INODE_MODE)) != REGULAR)
			continue;
		/* overlayfs gives a new one its number after it was touched; but then its directory was touched, too */
		if ((u64)rdp(raw + INODE_INO) != t->ino[i] && !is_touched(t, parent_of(alias - DENTRY_ALIAS)))
			continue;
		if (!*core || (sb_dev(raw) == here && sb_dev((char *)*core) != here))
			*core = (u64)raw;
	}
	return (char *)*core;
}

/* A core dump is told as what an open would have done; its bytes are read, when nobody writes to them any more. */
static inline void tell_core(struct bpf_raw_tracepoint_args *ctx, struct dk_scratch *s, struct dk_touched *t)
{
	u32 tgid = current_id() >> 32;
	struct dk_inode *slots = (struct dk_inode *)s->body;
	char *directory = 0, *mnt = 0, *raw = 0;
	u32 here = base_of(AT_FDCWD_, slots, &directory, &mnt, &raw) ? slots->dev : 0;
	char *core = core_of(s, t, here);
	if (!core)
		return;
	u8 told = CORE_TOLD;
	tracked.update(&tgid, &told);
	read_inode(slots, core);
	char *dentry = rdp(core + INODE_ALIASES) - DENTRY_ALIAS;
	if (slots->dev != here)
		mnt = 0;
	if (skipped_devs.lookup(&slots->dev) || (judges() && is_left_out(slots)))
		return;
	int created = is_touched(t, parent_of(dentry));
	if (created && !known_parent(ctx, s, dentry, mnt))
		return;
	if (!is_seen(slots, dentry, mnt, core)) {
		go_on(ctx, HELPER_BIND);
		return;
	}
	begin(s, DK_OP_OPEN, DK_F_TRUNC | (created ? DK_F_CREATED : 0), 1 + created);
	u32 size = created ? add_name(s, dentry) : 0;
	s->ev.size = size;
	drop_stamps();
	send(s, sizeof(struct dk_event) + (1 + created) * sizeof(struct dk_inode) + size);
	s->dentry = (u64)dentry;
	s->mnt = (u64)mnt;
	ask_for_range(ctx, s, -1, 0, 0, slots->size, 0);
}

HANDLER(core_dumped)
{
	u32 tid = current_id();
	struct dk_scratch *s = get_scratch();
	struct dk_touched *t = touched.lookup(&tid);
	if (s && t)
		tell_core(ctx, s, t);
	go_on(ctx, HELPER_EXIT);
	return 0;
}

HANDLER(sched_process_exit)
{
	char *task = (char *)ctx->args[0];
	u32 tid = current_id();
	struct dk_scratch *s = get_scratch();
	if (!s || !is_tracked(tgid_of(task)))
		return 0;
	if (rd32((char *)rdp(task + TASK_SIGNAL) + SIGNAL_EXIT_CODE) & CORE_DUMPED && touched.lookup(&tid)) {
		s->again = HELPER_CORE;
		go_on(ctx, HELPER_CORE);
	}
	go_on(ctx, HELPER_EXIT);
	return 0;
}

/* The rest of it, when what the kernel wrote for this thread is told. */
HANDLER(thread_ended)
{
	char *task = (char *)ctx->args[0];
	u32 tgid = tgid_of(task), tid = current_id();
	touched.delete(&tid);
	char *group = rdp(task + TASK_SIGNAL);
	if (rd32(group + SIGNAL_LIVE))
		return 0; /* other threads go on */
	struct dk_scratch *s = get_scratch();
	if (s) {
		unmap_all(s);
		begin(s, DK_OP_EXIT, 0, 0);
		u32 code = rd32(group + SIGNAL_EXIT_CODE);
		s->ev.offset = code ? code : rd32(task + TASK_EXIT_CODE);
		send(s, sizeof(struct dk_event));
		u8 *kept = tracked.lookup(&tgid);
		if (code & CORE_DUMPED && kept && *kept != CORE_TOLD)
			count(DK_C_CORES, 1);
	}
	tracked.delete(&tgid);
	count(DK_C_EXITS, 1);
	workers.delete(&tgid);
	holds.delete(&tgid);
	waits.delete(&tgid);
	return 0;
}
