/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Reading kernel objects by the offsets that diffkeeper/record/layout.py took from BTF: files, inodes, paths, the
 * calling task. Writes nothing but scratch.
 */

/* Goes on in another program. The kernel allows 33 in a row: after that, what is left of the call is lost. */
static inline void go_on(struct bpf_raw_tracepoint_args *ctx, u32 helper)
{
	programs.call(ctx, helper);
	count(DK_C_CUT_SHORT, 1);
}

static inline int is_tracked(u32 tgid)
{
	return tracked.lookup(&tgid) != 0;
}

static inline struct dk_scratch *get_scratch(void)
{
	int cpu = bpf_get_smp_processor_id();
	return scratch.lookup(&cpu);
}

static inline u32 uid_of(char *task)
{
	return rd32((char *)rdp(task + TASK_CRED) + CRED_UID);
}

/* With which it may use files. */
static inline u32 group_of(char *task)
{
	return rd32((char *)rdp(task + TASK_CRED) + CRED_FSGID);
}

#define FMODE_WRITE_ 2

static inline char *file_of(int fd)
{
	char *files = rdp((char *)bpf_get_current_task() + TASK_FILES);
	char *fdt = rdp(files + FILES_FDT);
	if ((u32)fd >= rd32(fdt + FDT_MAX_FDS))
		return 0;
	char **fds = rdp(fdt + FDT_FD);
	return rdp(&fds[(u32)fd]);
}

/* As stat() shows a device number, from the kernel's own 12:20 form. */
static inline u32 stat_dev(u32 dev)
{
	u32 major = dev >> 20, minor = dev & 0xFFFFF;
	return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12);
}

static inline u32 sb_dev(char *inode)
{
	return rd32((char *)rdp(inode + INODE_SB) + SB_DEV);
}

static inline char *parent_of(char *dentry)
{
	return rdp((char *)rdp(dentry + DENTRY_PARENT) + DENTRY_INODE);
}

#define S_CASEFOLD_ (1 << 15)

/*
 * Whether a dentry is no name any more, or never was one. As d_unlinked(), which says so of a file that was just made in
 * a directory where upper and lower case are the same, too: it is hashed when it is looked up again.
 */
static inline int is_unlinked(char *dentry)
{
	if (rdp(dentry + DENTRY_HASH_PPREV) || rdp(dentry + DENTRY_PARENT) == dentry) /* no root is hashed */
		return 0;
	return !(rd32(parent_of(dentry) + INODE_FLAGS) & S_CASEFOLD_) || !rd32((char *)rdp(dentry + DENTRY_INODE) + INODE_NLINK);
}

/* Fills all but `parent`. INODE_HEAD covers every member but i_generation, which moved around. */
static inline void read_inode(struct dk_inode *out, char *inode)
{
#ifdef RDONLY_CAST
	char *head = as_memory(inode, 0);
#else
	char head[INODE_HEAD];
	bpf_probe_read_kernel(head, sizeof(head), inode);
#endif
	out->ino = *(u64 *)(head + INODE_INO);
	out->dev = sb_dev(inode);
#if INODE_GENERATION + 4 <= INODE_HEAD
	out->gen = *(u32 *)(head + INODE_GENERATION);
#else
	out->gen = rd32(inode + INODE_GENERATION);
#endif
	out->size = *(u64 *)(head + INODE_SIZE);
	out->mtime = *(s64 *)(head + INODE_MTIME_SEC) * 1000000000LL + (*(u32 *)(head + INODE_MTIME_NSEC) & 0x3FFFFFFF);
	out->ctime = *(s64 *)(head + INODE_CTIME_SEC) * 1000000000LL + (*(u32 *)(head + INODE_CTIME_NSEC) & 0x3FFFFFFF);
	out->parent = 0;
	out->mode = *(u16 *)(head + INODE_MODE);
	out->uid = *(u32 *)(head + INODE_UID);
	out->gid = *(u32 *)(head + INODE_GID);
	out->nlink = *(u32 *)(head + INODE_NLINK);
	out->rdev = stat_dev(*(u32 *)(head + INODE_RDEV));
	out->tag = 0;
}

static inline void key_of(struct dk_key *key, struct dk_inode *inode)
{
	key->ino = inode->ino;
	key->dev = inode->dev;
	key->gen = inode->gen;
}

static inline int is_compat(void)
{
	return rd32((char *)bpf_get_current_task() + TASK_STATUS) & 2 /* TS_COMPAT */;
}

/* Whether this thread is one that io_uring made to do a process's requests. */
static inline int is_worker(void)
{
	return rd32((char *)bpf_get_current_task() + TASK_FLAGS) & 0x10 /* PF_IO_WORKER */;
}

