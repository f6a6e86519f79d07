/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Holding a writer: its process is stopped (SIGSTOP) before it returns from a call, and continued from user space. Whoever
 * waits for a process may see that it stands still, and act on it. So none is stopped whose parent or debugger would.
 */

#define NR_CLONE 56
#define NR_VFORK 58
#define NR_WAIT4 61
#define NR_WAITID 247
#define NR_CLONE3 435
#define CLONE_VFORK_ 0x4000
#define WUNTRACED_ 2 /* of wait4(2); waitid(2) has WSTOPPED for it, the same bit */
#define SIGCHLD_ 17
#define SIG_IGN_ 1
#define SA_NOCLDSTOP_ 1
#define SOON 1000000000ULL /* nanoseconds: a process that waits for one that it has made has begun to do so */
#define K_SIGACTION 32 /* bytes of a struct k_sigaction, whose first members are the handler and its flags */

/*
 * Whether the process group of a task may have stopped processes in it. When a group is orphaned while it has one, the kernel
 * sends all of it SIGHUP. The recorder's own group is not while there are guardians, one of which is in it; that of a session's
 * leader is from its beginning. That leaves those that a shell makes for its jobs, or timeout(1), whose end may be near. A
 * shell would also take a job that is stopped for suspended.
 */
static inline int is_lasting_group(char *task)
{
	char *group = pid_of(task, PIDTYPE_PGID);
	return (u64)group == control_value(DK_C_GROUP) || group == pid_of(task, PIDTYPE_SID);
}

static inline int asks_for_stops(struct pt_regs *regs)
{
	return ((regs->orig_ax == NR_WAIT4 ? regs->dx : regs->r10) & WUNTRACED_) != 0;
}

/* Whether a task has come back from vfork(2), posix_spawn(3) or the like, and not got any further. */
static inline int has_spawned(struct pt_regs *regs)
{
	u64 nr = regs->orig_ax;
	return nr == NR_VFORK || nr == NR_CLONE3 || (nr == NR_CLONE && regs->di & CLONE_VFORK_);
}

/* The handler that a process has for SIGCHLD when a child is stopped; 0: none that would be called. */
static inline u64 handler_of_stops(char *task)
{
	char *action = (char *)rdp(task + TASK_SIGHAND) + SIGHAND_ACTION + (SIGCHLD_ - 1) * K_SIGACTION;
	u64 handler = (u64)rdp(action), flags = (u64)rdp(action + sizeof(u64));
	return handler > SIG_IGN_ && !(flags & SA_NOCLDSTOP_) ? handler : 0;
}

/*
 * Whether the parent of the current process would learn that it is stopped. su(1), sudo(8) and script(1) then stop
 * themselves, to be continued by a shell that knows nothing of it, and stand still for ever.
 *
 * Who waits for the end of its children right now does not ask. Nor does who has just come back from vfork(2), where its
 * child is on its way already. Who blocks SIGCHLD otherwise means to read it, and what it says. Of the rest, who has
 * waited before, for ends alone, and with the handler for SIGCHLD that it has now (or none), does not ask: sudo(8) waits
 * for a helper of PAM's, and has a handler only after that. One that handles SIGCHLD may, and so may one that is running,
 * if the process is new: it may have made it just now.
 */
static inline int is_watched(char *task, char *parent, u32 tgid)
{
	struct pt_regs regs = {};
	read_arguments(&regs, parent_registers(task, parent));
	if (regs.orig_ax == NR_WAIT4 || regs.orig_ax == NR_WAITID)
		return asks_for_stops(&regs);
	struct dk_waits *waited = waits.lookup(&tgid);
	if (waited && waited->stops)
		return 1;
	if (has_spawned(&regs))
		return 0;
	u64 blocked = (u64)rdp(parent + TASK_BLOCKED) | (u64)rdp(parent + TASK_REAL_BLOCKED); /* in sigwait(3) the latter */
	if (blocked >> (SIGCHLD_ - 1) & 1)
		return 1;
	u64 handler = handler_of_stops(parent);
	if (waited && waited->handler == handler)
		return 0;
	return handler || (!rd32(parent + TASK_STATE) && bpf_ktime_get_ns() - (u64)rdp(task + TASK_START) < SOON);
}

/* Whether the current process may be stopped now. */
static inline int may_stop(void)
{
	char *task = (char *)bpf_get_current_task(), *parent = rdp(task + TASK_REAL_PARENT);
	u32 tgid = tgid_of(parent);
	/* a debugger would be told */
	if (control_value(DK_C_DISABLED) || rd32(task + TASK_PTRACE) || !is_lasting_group(task))
		return 0;
	return !is_tracked(tgid) || !is_watched(task, parent, tgid);
}

/*
 * Stop the current process, which may be stopped, before this thread of it returns to user space: a signal to the process
 * would be some other thread's to take, and this one would run on until then. A worker of io_uring does not return there.
 *
 * It is listed after the signal was sent: listed before, it could be continued first and stopped then, for good.
 */
static inline int stop_now(void)
{
	u32 tgid = current_id() >> 32;
	u8 one = 1;
	if (is_worker() ? bpf_send_signal(19 /* SIGSTOP */) : bpf_send_signal_thread(19)) {
		count(DK_C_UNSTOPPABLE, 1);
		return -1;
	}
	if (stopped.update(&tgid, &one)) { /* nobody would continue it */
		bpf_send_signal(18 /* SIGCONT */);
		count(DK_C_UNSTOPPABLE, 1);
		return -1;
	}
	count(DK_C_STOPS, 1);
	count(DK_C_STOPPED, 1);
	return 0;
}

/* The same, if it may be. */
static inline int stop_current(void)
{
	if (may_stop())
		return stop_now();
	count(DK_C_UNSTOPPABLE, 1);
	return -1;
}

/* The ring is crowded: hold the writer, before it can fill it. */
static inline void hold(void)
{
	u32 tgid = current_id() >> 32;
	if (!stopped.lookup(&tgid))
		stop_current();
}

/* wait4, waitid: what the process asks to be told of its children. */
HANDLER(on_wait)
{
	struct dk_scratch *s = enter(ctx);
	if (!s)
		return 0;
	u32 tgid = current_id() >> 32;
	struct dk_waits first = {}, *known = waits.lookup(&tgid);
	if (!known) {
		waits.update(&tgid, &first);
		known = waits.lookup(&tgid);
	}
	if (!known)
		return 0;
	known->handler = handler_of_stops((char *)bpf_get_current_task());
	known->stops += asks_for_stops(&s->regs);
	return 0;
}
