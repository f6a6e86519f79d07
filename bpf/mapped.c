/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Files that are written through memory: which processes have one mapped, shared and writable, and when user space has
 * to look at its pages, because the program comes to a point from which on others count on them (msync, fsync, munmap,
 * a mark, its end). What changed in the pages is for user space to find out: no event tells.
 */

#define NR_MMAP 9
#define NR_MPROTECT 10
#define NR_MUNMAP 11
#define NR_MREMAP 25
#define NR_FSYNC 74
#define NR_FDATASYNC 75
#define NR_PTRACE 101
#define NR_SYNC_FILE_RANGE 277
#define NR_PKEY_MPROTECT 329
#define NR_PROCESS_VM_WRITEV 311
#define PROT_WRITE_ 2
#define MAP_TYPE_ 15
#define MAP_PRIVATE_ 2
#define MAP_FIXED_ 0x10
#define MAP_ANONYMOUS_ 0x20
#define PTRACE_POKETEXT_ 4
#define PTRACE_POKEDATA_ 5
#define PAGES(bytes) (((bytes) + 4095) & ~4095UL)

static inline int overlaps(struct dk_mapping *m, u64 start, u64 end)
{
	return m->start < end && start < m->end;
}

/* Takes note of a shared mapping of the file in inode 0; without a free slot all that the process maps is suspect. */
static inline void add_mapping(struct dk_scratch *s, u64 start, u64 length, u32 writable)
{
	u32 tgid = current_id() >> 32;
	struct dk_inode *inode = (struct dk_inode *)s->body;
	struct dk_mappings *all = mappings.lookup(&tgid);
	if (!all) {
		mappings.update(&tgid, &s->unmapped);
		all = mappings.lookup(&tgid);
		if (!all) {
			count(DK_C_UNMAPPED, 1);
			return;
		}
	}
	for (int i = 0; i < DK_MAPPINGS; i++) {
		struct dk_mapping *m = &all->of[i];
		if (m->end)
			continue;
		m->start = start;
		m->end = start + length;
		m->ino = inode->ino;
		m->dev = inode->dev;
		m->writable = writable;
		return;
	}
	all->many = 1;
}

/*
 * Whether [start, end) has to do with a shared mapping of a file. `forget`: it is gone after this call.
 * Here and below, what was found lives in memory, so that each turn looks the same to the verifier.
 */
static inline int is_mapped(struct dk_scratch *s, struct dk_mappings *all, u64 start, u64 end, int forget)
{
	volatile u64 *found = &s->found;
	*found = all->many;
	s->forgets = forget; /* or the compiler makes two loops of one */
	for (int i = 0; i < DK_MAPPINGS; i++) {
		struct dk_mapping *m = &all->of[i];
		if (!overlaps(m, start, end))
			continue;
		*found = 1;
		if (anew(s->forgets) && start <= m->start && m->end <= end)
			m->start = m->end = 0;
	}
	return *found != 0;
}

/* A mapping that was readable may become writable: then its file is to be watched from now on. */
static inline int becomes_writable(struct dk_scratch *s, struct dk_mappings *all, u64 start, u64 end)
{
	volatile u64 *found = &s->found;
	*found = all->many;
	for (int i = 0; i < DK_MAPPINGS; i++) {
		struct dk_mapping *m = &all->of[i];
		if (overlaps(m, start, end) && !m->writable)
			*found = m->writable = 1;
	}
	return *found != 0;
}

/* A mapping that moved, or changed its length. */
static inline int moves(struct dk_scratch *s, struct dk_mappings *all, u64 from, u64 to, u64 length)
{
	volatile u64 *found = &s->found;
	*found = all->many;
	for (int i = 0; i < DK_MAPPINGS; i++) {
		struct dk_mapping *m = &all->of[i];
		if (from < m->start || from >= m->end)
			continue;
		m->start = to;
		m->end = to + length;
		*found = 1;
	}
	return *found != 0;
}

/* mmap: takes note of a shared mapping of a file that may be written, at once or after an mprotect. */
static inline void map_file(struct bpf_raw_tracepoint_args *ctx, struct dk_scratch *s, u64 start, u64 length)
{
	struct pt_regs *regs = &s->regs;
	char *file = file_of(regs->r8);
	if (!file || !(rd32(file + FILE_MODE) & FMODE_WRITE_) || !known_file(ctx, s, regs->r8, REGULAR))
		return;
	u32 writable = (regs->dx & PROT_WRITE_) != 0;
	add_mapping(s, start, length, writable);
	struct dk_request *r = new_request(s, DK_R_MAP, regs->r8, regs->r9, length);
	r->inode = *(struct dk_inode *)s->body;
	r->stopped = writable && may_stop();
	r->writable = writable;
	ask_about(s, file);
	go_on(ctx, HELPER_REQUEST);
}