/* The registers that hold the number of a system call and what was passed to it. */
static inline void read_arguments(struct pt_regs *out, void *regs)
{
#ifdef RDONLY_CAST
	struct pt_regs *from = as_memory(regs, 0);
	out->orig_ax = from->orig_ax;
	out->di = from->di;
	out->si = from->si;
	out->dx = from->dx;
	out->r10 = from->r10;
	out->r8 = from->r8;
	out->r9 = from->r9;
#else
	bpf_probe_read_kernel(out, sizeof(*out), regs);
#endif
}

#ifdef TASK_REGISTERS
static char *(*current_task)(void) = (void *)158; /* bpf_get_current_task_btf */
static char *(*registers_of)(void *task) = (void *)175; /* bpf_task_pt_regs */
#endif

/*
 * The registers that the current task's parent has come into the kernel with: they lie where our own do, each on its own
 * stack. To follow a typed pointer to the parent costs the verifier ten times as much.
 */
static inline void *parent_registers(char *task, char *parent)
{
	u64 place = 16384 /* THREAD_SIZE */ - sizeof(struct pt_regs);
#ifdef TASK_REGISTERS
	char *typed = current_task();
	volatile u64 distance = registers_of(typed) - typed; /* a number; to pointers themselves nothing may be added */
	place = distance + (u64)task - (u64)rdp(task + TASK_STACK);
#endif
	return (char *)rdp(parent + TASK_STACK) + place;
}

/* The number of the system call that is ending. */
static inline u64 call_number(struct bpf_raw_tracepoint_args *ctx)
{
	return LOAD(u64, (char *)ctx->args[0] + offsetof(struct pt_regs, orig_ax));
}

/* Whether process `tgid` is tracked; it is looked up once while this CPU serves nobody else. */
static inline int is_tracked_now(struct dk_scratch *s, u32 tgid)
{
	u64 process = control_value(DK_C_EXITS) << 32 | tgid;
	if (s->tracked_process == process)
		return process != 0; /* where nobody was seen yet; no process is 0 */
	if (!is_tracked(tgid))
		return 0;
	s->tracked_process = process;
	return 1;
}

/* Common entry of all handlers: this CPU's scratch with the registers in it, when the task is tracked and 64-bit. */
static inline struct dk_scratch *enter(struct bpf_raw_tracepoint_args *ctx)
{
	u64 id = current_id();
	struct dk_scratch *s = get_scratch();
	if (!s) {
		if (is_tracked(id >> 32))
			count(DK_C_LOST, 1); /* a CPU that was plugged in meanwhile */
		return 0;
	}
	if (!is_tracked_now(s, id >> 32) || is_compat())
		return 0; /* its numbers mean other calls; process.c counts the program */
	s->again = 0;
	s->stamps_of = id;
	read_arguments(&s->regs, (void *)ctx->args[0]);
	return s;
}

#define WALK_MAX 32768u
#define WALK_TURNS 32 /* at once: what a turn costs the verifier, it costs it for each of them */

/* A walk up from `dentry`. */
static inline void begin_walk(struct dk_scratch *s, char *dentry, char *mnt)
{
	s->walk.dentry = (u64)dentry;
	s->walk.mnt = (u64)mnt;
	s->walk.turns = 0;
	s->ev.size = 0;
}

enum dk_walked {
	DK_AT_TOP,
	DK_WALKS_ON, /* the program is to call itself */
	DK_TOO_DEEP,
};

/*
 * The next names of the walk that was begun, leaf first and across mounts, to the body from `start` on; s->ev.size is
 * their length.
 */
static inline enum dk_walked walk_path(struct dk_scratch *s, u32 start)
{
	char *dentry = (char *)s->walk.dentry, *mnt = (char *)s->walk.mnt;
	for (int i = 0; i < WALK_TURNS; i++) {
		if (dentry == rdp(mnt + VFSMOUNT_ROOT)) {
			char *mount = mnt - MOUNT_MNT;
			char *up = rdp(mount + MOUNT_PARENT);
			if (up == mount)
				return DK_AT_TOP;
			dentry = rdp(mount + MOUNT_MOUNTPOINT);
			mnt = up + MOUNT_MNT;
			continue;
		}
		char *parent = rdp(dentry + DENTRY_PARENT);
		if (parent == dentry) /* an inode outside every mount: a detached tree */
			return DK_AT_TOP;
		u32 at = s->ev.size & (WALK_MAX - 1);
		int n = bpf_probe_read_kernel_str(s->body + start + at, 256, rdp(dentry + DENTRY_NAME));
		if (n <= 0)
			return DK_TOO_DEEP;
		s->ev.size = at + n;
		dentry = parent;
	}
	s->walk.dentry = (u64)dentry;
	s->walk.mnt = (u64)mnt;
	s->walk.turns += WALK_TURNS;
	return s->walk.turns < BIND_DEPTH ? DK_WALKS_ON : DK_TOO_DEEP;
}
