/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * What every handler uses: the maps, reading kernel objects by the offsets that
 * diffkeeper/record/layout.py took from BTF, and sending a record.
 *
 * Handlers run at sys_exit with preemption off, so one scratch buffer for each
 * CPU is enough. No handler looks into a user pointer before it knows that the
 * task is tracked and the call succeeded.
 */

/* One program: loaded and attached (or put into a program array) by its name. */
#define HANDLER(name) int name(struct bpf_raw_tracepoint_args *ctx)

#define PIECE 262144u        /* bytes of one WRITE record at most; a power of two */
#define PATH_MAX_ 4096u
#define DIRECT_PIECES 16
#define DIRECT_MAX (DIRECT_PIECES * PIECE) /* longer writes are read again instead, while the writer stands still */

#define S_IFMT 0170000
#define S_IFREG 0100000
#define S_IFDIR 0040000
#define S_IFIFO 0010000
#define S_IFLNK 0120000
#define AT_FDCWD_ (-100)
#define PIDTYPE_PGID 2

struct dk_key {
	u64 ino;
	u32 dev;
	u32 gen;
};


/* Inodes whose ctime a thread changed since its last record, latest last. */
struct dk_touched {
	u32 count;
	u32 pad;
	u64 inode[DK_STAMPS];
	u64 ino[DK_STAMPS];
};

#define REQUEST_PATH 1024u

/* A range that was changed without a user buffer: the writer is stopped, user space reads it. */
struct dk_request {
	struct dk_inode inode;
	u64 time;
	u64 offset;
	u64 length;
	u32 pid;
	s32 fd;
	u32 stopped;
	u32 sent; /* its DIRTY record is in the ring */
	u32 path_size;
	u32 pad;
	char path[REQUEST_PATH]; /* kernel path of the file */
};

/* Where the last write through a file ended; `ino` tells when the file's memory serves another one. */
struct dk_position {
	u64 end;
	u64 ino;
};

#define IOVECS 16
struct dk_iovec {
	u64 base;
	u64 len;
};

/*
 * How far a write has been copied. In memory, not in registers, so that every
 * turn of a loop looks the same to the verifier.
 */
struct dk_piece {
	u64 from;
	u64 offset;
	u64 left;
	u64 rest; /* of the call, behind `left` */
};

/* One record under construction (strings of path calls may reach past PIECE), and what is too big for the stack. */
struct dk_scratch {
	struct dk_event ev;
	char body[PIECE + 32768];
	struct pt_regs regs;
	struct dk_iovec iov[IOVECS];
	struct dk_piece piece;
	struct dk_request request;
	struct dk_touched untouched; /* stays zero */
	u64 taken[DK_STAMPS]; /* addresses of the inodes whose stamps are in the record */
};

/* What the `bind` program works on before it goes back to the handler. */
struct dk_binding {
	u64 dentry;
	u64 mnt;
	u64 inode;
};

enum dk_control {
	DK_C_DISABLED,   /* set from user space: stop no one any more */
	DK_C_LOST,       /* records that found no room in the ring */
	DK_C_STOPS,      /* times a writer was stopped */
	DK_C_STOPPED,    /* bumped whenever something is put into `stopped` or `requests` */
	DK_C_COMPAT,     /* 32-bit calls that were not looked at */
	DK_C_UNREAD,     /* pieces whose user pages could not be read */
	DK_C_UNSTOPPABLE,/* tasks that could not be stopped when it was needed */
	DK_C_SENT,       /* records sent */
	DK_C_THRESHOLD,  /* bytes waiting in the ring from which on writers are stopped */
	DK_C_SLOTS = 16,
};

/* The ring is made by kernel.py and named by descriptor: bcc's table type has no query. */
#define ring() ((void *)bpf_pseudo_fd(1, RING_FD))

