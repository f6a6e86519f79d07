/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Which inodes a call changed: every change of a file or a directory sets a
 * ctime, and these tracepoints say of which inode, in the task that does it.
 * So a call that only has a path still gives us the inodes it reached. Kernels
 * before 6.13 lack the ctime ones; then directory times are estimates.
 */

static inline int touch(char *inode)
{
	u64 id = bpf_get_current_pid_tgid();
	u32 tid = id;
	if (!is_tracked(id >> 32))
		return 0;
	struct dk_touched *t = touched.lookup(&tid);
	if (!t) {
		struct dk_scratch *s = get_scratch();
		if (!s)
			return 0;
		touched.update(&tid, &s->untouched);
		t = touched.lookup(&tid);
		if (!t)
			return 0;
	}
	#pragma unroll
	for (int i = 0; i < DK_STAMPS; i++)
		if (t->inode[i] == (u64)inode)
			return 0;
	if (is_worker()) {
		u32 tgid = id >> 32;
		workers.update(&tgid, &tid);
	}
	u32 slot = t->count & (DK_STAMPS - 1);
	t->inode[slot] = (u64)inode;
	t->ino[slot] = (u64)rdp(inode + INODE_INO);
	t->count++;
	return 0;
}

HANDLER(inode_set_ctime_to_ts) { return touch((char *)ctx->args[0]); }
HANDLER(ctime_ns_xchg) { return touch((char *)ctx->args[0]); }
HANDLER(ctime_xchg_skip) { return touch((char *)ctx->args[0]); }
HANDLER(writeback_mark_inode_dirty) { return touch((char *)ctx->args[0]); }
