/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Processes with mounts of their own: the text of their paths says nothing to anybody else. What a call has
 * touched does. So its directories are made known before it is sent, by where they are in their filesystem.
 */

static inline u64 mounts_of(char *task)
{
	char *proxy = rdp(task + TASK_NSPROXY);
	return proxy ? (u64)rdp(proxy + NSPROXY_MNT) : 0;
}

static inline void keep_mounts(char *task)
{
	u32 slot = DK_C_MOUNTS;
	u64 *kept = control.lookup(&slot);
	if (kept)
		*kept = mounts_of(task);
}

/*
 * Whether paths of this process are to be told by what they led to. Not where only its root is another one: a path is told
 * with the directory that it starts from.
 */
static inline int is_apart(void)
{
	u64 kept = control_value(DK_C_MOUNTS);
	if (kept <= 1) /* this kernel does not tell what is touched */
		return 0;
	u64 own = mounts_of((char *)bpf_get_current_task());
	return (own && own != kept) || control_value(DK_C_APART);
}

/*
 * Whether paths by way of a mount are others than the recorder has: of another table of mounts, or of none any more. That
 * is the mount's own affair, not the caller's: a descriptor may come from a process apart.
 */
static inline int is_mounted_apart(char *mnt)
{
	u64 kept = control_value(DK_C_MOUNTS);
	if (kept <= 1)
		return 0;
	u64 own = (u64)rdp(mnt - MOUNT_MNT + MOUNT_NAMESPACE);
	return (own != kept && own < -4096ULL) || control_value(DK_C_APART); /* an error: the kernel's own, nowhere to be seen */
}

/* The name call in scratch goes to who sends it. */
static inline void call_on_name(struct bpf_raw_tracepoint_args *ctx)
{
	go_on(ctx, is_apart() ? HELPER_APART : HELPER_NAME);
}
