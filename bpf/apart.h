/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Processes with mounts of their own: the text of their paths says nothing to anybody else. What a call has
 * touched does. So its directories are made known before it is sent, by where they are in their filesystem.
 */

static inline void keep_root(char *task)
{
	char *root = (char *)rdp(task + TASK_FS) + FS_ROOT;
	u32 mnt = DK_C_ROOT_MNT;
	u64 *kept_mnt = control.lookup(&mnt);
	if (kept_mnt)
		*kept_mnt = (u64)rdp(root + PATH_MNT);
}

/* Whether paths of this process are to be told by what they led to. A mount namespace has a root mount of its own. */
static inline int is_apart(void)
{
	u64 mnt = control_value(DK_C_ROOT_MNT);
	if (mnt <= 1) /* this kernel does not tell what is touched */
		return 0;
	char *root = (char *)rdp((char *)bpf_get_current_task() + TASK_FS) + FS_ROOT;
	return (u64)rdp(root + PATH_MNT) != mnt || control_value(DK_C_APART);
}

/* The name call in scratch goes to who sends it. */
static inline void call_on_name(struct bpf_raw_tracepoint_args *ctx)
{
	helpers.call(ctx, is_apart() ? HELPER_APART : HELPER_NAME);
}
