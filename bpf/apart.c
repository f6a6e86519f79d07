/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Calls of processes apart (apart.h): what they touched is made known to user space before they are told. */

/*
 * The inode that this thread touched last, its facts as inode 0: the one that a call on attributes has changed. Says 0
 * when there is nothing (more) to do, as `known` does.
 */
static inline int known_touched(struct bpf_raw_tracepoint_args *ctx, struct dk_scratch *s)
{
	struct dk_inode *inode = (struct dk_inode *)s->body;
	struct dk_touched *t = touched.lookup(&s->stamps_of);
	if (!t)
		return 0;
	char *raw = (char *)t->inode[0];
	if (!raw || (u64)rdp(raw + INODE_INO) != t->ino[0])
		return 0;
	read_inode(inode, raw);
	if (skipped_devs.lookup(&inode->dev) || (judges() && is_left_out(inode)))
		return 0;
	char *alias = rdp(raw + INODE_ALIASES);
	if (alias && !is_seen(inode, alias - DENTRY_ALIAS, 0, raw)) {
		go_on(ctx, HELPER_BIND);
		return 0;
	}
	return 1;
}

/* The end of the last name of a path, as stamps have it. */
static inline u32 path_end(struct dk_scratch *s, u64 path, u64 limit)
{
	u32 from = sizeof(struct dk_inode); /* what is before a short name is looked at, too */
	u32 at = add_string(s, from, path, s->call.saved);
	return name_end(s, limit && at - from > limit + 1 ? from + limit + 1 : at);
}

static inline int ends_with(char *dentry, u32 end)
{
	u32 tag = name_tag(dentry), length = tag & 255, shift = length < 3 ? (3 - length) * 8 : 0;
	return tag >> 8 == (end & 0xFFFFFF) >> (shift & 31);
}

/* The entry of a directory that is there still; 0 for all else. */
static inline char *directory_of(struct dk_touched *t, int i)
{
	char *raw = (char *)t->inode[i], *alias = raw ? rdp(raw + INODE_ALIASES) : 0;
	if (!alias || (u64)rdp(raw + INODE_INO) != t->ino[i] || KIND(LOAD(u16, raw + INODE_MODE)) != KIND(S_IFDIR))
		return 0;
	char *dentry = alias - DENTRY_ALIAS;
	return is_unlinked(dentry) ? 0 : dentry;
}

/*
 * The path call in scratch, when user space knows all directories that it touched, and of a LINK the file. Only not what
 * has got its name by this very call: it would be told at a place where it is to come to.
 */
HANDLER(send_apart)
{
	struct dk_scratch *s = get_scratch();
	struct dk_touched *t = s ? touched.lookup(&s->stamps_of) : 0;
	if (!t)
		return 0;
	struct dk_call *c = &s->call;
	u32 end = path_end(s, c->bases == 2 ? c->path2 : c->path1, c->limit), other = end;
	if (c->op == DK_OP_RENAME && c->offset & RENAME_EXCHANGE_)
		other = path_end(s, c->path1, 0);
	for (int i = 0; i < DK_STAMPS; i++) {
		char *raw = (char *)t->inode[i], *dentry = directory_of(t, i);
		if (dentry) {
			if ((ends_with(dentry, end) || ends_with(dentry, other)) && rdp(dentry + DENTRY_PARENT) != dentry &&
			    is_touched(t, parent_of(dentry)))
				continue;
		} else {
			char *alias = raw && c->op == DK_OP_LINK ? rdp(raw + INODE_ALIASES) : 0, *older = alias ? rdp(alias) : 0;
			if (!alias || (u64)rdp(raw + INODE_INO) != t->ino[i] || KIND(LOAD(u16, raw + INODE_MODE)) == KIND(S_IFDIR) ||
			    rd32(raw + INODE_NLINK) < 2) /* of an earlier call; or it never had a name, and is known */
				continue;
			/* the latest of its names is the one that the call gave it */
			dentry = older ? older - DENTRY_ALIAS : alias - DENTRY_ALIAS;
		}
		struct dk_inode *inode = (struct dk_inode *)s->body;
		read_inode(inode, raw);
		if (!skipped_devs.lookup(&inode->dev) && !is_seen(inode, dentry, 0, raw)) {
			go_on(ctx, HELPER_BIND);
			return 0;
		}
	}
	c->flags |= DK_F_APART;
	go_on(ctx, HELPER_NAME);
	return 0;
}

/* mount, umount and the like: where our own paths lead may be other places from now on. */
HANDLER(on_mount)
{
	struct dk_scratch *s = (s64)ctx->args[1] < 0 ? 0 : enter(ctx);
	if (s)
		ask_for_sync(s, DK_R_MOUNTS, 1);
	return 0;
}