BPF_F_TABLE("array", u32, u64, control, DK_C_SLOTS, BPF_F_MMAPABLE);
BPF_HASH(tracked, u32, u8, 65536);
BPF_HASH(stopped, u32, u8, 65536);
BPF_HASH(requests, u32, struct dk_request, 4096);
BPF_HASH(touched, u32, struct dk_touched, 65536);
BPF_HASH(skipped_devs, u32, u8, 1024);
BPF_TABLE("lru_hash", struct dk_key, u8, seen, 131072);
BPF_TABLE("lru_hash", u64, struct dk_position, positions, 16384); /* by struct file * */
BPF_ARRAY(scratch, struct dk_scratch, NCPU);
BPF_ARRAY(bindings, struct dk_binding, NCPU);
BPF_PROG_ARRAY(on_exit, 512);
BPF_PROG_ARRAY(helpers, 4);
#define HELPER_BIND 0
#define HELPER_REQUEST 1

static inline void *rdp(const void *p)
{
	void *v = 0;
	bpf_probe_read_kernel(&v, sizeof(v), p);
	return v;
}

static inline u32 rd32(const void *p)
{
	u32 v = 0;
	bpf_probe_read_kernel(&v, sizeof(v), p);
	return v;
}

static inline void count(u32 slot, u64 n)
{
	u64 *c = control.lookup(&slot);
	if (c)
		__sync_fetch_and_add(c, n);
}