/* mmap, mremap, mprotect, munmap, msync. */
HANDLER(on_map)
{
	s64 ret = ctx->args[1];
	if (ret < 0 && ret > -4096)
		return 0;
	struct dk_scratch *s = enter(ctx);
	if (!s)
		return 0;
	struct pt_regs *regs = &s->regs;
	u32 tgid = current_id() >> 32;
	u64 nr = regs->orig_ax, length = PAGES(regs->si), start = nr == NR_MMAP ? ret : regs->di;
	struct dk_mappings *all = mappings.lookup(&tgid);
	int maps = nr == NR_MMAP, replaces = maps && regs->r10 & MAP_FIXED_;
	if (!all && !maps)
		return 0;
	if (nr == NR_MREMAP) {
		if (moves(s, all, start, ret, PAGES(regs->dx)))
			ask_for_sync(s, DK_R_WIDEN, 1);
	} else if (nr == NR_MPROTECT || nr == NR_PKEY_MPROTECT) {
		if (regs->dx & PROT_WRITE_ && becomes_writable(s, all, start, start + length))
			ask_for_sync(s, DK_R_WIDEN, 1);
	} else if (all && (replaces || !maps) && is_mapped(s, all, start, start + length, replaces || nr == NR_MUNMAP)) {
		ask_for_sync(s, DK_R_SYNC, 1);
	}
	if (maps && (regs->r10 & MAP_TYPE_) != MAP_PRIVATE_ && !(regs->r10 & MAP_ANONYMOUS_))
		map_file(ctx, s, start, length);
	return 0;
}

/* A process is at its end, or executes another program: what it wrote to memory is all there. */
static inline void unmap_all(struct dk_scratch *s)
{
	u32 tgid = current_id() >> 32;
	if (!mappings.lookup(&tgid))
		return;
	mappings.delete(&tgid);
	ask_for_sync(s, DK_R_SYNC, 0);
}

/* A forked process has what its parent had mapped; one that shares its parent's memory writes for it. */
static inline void inherit_mappings(char *parent, char *child)
{
	u32 from = tgid_of(parent), to = tgid_of(child);
	struct dk_mappings *all = mappings.lookup(&from);
	if (all && rdp(parent + TASK_MM) != rdp(child + TASK_MM) && mappings.update(&to, all))
		count(DK_C_UNMAPPED, 1);
}

/* Whether the file behind a descriptor is one that this process may write to through memory. */
static inline int writes_mapped(struct dk_scratch *s, struct dk_mappings *all, int fd)
{
	char *file = file_of(fd), *inode = file ? rdp(file + FILE_INODE) : 0;
	if (!inode)
		return 0;
	u64 ino = (u64)rdp(inode + INODE_INO);
	u32 dev = sb_dev(inode);
	volatile u64 *found = &s->found;
	*found = all->many;
	for (int i = 0; i < DK_MAPPINGS; i++) {
		struct dk_mapping *m = &all->of[i];
		if (m->end && m->writable && m->ino == ino && m->dev == dev)
			*found = 1;
	}
	return *found != 0;
}

/*
 * From here on others count on what was written to memory: fsync and the like, but only of a file that is mapped, as a
 * database calls it often for another one; and who writes into another process's memory.
 */
HANDLER(on_sync)
{
	if ((s64)ctx->args[1] < 0)
		return 0;
	u32 tgid = current_id() >> 32;
	u64 nr = call_number(ctx);
	int pokes = nr == NR_PTRACE || nr == NR_PROCESS_VM_WRITEV;
	struct dk_mappings *all = mappings.lookup(&tgid);
	if (pokes ? !control_value(DK_C_MAPPED) : !all)
		return 0;
	struct dk_scratch *s = enter(ctx);
	if (!s)
		return 0;
	if (all && (nr == NR_FSYNC || nr == NR_FDATASYNC || nr == NR_SYNC_FILE_RANGE) && !writes_mapped(s, all, s->regs.di))
		return 0;
	if (nr == NR_PTRACE && s->regs.di != PTRACE_POKETEXT_ && s->regs.di != PTRACE_POKEDATA_)
		return 0;
	ask_for_sync(s, DK_R_SYNC, 1);
	return 0;
}
