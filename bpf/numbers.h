/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Processes and threads by the numbers that they have for the recorder: what kill(2) takes there, and /proc shows. In a
 * container, which has a pid namespace, those are others than the kernel's own.
 */

#define UPID_SIZE 16

static inline char *pid_of(char *task, u32 type)
{
	return rdp((char *)rdp(task + TASK_SIGNAL) + SIGNAL_PIDS + type * sizeof(void *));
}

#ifdef PID_NAMESPACE

/* Where the recorder's numbers are in a struct pid is seen in a process that is made there: user space cannot tell. */
static inline void find_numbers(char *task)
{
	u32 slot = DK_C_NUMBERS;
	u64 *place = control.lookup(&slot);
	if (!place || *place)
		return;
	char *pid = rdp(task + TASK_THREAD_PID);
	u64 at = PID_NUMBERS + rd32(pid + PID_LEVEL) * UPID_SIZE;
	char *namespace = rdp(pid + at + UPID_NS);
	if (rd32(namespace + PIDNS_INUM) != control_value(DK_C_PIDNS))
		return;
	slot = DK_C_NAMESPACE;
	u64 *whose = control.lookup(&slot);
	if (whose)
		*whose = (u64)namespace;
	*place = at;
}

/* 0: it has none, as it is not in that namespace or below it. */
static inline u32 number_of(char *pid)
{
	u64 at = control_value(DK_C_NUMBERS);
	if (!at || PID_NUMBERS + rd32(pid + PID_LEVEL) * UPID_SIZE < at ||
	    (u64)rdp(pid + at + UPID_NS) != control_value(DK_C_NAMESPACE))
		return 0;
	return rd32(pid + at + UPID_NR);
}

static inline u32 tgid_of(char *task)
{
	return number_of(pid_of(task, PIDTYPE_TGID));
}

/* As bpf_get_current_pid_tgid(): the process in the upper half, the thread in the lower. */
static inline u64 current_id(void)
{
	char *task = (char *)bpf_get_current_task();
	return (u64)tgid_of(task) << 32 | number_of(rdp(task + TASK_THREAD_PID));
}

#else

static inline void find_numbers(char *task)
{
}

static inline u32 tgid_of(char *task)
{
	return rd32(task + TASK_TGID);
}

static inline u64 current_id(void)
{
	return bpf_get_current_pid_tgid();
}

#endif
