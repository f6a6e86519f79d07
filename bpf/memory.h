/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Reading the kernel's memory, and the slots that user space and programs share. */

/*
 * RDONLY_CAST: this kernel lets programs load from any address (a fault gives zero), once bpf_rdonly_cast() has said that
 * it is memory; the verifier makes a move of that call. Older kernels have a helper to call for each load.
 */
#ifdef RDONLY_CAST
static void *(*as_memory)(const void *, u64 type) = (void *)RDONLY_CAST;
#define LOAD(type, address) (*(type *)as_memory(address, 0))
#else
#define LOAD(type, address)                                                                                                \
	({                                                                                                                 \
		type loaded_ = 0;                                                                                          \
		bpf_probe_read_kernel(&loaded_, sizeof(loaded_), address);                                                 \
		loaded_;                                                                                                   \
	})
#endif

/*
 * As bcc has them: but it looks up in the kernel's symbols whether they are there at each call of one that has that name, and
 * makes a table of all symbols for it (bcc up to 0.37 at least): a third of the time that compiling took.
 */
static int (*read_user)(void *to, u32 size, const void *from) = (void *)BPF_FUNC_probe_read_user;
static int (*read_user_str)(void *to, u32 size, const void *from) = (void *)BPF_FUNC_probe_read_user_str;

/* What is in memory, as if nothing was known of it: the verifier then goes on once, and not once for each way to here. */
#define anew(place) (*(volatile typeof(place) *)&(place))

static inline void *rdp(const void *p)
{
	return LOAD(void *, p);
}

static inline u32 rd32(const void *p)
{
	return LOAD(u32, p);
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
