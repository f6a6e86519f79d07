/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Which inodes a call changed: every change of a file or a directory sets a
 * ctime, and these tracepoints say of which inode, in the task that does it.
 * So a call that only has a path still gives us the inodes it reached. Kernels
 * before 6.13 lack the ctime ones; then directory times are estimates.
 */

#define BDEVFS_MAGIC_ 0x62646576
#define BTRFS_MAGIC_ 0x9123683E
#define BTRFS_TREES 1 /* the number of an inode whose type is whatever was in its memory before */

/*
 * Whether a filesystem writes its own records through an inode, so that no call is about it: that of a whole block device,
 * and the one that btrfs has its trees in.
 */
static inline int is_for_records(char *inode, u64 number)
{
	if (number != BTRFS_TREES && LOAD(u16, inode + INODE_MODE) != S_IFBLK)
		return 0;
	u64 magic = (u64)rdp((char *)rdp(inode + INODE_SB) + SB_MAGIC);
	return magic == BDEVFS_MAGIC_ || (magic == BTRFS_MAGIC_ && number == BTRFS_TREES);
}

/* Says whether that is any concern of ours. */
static inline int touch(char *inode)
{
	u64 id = current_id();
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
	u64 address = (u64)inode, number;
	if (t->inode[0] == address)
		return 1;
	number = (u64)rdp(inode + INODE_INO);
	if (is_for_records(inode, number))
		return 0;
	if (is_worker()) {
		u32 tgid = id >> 32;
		workers.update(&tgid, &tid);
	}
	/* To the front, wherever it was: what this call touched must not give way to what earlier ones did. */
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
	return 1;
}

/* An inode gets a ctime: a new one, or the one that it had, as it is read from the disk. */
HANDLER(inode_set_ctime_to_ts)
{
	touch((char *)ctx->args[0]);
	return 0;
}

/* The ctime is now, and that of before comes with it, or it is now already. */
static inline int touch_now(char *inode)
{
	if (touch(inode))
		look_for_unseen(inode);
	return 0;
}

HANDLER(ctime_ns_xchg) { return touch_now((char *)ctx->args[0]); }
HANDLER(ctime_xchg_skip) { return touch_now((char *)ctx->args[0]); }

HANDLER(writeback_mark_inode_dirty)
{
	touch((char *)ctx->args[0]);
	return 0;
}
