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
	u32 parent_tgid = rd32(parent + TASK_TGID), child_tgid = rd32(child + TASK_TGID);
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
	if (!is_tracked(rd32(task + TASK_TGID)))
		return 0;
	struct dk_scratch *s = get_scratch();
	if (!s)
		return 0;
	unmap_all(s);
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
	if (bpf_probe_read_user(s->body + at, n, (void *)from))
		n = 0;
	s->ev.size = at + n;
	send(s, sizeof(struct dk_event) + at + n);
	return 0;
}

HANDLER(sched_process_exit)
{
	char *task = (char *)ctx->args[0];
	u32 tgid = rd32(task + TASK_TGID), tid = bpf_get_current_pid_tgid();
	if (!is_tracked(tgid))
		return 0;
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
	}
	tracked.delete(&tgid);
	count(DK_C_EXITS, 1);
	workers.delete(&tgid);
	holds.delete(&tgid);
	return 0;
}
