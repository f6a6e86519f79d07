/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * What is left out of a recording: user space judges paths (diffkeeper/record/verdicts.py), and calls on what a filter
 * rejects end here, counted. It is asked about an inode when it is told of it, and nobody waits for the answer. What lies
 * in a rejected directory shares its question, and so its verdict. A verdict counts as long as paths stay what they are:
 * when a directory is moved `epoch` grows, and when a file gets another name it is forgotten; both are asked about again.
 */

static inline int judges(void)
{
	return control_value(DK_C_JUDGES) != 0;
}

/* The filter that rejected an inode when it was asked about last; 0: none did, or there is no answer by now. */
static inline u32 *last_verdict_on(struct dk_seen *e)
{
	if (!e || !e->question.id)
		return 0;
	struct dk_question question = e->question;
	return verdicts.lookup(&question);
}

/* Whether an inode was rejected by any question: what is moved away from it may be recorded from then on. */
static inline int was_rejected(struct dk_seen *e)
{
	return e && (e->was_rejected || last_verdict_on(e));
}

static inline int is_of_now(struct dk_seen *e)
{
	return e->epoch == (u32)control_value(DK_C_EPOCH);
}

/* The same, if paths are still what they were then. */
static inline u32 *verdict_on(struct dk_seen *e)
{
	return e && is_of_now(e) ? last_verdict_on(e) : 0;
}

static inline void count_left_out(u32 filter)
{
	u64 *n = left_out.lookup(&filter);
	if (n)
		__sync_fetch_and_add(n, 1);
}

/* Whether a call on this inode is to be left out; then it is counted. */
static inline int is_left_out(struct dk_inode *inode)
{
	struct dk_key key = {};
	key_of(&key, inode);
	u32 *filter = verdict_on(seen.lookup(&key));
	if (!filter)
		return 0;
	count_left_out(*filter);
	return 1;
}

/* User space is to be told of an inode, and to judge it, anew: its path is another one, or it is another file. */
static inline void forget(struct dk_inode *inode)
{
	struct dk_key key = {};
	key_of(&key, inode);
	seen.delete(&key);
}

/* Something was made in a directory that may be rejected: then it is, too, and the call is left out. */
static inline int is_left_out_with(struct dk_inode *child, struct dk_inode *directory)
{
	struct dk_key key = {};
	key_of(&key, directory);
	struct dk_seen *e = seen.lookup(&key);
	u32 *filter = verdict_on(e);
	if (!filter)
		return 0;
	struct dk_seen same = {.question = e->question, .epoch = e->epoch};
	key_of(&key, child);
	seen.update(&key, &same);
	count_left_out(*filter);
	return 1;
}

#define DIRECTORIES_ABOVE 32
/*
 * The question by which a directory above `dentry` was rejected, if one was. Those that nobody asked about, from the
 * nearest on, are asked about with `q`: says how many.
 */
static inline u32 ask_above(char *dentry, struct dk_question *q, u32 epoch)
{
	for (u32 i = 1; i <= DIRECTORIES_ABOVE; i++) {
		char *parent = rdp(dentry + DENTRY_PARENT), *inode = rdp(parent + DENTRY_INODE);
		if (parent == dentry)
			return i - 1;
		struct dk_key key = {};
		key.ino = (u64)rdp(inode + INODE_INO);
		key.dev = sb_dev(inode);
		key.gen = rd32(inode + INODE_GENERATION);
		struct dk_seen *e = seen.lookup(&key);
		if (e && e->question.id && e->epoch == epoch) {
			if (last_verdict_on(e))
				*q = e->question;
			return i - 1;
		}
		struct dk_seen asked = {.question = {.id = q->id, .above = i}, .epoch = epoch, .was_rejected = was_rejected(e)};
		seen.update(&key, &asked);
		dentry = parent;
	}
	return DIRECTORIES_ABOVE;
}

/* A question that nobody was asked yet. */
static inline void new_question(struct dk_scratch *s, struct dk_question *q)
{
	q->id = s->ev.time << 8 | (bpf_get_smp_processor_id() & 255);
	q->above = 0;
}

/*
 * By which question inode 0, whose BIND is under construction, is judged: that of a directory above it which is rejected,
 * or a new one. Then `asks` is set, and s->ev says what is asked: its id, and about how many directories above. Of a file
 * with several names no single one decides: it is never left out here.
 */
static inline void question_on(struct dk_scratch *s, char *dentry, u32 epoch, struct dk_question *q, u32 *asks)
{
	struct dk_inode *inode = (struct dk_inode *)s->body;
	new_question(s, q);
	if ((inode->mode & S_IFMT) != S_IFDIR && inode->nlink > 1)
		return;
	u64 id = q->id;
	u32 above = ask_above(dentry, q, epoch);
	if (q->id != id && !above)
		return;
	*asks = 1;
	s->ev.offset = id;
	s->ev.length = above;
}
