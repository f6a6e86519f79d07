/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Changes by calls that no handler is for. There are many ways to change a file, and each kernel has more: so what a
 * call touches is held against what is known of that call, and what nobody will tell of is a loss.
 */

#ifdef TASK_REGISTERS
#define PF_DUMPCORE_ 0x200
#define SB_KERNMOUNT_ (1 << 22)
#define NR_IOCTL 16
#define NR_MADVISE 28
#define MADV_REMOVE_ 9

/* Whether the current task is in a call that nobody tells of. Not in one at all: it stores to mapped memory. */
static inline int is_unheard_of(u32 tgid, char *inode)
{
	struct pt_regs *regs = (struct pt_regs *)registers_of(current_task());
	u64 nr = regs->orig_ax;
	u32 slot = nr;
	u8 *known = nr < CALLS ? handled.lookup(&slot) : 0;
	if (!known || (nr == NR_IOCTL ? is_followed_ioctl((u32)regs->si) : *known))
		return 0;
	/* what a call copies to a mapped file is looked at like what the program stores there */
	return KIND(LOAD(u16, inode + INODE_MODE)) != REGULAR || !mappings.lookup(&tgid) ||
	       (nr == NR_MADVISE && regs->dx == MADV_REMOVE_);
}

/*
 * The current task changes this inode. Not counted: what io_uring or a core dump does, which is told in other ways; what
 * has no name, or is the kernel's own.
 */
static inline void look_for_unseen(char *inode)
{
	u32 tgid = current_id() >> 32;
	if (!is_unheard_of(tgid, inode))
		return;
	char *task = (char *)bpf_get_current_task();
	if (is_worker() || is_compat() || rd32(task + TASK_FLAGS) & PF_DUMPCORE_)
		return;
#ifdef TASK_URING
	if (rdp(task + TASK_URING))
		return;
#endif
	u32 dev = sb_dev(inode);
	if (!rdp(inode + INODE_ALIASES) || !rd32(inode + INODE_NLINK) ||
	    rd32((char *)rdp(inode + INODE_SB) + SB_FLAGS) & SB_KERNMOUNT_ || skipped_devs.lookup(&dev))
		return;
	struct dk_inode facts = {};
	read_inode(&facts, inode);
	if (!judges() || !is_left_out(&facts))
		count(DK_C_UNSEEN, 1);
}
#else
static inline void look_for_unseen(char *inode) {}
#endif
