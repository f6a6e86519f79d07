/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Which inodes a call changed: every change of a file or a directory sets a
 * ctime, and these tracepoints say of which inode, in the task that does it.
 * So a call that only has a path still gives us the inodes it reached. Kernels
 * before 6.13 lack the ctime ones; then directory times are estimates.
 */

#define BDEVFS_MAGIC_ 0x62646576

/* Whether an inode is that of a whole block device, which a filesystem on it writes its own records to: no call is about it. */
static inline int is_device_itself(char *inode)
{
	return LOAD(u16, inode + INODE_MODE) == S_IFBLK && (u64)rdp((char *)rdp(inode + INODE_SB) + SB_MAGIC) == BDEVFS_MAGIC_;
}

static inline int touch(char *inode)
{
	u64 id = bpf_get_current_pid_tgid();
	u32 tid = id;
	struct dk_scratch *s = get_scratch();
	if (!s || !is_tracked_now(s, id >> 32))
		return 0;
	struct dk_touched *t = touched.lookup(&tid);
	if (!t) {
		touched.update(&tid, &s->untouched);
		t = touched.lookup(&tid);
		if (!t)
			return 0;
	}
	if (t->inode[0] == (u64)inode || is_device_itself(inode))
		return 0;
	if (is_worker()) {
		u32 tgid = id >> 32;
		workers.update(&tgid, &tid);
	}
	/* To the front, wherever it was: what this call touched must not give way to what earlier ones did. */
	u64 address = (u64)inode, number = (u64)rdp(inode + INODE_INO);
	#pragma unroll
	for (int i = 0; i < DK_STAMPS; i++) {
		u64 next_address = t->inode[i], next_number = t->ino[i];
		t->inode[i] = address;
		t->ino[i] = number;
		if (next_address == (u64)inode)
			break;
		address = next_address;
		number = next_number;
	}
	t->count++;
	return 0;
}

HANDLER(inode_set_ctime_to_ts) { return touch((char *)ctx->args[0]); }
HANDLER(ctime_ns_xchg) { return touch((char *)ctx->args[0]); }
HANDLER(ctime_xchg_skip) { return touch((char *)ctx->args[0]); }
HANDLER(writeback_mark_inode_dirty) { return touch((char *)ctx->args[0]); }
