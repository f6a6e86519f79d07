/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Which io_uring writes to a file were on their way at the same time: whose bytes it has then is for the file to tell. */

#if HAVE_URING

/* Takes note of a write before it is begun. Overlapping ones may be done in another order than they complete. */
static inline void takes_off(struct dk_scratch *s, char *req, u64 length)
{
	char *file = file_of(rd32(req + URING_FD));
	if (!file)
		return;
	u64 inode = (u64)rdp(file + FILE_INODE), from = (u64)rdp(req + URING_RW_POS), to = from + length;
	if (from == ~0ULL || rd32(file + FILE_FLAGS) & O_APPEND_) {
		from = 0;
		to = ~0ULL;
	}
	struct dk_flights *all = flights.lookup(&inode);
	if (!all) {
		flights.update(&inode, &s->no_flights);
		all = flights.lookup(&inode);
		if (!all)
			return;
	}
	struct dk_flight *free = 0;
	u64 contended = 0;
	for (int i = 0; i < FLIGHTS; i++) {
		struct dk_flight *f = &all->of[i];
		if (!f->req || f->req == (u64)req) {
			free = f;
		} else if (f->from < to && from < f->to) {
			f->contended = 1;
			contended = 1;
		}
	}
	if (!free)
		return;
	free->from = from;
	free->to = to;
	free->contended = contended;
	free->req = (u64)req;
}

/* Whether another write was on its way to the same bytes at the same time; one that was not noted may have been. */
static inline int lands(char *req, char *file)
{
	u64 inode = (u64)rdp(file + FILE_INODE);
	struct dk_flights *all = flights.lookup(&inode);
	if (!all)
		return 0;
	for (int i = 0; i < FLIGHTS; i++) {
		struct dk_flight *f = &all->of[i];
		if (f->req != (u64)req)
			continue;
		f->req = 0;
		return f->contended;
	}
	return 1;
}

#endif