static inline u64 control_value(u32 slot)
{
	u64 *c = control.lookup(&slot);
	return c ? *c : 0;
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

/* ---- kernel objects ---- */

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

/* Fills all but `parent`. INODE_HEAD covers every member but i_generation, which moved around. */
static inline void read_inode(struct dk_inode *out, char *inode)
{
	char head[INODE_HEAD];
	bpf_probe_read_kernel(head, sizeof(head), inode);
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

/* ---- sending ---- */

static inline void begin(struct dk_scratch *s, u16 op, u8 flags, u8 inodes)
{
	u64 id = bpf_get_current_pid_tgid();
	s->ev.time = bpf_ktime_get_ns();
	s->ev.pid = id >> 32;
	s->ev.tid = id;
	s->ev.op = op;
	s->ev.flags = flags;
	s->ev.inodes = inodes;
	s->ev.size = 0;
	s->ev.offset = 0;
	s->ev.length = 0;
}

static inline int inode_count_size(int inodes)
{
	return inodes * (int)sizeof(struct dk_inode);
}

static inline char *process_group(char *task)
{
	return rdp((char *)rdp(task + TASK_SIGNAL) + SIGNAL_PIDS + PIDTYPE_PGID * sizeof(void *));
}

/*
 * Whether the current process is a job: a shell with job control waits for it, in a process group of its own, would
 * see it stopped, and take that for the end of the wait.
 */
static inline int is_job(void)
{
	char *task = (char *)bpf_get_current_task(), *parent = rdp(task + TASK_REAL_PARENT);
	if (process_group(task) == process_group(parent))
		return 0;
	return is_tracked(rd32(parent + TASK_TGID));
}

/* Whether the current process may be stopped now. */
static inline int may_stop(void)
{
	return !control_value(DK_C_DISABLED) && !is_job();
}

/*
 * Stop the current process before it returns to user space. It is listed after the signal was sent: listed before, it
 * could be continued first and stopped then, for good.
 */
static inline int stop_current(void)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	u8 one = 1;
	if (!may_stop() || bpf_send_signal(19 /* SIGSTOP */)) {
		count(DK_C_UNSTOPPABLE, 1);
		return -1;
	}
	stopped.update(&tgid, &one);
	count(DK_C_STOPS, 1);
	count(DK_C_STOPPED, 1);
	return 0;
}

/* Send `size` bytes of scratch; a full ring counts as lost. Says 0 when sent. */
static inline int send(struct dk_scratch *s, u32 size)
{
	u64 waiting = bpf_ringbuf_query(ring(), 0 /* BPF_RB_AVAIL_DATA */);
	int crowded = waiting > control_value(DK_C_THRESHOLD);
	int failed = bpf_ringbuf_output(ring(), s, size, crowded ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
	if (failed)
		count(DK_C_LOST, 1);
	if (crowded) {
		u32 tgid = bpf_get_current_pid_tgid() >> 32;
		if (!stopped.lookup(&tgid))
			stop_current();
	}
	return failed;
}

/* ---- first sight of an inode ---- */

/*
 * True when user space was told where this inode is. When not, `bind` is set up
 * and the caller tail-calls it; it comes back to the handler from its start.
 */
static inline int is_seen(struct dk_inode *inode, char *dentry, char *mnt, char *raw)
{
	struct dk_key key = {};
	key_of(&key, inode);
	if (seen.lookup(&key))
		return 1;
	int cpu = bpf_get_smp_processor_id();
	struct dk_binding *b = bindings.lookup(&cpu);
	if (!b)
		return 1;
	b->dentry = (u64)dentry;
	b->mnt = (u64)mnt;
	b->inode = (u64)raw;
	return 0;
}

static inline void mark_seen(struct dk_inode *inode)
{
	struct dk_key key = {};
	u8 one = 1;
	key_of(&key, inode);
	seen.update(&key, &one);
}

/* ---- stamps ---- */

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

/* Put the inodes this thread touched into the slots from `at` on, and forget them. */
static inline void take_stamps(struct dk_scratch *s, struct dk_inode *slots)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct dk_touched *t = touched.lookup(&tid);
	for (int i = 0; i < DK_STAMPS; i++) {
		slots[i].ino = 0;
		s->taken[i] = 0;
	}
	slots[DK_STAMPS].ino = 0;
	if (!t)
		return;
	for (int i = 0; i < DK_STAMPS; i++) {
		struct dk_inode *out = &slots[i];
		char *inode = (char *)t->inode[i];
		t->inode[i] = 0;
		/* The pointer may be stale: an inode that is gone does not answer with its number. */
		if (!inode || (u64)rdp(inode + INODE_INO) != t->ino[i])
			continue;
		read_inode(out, inode);
		s->taken[i] = (u64)inode;
		char *alias = rdp(inode + INODE_ALIASES);
		if (alias && (out->nlink == 1 || (out->mode & S_IFMT) == S_IFDIR)) { /* else any of its names may come first */
			char *dentry = alias - DENTRY_ALIAS;
			if (rdp(dentry + DENTRY_HASH_PPREV)) {
				out->parent = (u64)rdp(parent_of(dentry) + INODE_INO);
				out->tag = name_tag(dentry);
			}
		}
	}
	t->count = 0;
}

/*
 * Some filesystems set the times of an inode they have just made where no tracepoint looks. But its entry is among the
 * youngest of its directory, which has a stamp: look there for the name that `path_end` is the end of (its last three
 * bytes), and put what it names into `out`.
 */
#define YOUNGEST 8
static inline void stamp_child(struct dk_scratch *s, struct dk_inode *slots, struct dk_inode *out, u32 path_end)
{
	out->ino = 0;
	for (int i = 0; i < DK_STAMPS; i++) {
		char *directory = (char *)s->taken[i];
		if (!directory || (slots[i].mode & S_IFMT) != S_IFDIR)
			continue;
		char *alias = rdp(directory + INODE_ALIASES);
		if (!alias)
			continue;
		char *head = alias - DENTRY_ALIAS + DENTRY_CHILDREN, *link = rdp(head);
		for (int j = 0; j < YOUNGEST; j++) {
			if (!link || link == head)
				break;
			char *dentry = link - DENTRY_SIBLING, *inode = rdp(dentry + DENTRY_INODE);
			u32 tag = name_tag(dentry), length = tag & 255;
			u32 shift = length < 3 ? (3 - length) * 8 : 0;
			if (inode && tag >> 8 == (path_end & 0xFFFFFF) >> (shift & 31)) {
				read_inode(out, inode);
				out->parent = slots[i].ino;
				out->tag = tag;
				return;
			}
			link = rdp(link);
		}
	}
}

static inline void drop_stamps(void)
{
	u32 tid = bpf_get_current_pid_tgid();
	touched.delete(&tid);
}

/* ---- the calling task ---- */

static inline int is_compat(void)
{
	return rd32((char *)bpf_get_current_task() + TASK_STATUS) & 2 /* TS_COMPAT */;
}

/* Common entry of all handlers: this CPU's scratch with the registers in it, when the task is tracked and 64-bit. */
static inline struct dk_scratch *enter(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	if (!is_tracked(tgid))
		return 0;
	if (is_compat()) {
		count(DK_C_COMPAT, 1);
		return 0;
	}
	struct dk_scratch *s = get_scratch();
	if (!s) {
		count(DK_C_LOST, 1); /* a CPU that was plugged in meanwhile */
		return 0;
	}
	bpf_probe_read_kernel(&s->regs, sizeof(s->regs), (void *)ctx->args[0]);
	return s;
}

/* ---- the file behind a descriptor ---- */

#define KIND(mode) (1u << ((mode) >> 12 & 15))
#define REGULAR KIND(S_IFREG)
#define ON_DISK (KIND(S_IFREG) | KIND(S_IFDIR) | KIND(S_IFIFO) | KIND(S_IFLNK))

/*
 * The file behind `fd`, its facts as inode 0: of one of `kinds`, on a filesystem in scope, known to user space.
 * 0 when there is nothing (more) to do: an unknown one goes to the bind helper, which starts the handler anew.
 */
static inline char *known_file(struct bpf_raw_tracepoint_args *ctx, struct dk_scratch *s, int fd, u32 kinds)
{
	struct dk_inode *inode = (struct dk_inode *)s->body;
	char *file = file_of(fd);
	if (!file)
		return 0;
	char *raw = rdp(file + FILE_INODE);
	u16 mode = 0;
	bpf_probe_read_kernel(&mode, sizeof(mode), raw + INODE_MODE);
	if (!(KIND(mode) & kinds))
		return 0;
	read_inode(inode, raw);
	if (skipped_devs.lookup(&inode->dev))
		return 0;
	if (is_seen(inode, rdp(file + FILE_PATH + PATH_DENTRY), rdp(file + FILE_PATH + PATH_MNT), raw))
		return file;
	helpers.call(ctx, HELPER_BIND);
	return 0;
}

/* ---- kernel paths ---- */

#define WALK_MAX 32768u

/*
 * The names from `dentry` up, leaf first and across mounts, to the body from `start` on; s->ev.size becomes their
 * length. It lives there and not in a register, so that the verifier sees the same state at every turn. Says 0 when the
 * path is deeper than we walk.
 */
static inline int walk_path(struct dk_scratch *s, u32 start, char *dentry, char *mnt)
{
	s->ev.size = 0;
	for (int i = 0; i < BIND_DEPTH; i++) {
		if (dentry == rdp(mnt + VFSMOUNT_ROOT)) {
			char *mount = mnt - MOUNT_MNT;
			char *up = rdp(mount + MOUNT_PARENT);
			if (up == mount)
				return 1;
			dentry = rdp(mount + MOUNT_MOUNTPOINT);
			mnt = up + MOUNT_MNT;
			continue;
		}
		char *parent = rdp(dentry + DENTRY_PARENT);
		if (parent == dentry) /* an inode outside every mount: a detached tree */
			return 1;
		u32 at = s->ev.size & (WALK_MAX - 1);
		int n = bpf_probe_read_kernel_str(s->body + start + at, 256, rdp(dentry + DENTRY_NAME));
		if (n <= 0)
			return 0;
		s->ev.size = at + n;
		dentry = parent;
	}
	return 0;
}
