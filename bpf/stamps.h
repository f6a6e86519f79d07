/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Stamps: what the inodes say that a call changed (touch.c puts their addresses aside). */

/* A name in 32 bits, to tell a stamp's node from its neighbours. Names have 1 to 255 bytes. */
static inline u32 name_tag(char *dentry)
{
	u32 length = rd32(dentry + DENTRY_NAME_LEN) & 255, tag = 0;
	char *name = rdp(dentry + DENTRY_NAME);
	bpf_probe_read_kernel(&tag, 3, length < 3 ? name : name + length - 3);
	if (length < 3)
		tag &= length == 2 ? 0xFFFF : 0xFF;
	return tag << 8 | length;
}

#define SECOND 1000000000LL
/*
 * The time that inodes get now: of the last tick. It lies in tk_core of kernel/time/timekeeping.c, a sequence counter and
 * the timekeeper behind it; where that is, user space looks up. 0: not known, or that is no clock.
 */
static inline s64 inode_time(void)
{
#if HAVE_CLOCK
	char *core = (char *)control_value(DK_C_CLOCK), *keeper = core + 8;
	if (!core)
		return 0;
	#pragma unroll
	for (int i = 0; i < 3; i++) { /* it may be set meanwhile, on another processor */
		u32 before = rd32(core);
		s64 time = (s64)rdp(keeper + CLOCK_SEC) * SECOND + ((u64)rdp(keeper + CLOCK_NSEC) >> (rd32(keeper + CLOCK_SHIFT) & 63));
		s64 monotonic = time + (s64)rdp(keeper + CLOCK_TO_MONOTONIC) * SECOND + (s64)rdp(keeper + CLOCK_TO_MONOTONIC + 8);
		u64 age = bpf_ktime_get_ns() - monotonic;
		if (!(before & 1) && rd32(core) == before && age < SECOND)
			return time;
	}
#endif
	return 0;
}

/* What the caller gives to what it makes and changes: for kernels that do not say which inodes that is. */
static inline void stamp_caller(struct dk_scratch *s, struct dk_inode *slots)
{
	char *task = (char *)bpf_get_current_task(), *cred = rdp(task + TASK_CRED);
	struct dk_inode *out = &slots[s->stamps & (DK_STAMPS - 1)];
	struct dk_inode none = {.dev = DK_CALLER};
	*out = none;
	out->mtime = out->ctime = inode_time();
	out->mode = rd32((char *)rdp(task + TASK_FS) + FS_UMASK);
	out->uid = rd32(cred + CRED_FSUID);
	out->gid = rd32(cred + CRED_FSGID);
	s->taken[s->stamps & (DK_STAMPS - 1)] = 0;
	s->stamps++;
}

/*
 * Put the inodes that the thread `stamps_of` touched into `slots`, and forget them: s->stamps of them. The number lives in
 * memory, so that the verifier sees the same state at every turn.
 */
static inline void take_touched(struct dk_scratch *s, struct dk_inode *slots)
{
	struct dk_touched *t = touched.lookup(&s->stamps_of);
	s->stamps = 0;
	if (!t)
		return;
	for (int i = 0; i < DK_STAMPS; i++) {
		u32 at = s->stamps & (DK_STAMPS - 1);
		struct dk_inode *out = &slots[at];
		char *inode = (char *)t->inode[i];
		t->inode[i] = 0;
		/* The pointer may be stale: an inode that is gone does not answer with its number. */
		if (!inode || (t->ino[i] && (u64)rdp(inode + INODE_INO) != t->ino[i])) /* XFS gives a new one its number late */
			continue;
		read_inode(out, inode);
		s->taken[at] = (u64)inode;
		s->stamps = at + 1;
		char *alias = rdp(inode + INODE_ALIASES);
		if (alias && (out->nlink == 1 || (out->mode & S_IFMT) == S_IFDIR)) { /* else any of its names may come first */
			char *dentry = alias - DENTRY_ALIAS;
			if (!is_unlinked(dentry) && rdp(dentry + DENTRY_PARENT) != dentry) {
				out->parent = (u64)rdp(parent_of(dentry) + INODE_INO);
				out->tag = name_tag(dentry);
			}
		}
	}
	t->count = 0;
}

static inline void take_stamps(struct dk_scratch *s, struct dk_inode *slots)
{
	take_touched(s, slots);
	if (!control_value(DK_C_MOUNTS) && s->stamps < DK_STAMPS)
		stamp_caller(s, slots);
}

/*
 * Some filesystems set the times of an inode they have just made where no tracepoint looks. But its entry is among the
 * youngest of its directory, which has a stamp: look there for the name that `path_end` is the end of (its last three
 * bytes), and put what it names into `out`. Of directories on several filesystems, those on `dev` count, or else the one
 * that was touched last: overlayfs has each twice, its own after the one below.
 */
#define YOUNGEST 16
#define LOOKS 40 /* at entries and directories in all */
#define LOOKS_AT_ONCE 8
static inline void begin_looking(struct dk_scratch *s, struct dk_inode *slots, struct dk_inode *out, u32 path_end, u32 dev)
{
	struct dk_wanted *wanted = &s->wanted;
	wanted->end = path_end & 0xFFFFFF;
	wanted->dev = dev;
	wanted->near = 0;
	wanted->stamp = 0;
	wanted->looks = 0;
	wanted->head = wanted->link = 0;
	out->ino = out->dev = 0;
	for (int i = 0; i < DK_STAMPS; i++)
		if (i < s->stamps && slots[i].dev == dev)
			wanted->near = 1;
}

/* Whether it is to be looked for further, by the same program once more. */
static inline int look_for_child(struct dk_scratch *s, struct dk_inode *slots, struct dk_inode *out)
{
	volatile struct dk_wanted *wanted = &s->wanted; /* not in registers: each turn is to look the same to the verifier */
	for (int i = 0; i < LOOKS_AT_ONCE; i++) {
		if (!wanted->link || wanted->link == wanted->head || !wanted->left) { /* on to the next directory */
			u32 stamp = wanted->stamp;
			if (stamp >= s->stamps || stamp >= DK_STAMPS)
				return 0;
			wanted->stamp = stamp + 1;
			wanted->link = 0;
			char *directory = (char *)s->taken[stamp];
			struct dk_inode *slot = &slots[stamp];
			if ((slot->mode & S_IFMT) != S_IFDIR || (wanted->near && slot->dev != wanted->dev))
				continue;
			char *alias = rdp(directory + INODE_ALIASES);
			if (!alias)
				continue;
			wanted->head = alias - DENTRY_ALIAS + DENTRY_CHILDREN;
			wanted->link = rdp(wanted->head);
			wanted->left = YOUNGEST;
			continue;
		}
		char *dentry = wanted->link - DENTRY_SIBLING, *inode = rdp(dentry + DENTRY_INODE);
		u32 tag = name_tag(dentry), length = tag & 255;
		u32 shift = length < 3 ? (3 - length) * 8 : 0;
		if (inode && tag >> 8 == wanted->end >> (shift & 31)) {
			read_inode(out, inode);
			out->parent = slots[(wanted->stamp - 1) & (DK_STAMPS - 1)].ino;
			out->tag = tag;
			return 0;
		}
		wanted->link = rdp(wanted->link);
		wanted->left--;
	}
	wanted->looks += LOOKS_AT_ONCE;
	return wanted->looks < LOOKS;
}

static inline void drop_stamps(void)
{
	u32 tid = current_id();
	struct dk_touched *t = touched.lookup(&tid);
	if (!t)
		return;
	for (int i = 0; i < DK_STAMPS; i++)
		t->inode[i] = 0;
	t->count = 0;
}
