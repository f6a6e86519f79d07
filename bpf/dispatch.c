/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* sys_exit: one tail call by syscall number. Calls nobody handles cost one failed look-up. */

HANDLER(sys_exit)
{
	u64 nr = 0;
	bpf_probe_read_kernel(&nr, sizeof(nr), (char *)ctx->args[0] + offsetof(struct pt_regs, orig_ax));
	on_exit.call(ctx, nr);
	return 0;
}

#define BIND_MAX 32768u

/*
 * Tell user space where an inode is: its kernel path, leaf first, across mounts.
 * Then go back to the handler that needed it, which starts over.
 */
HANDLER(bind_inode)
{
	int cpu = bpf_get_smp_processor_id();
	struct dk_binding *b = bindings.lookup(&cpu);
	struct dk_scratch *s = get_scratch();
	if (!b || !s)
		return 0;
	struct dk_inode *inode = (struct dk_inode *)s->body;
	char *dentry = (char *)b->dentry, *mnt = (char *)b->mnt;
	begin(s, DK_OP_BIND, 0, 1);
	read_inode(inode, (char *)b->inode);
	/* d_unhashed(), but the root of a filesystem is never hashed */
	if (!rdp(dentry + DENTRY_HASH_PPREV) && rdp(dentry + DENTRY_PARENT) != dentry)
		s->ev.flags = DK_F_GONE;
	/* The length lives in the record, not in a register: so the verifier sees the same state at every turn. */
	u32 ended = 0;
	for (int i = 0; i < BIND_DEPTH; i++) {
		if (dentry == rdp(mnt + VFSMOUNT_ROOT)) {
			char *mount = mnt - MOUNT_MNT;
			char *up = rdp(mount + MOUNT_PARENT);
			if (up == mount) {
				ended = 1;
				break;
			}
			dentry = rdp(mount + MOUNT_MOUNTPOINT);
			mnt = up + MOUNT_MNT;
			continue;
		}
		char *parent = rdp(dentry + DENTRY_PARENT);
		if (parent == dentry) { /* an inode outside every mount: a detached tree */
			ended = 1;
			break;
		}
		u32 at = s->ev.size & (BIND_MAX - 1);
		int n = bpf_probe_read_kernel_str(s->body + sizeof(struct dk_inode) + at, 256, rdp(dentry + DENTRY_NAME));
		if (n <= 0)
			break;
		s->ev.size = at + n;
		dentry = parent;
	}
	if (!ended)
		s->ev.flags |= DK_F_INEXACT; /* deeper than we walk: the names up to here */
	mark_seen(inode);
	send(s, sizeof(struct dk_event) + sizeof(struct dk_inode) + (s->ev.size & (BIND_MAX - 1)));
	u64 nr = 0;
	bpf_probe_read_kernel(&nr, sizeof(nr), (char *)ctx->args[0] + offsetof(struct pt_regs, orig_ax));
	on_exit.call(ctx, nr);
	return 0;
}
