/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The maps, and what is in them: what handlers share with each other and with user space.
 *
 * Handlers run at sys_exit with preemption off, so one scratch buffer for each
 * CPU is enough. No handler looks into a user pointer before it knows that the
 * task is tracked and the call succeeded.
 */

/* One program: loaded and attached (or put into a program array) by its name. */
#define HANDLER(name) int name(struct bpf_raw_tracepoint_args *ctx)

#define PIECE 262144u        /* bytes of one WRITE record at most; a power of two */
#define PATH_MAX_ 4096u
#define XATTR_NAME_MAX_ 255u
#define DIRECT_PIECES 16
#define DIRECT_MAX (DIRECT_PIECES * PIECE) /* longer writes are read again instead, while the writer stands still */

#define S_IFMT 0170000
#define S_IFREG 0100000
#define S_IFDIR 0040000
#define S_IFIFO 0010000
#define S_IFBLK 0060000
#define S_IFLNK 0120000
#define AT_FDCWD_ (-100)
#define PIDTYPE_TGID 1
#define PIDTYPE_PGID 2
#define PIDTYPE_SID 3

struct dk_key {
	u64 ino;
	u32 dev;
	u32 gen;
};

/* What user space was asked: about an inode (`above` 0), or a directory so many levels above it. */
struct dk_question {
	u64 id; /* 0: nobody judges */
	u64 above;
};

/* What user space knows of an inode. */
struct dk_seen {
	struct dk_question question;
	u32 epoch; /* when it was asked */
	u16 told;  /* the inode's BIND is in the ring */
	u16 was_rejected; /* by an earlier question */
};

/* What the stamps of a path call say together. */
struct dk_judged {
	u32 kept, rejected; /* there are such */
	u32 filter;         /* that rejects one */
	u32 directories;    /* rejected ones */
	u32 moved, moved_directory; /* what may have another name now: something rejected; a directory */
	u32 near;
	u32 named, was_rejected; /* the one that is looked at */
};

/* Inodes whose ctime a thread changed since its last record, latest first. */
struct dk_touched {
	u32 count;
	u32 pad;
	u64 inode[DK_STAMPS];
	u64 ino[DK_STAMPS];
};

#define REQUEST_PATH 1024u

enum dk_request_kind {
	DK_R_RANGE, /* a range that changed without a user buffer: read it */
	DK_R_MAP,   /* a range of a file was mapped, shared: keep an eye on it */
	DK_R_WIDEN, /* what was mapped may be writable now, or more of it than was said */
	DK_R_SYNC,  /* look at all that is mapped and writable */
	DK_R_JUDGE, /* something has another name: read it, if it was left out until now; offset: where the questions are by then */
	DK_R_MOUNTS, /* something was mounted or unmounted */
};

/* Something that user space is to look at while the caller stands still. */
struct dk_request {
	struct dk_inode inode;
	u64 time;
	u64 offset;
	u64 length;
	u64 position; /* of the ring: records before it are older */
	u32 pid;
	u32 tid;
	s32 fd;
	u32 kind;
	u32 stopped;
	u32 sent;     /* its DIRTY record is in the ring */
	u32 writable; /* MAP: from the beginning */
	u32 path_size;
	u32 apart; /* the path ends at the root of its filesystem */
	u32 pad;
	char path[REQUEST_PATH]; /* kernel path of the file: for when the descriptor is gone */
};

/*
 * Shared mappings of files by one process; a slot with end 0 is free. Where there are more of them, whatever the process
 * unmaps may be one, and it is held for that.
 */
#define DK_MAPPINGS 64
struct dk_mapping {
	u64 start;
	u64 end;
	u64 ino;
	u32 dev;
	u32 writable;
};

struct dk_mappings {
	struct dk_mapping of[DK_MAPPINGS];
	u64 many; /* there are more than the slots hold */
};

/* Where the last write through a file ended; `ino` tells when the file's memory serves another one. */
struct dk_position {
	u64 end;
	u64 ino;
};

#define IOVECS 64
#define SAVED_IOVECS 16
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
	u64 held; /* by the vectors of the call */
	u64 vector; /* the next */
	u64 crowded; /* the ring was, when one of its records was sent */
};

/* How far a path was walked, the same. A program walks a part of a long one, and then calls itself. */
struct dk_walk {
	u64 dentry;
	u64 mnt;
	u64 turns; /* so far; 0: nobody has begun */
};

struct dk_iocb { /* struct iocb of include/uapi/linux/aio_abi.h */
	u64 data;
	u32 key;
	u32 rw_flags;
	u16 opcode;
	s16 priority;
	u32 fd;
	u64 buffer;
	u64 length;
	u64 offset;
	u64 reserved;
	u32 flags;
	u32 event_fd;
};

/* What a path call asks for, spelt the same way for all its forms. */
struct dk_call {
	u64 path1, path2, offset, length;
	u64 limit; /* of path 1, in bytes, where no NUL need end it; else 0 */
	int dirfd1, dirfd2;
	u16 op;
	u8 flags, bases;
	u8 saved; /* the paths were put aside in our own memory */
};

/* The entry of a directory that is looked for: the last three bytes of its name, and the filesystem if any stamp is there. */
struct dk_wanted {
	u32 end, dev, near;
	u32 stamp, left; /* of the directory that is searched; how many of its entries may still be looked at */
	u32 looks; /* so far */
	char *head, *link; /* where its list of entries begins, and is followed */
};

/* A call on extended attributes, spelt the same way for all its forms. */
struct dk_xattr_call {
	u64 path, name, value;
	u32 size;
	int fd; /* where the path starts, or the file itself */
	u8 sets, by_fd, follows;
	u8 saved; /* path, name and value were put aside in our own memory */
};

/* io_uring writes to one file that are on their way; a slot with req 0 is free. */
#define FLIGHTS 16
struct dk_flight {
	u64 req;
	u64 from;
	u64 to;
	u64 contended; /* it overlaps another: which of them comes last is for the file to tell */
};

struct dk_flights {
	struct dk_flight of[FLIGHTS];
};

/* One record under construction (strings of path calls may reach past PIECE), and what is too big for the stack. */
struct dk_scratch {
	struct dk_event ev;
	char body[PIECE + 32768];
	struct pt_regs regs;
	struct dk_iovec iov[IOVECS];
	struct dk_iocb iocb;
	u32 iocb_at; /* how far an io_submit is */
	u32 iocb_fifo; /* one of them was written to */
	u32 iocb_fd; /* that the one whose turn it was is about */
	u32 iocb_others; /* those behind it are not all about the same */
	struct dk_piece piece;
	struct dk_walk walk;
	struct dk_call call;
	struct dk_xattr_call xattr;
	struct dk_wanted wanted;
	struct dk_judged judged;
	u32 record; /* bytes of the one that is to be judged */
	struct dk_request request;
	u64 dentry, mnt; /* of the file that the request is about; 0: it has no place */
	u64 found, forgets; /* among the mappings of a process */
	u64 core; /* the inode of a core dump */
	u64 written; /* the inode that a call failed to write to; 0: none */
	struct dk_key last; /* the inode of the last call with a descriptor: in scope, and known to user space */
	struct dk_key last_directory; /* that a path started from, the same */
	u64 tracked_process; /* that called last, after so many exits (above): not looked up again */
	u32 stamps_of; /* the thread whose stamps count for this call */
	u64 again; /* the helper that `bind` goes back to; 0: the handler of the system call */
	struct dk_touched untouched; /* stays zero */
	struct dk_mappings unmapped; /* stays zero, too */
	struct dk_flights no_flights; /* and this */
	u32 stamps; /* in the record */
	u64 taken[DK_STAMPS]; /* addresses of the inodes that these are of */
};

/* How a process has waited for its children. */
struct dk_waits {
	u64 handler; /* of SIGCHLD, when it did so last; 0: none */
	u64 stops;   /* times that it asked to be told when they are stopped */
};

/*
 * What is put aside of an io_uring request: its paths; or its vectors (then `flags` is their number); or the name of an
 * extended attribute, its value in place of a second path (then `flags` is its size), and the path of the file, if any.
 */
struct dk_pending {
	s32 dirfd1;
	s32 dirfd2;
	u32 flags;
	u32 pad;
	union {
		struct dk_iovec iov[SAVED_IOVECS];
		char name[XATTR_NAME_MAX_ + 1];
	};
	char path1[PATH_MAX_];
	char path2[PATH_MAX_];
};

/* What the `bind` program works on before it goes back to the handler. */
struct dk_binding {
	u64 dentry;
	u64 mnt;
	u64 inode;
	u64 epoch, moves; /* when it was begun */
};

/* A part of a followed file that a call changed: what user space knew of its pages is out of date. */
#define BLOCK_SHIFT 16
struct dk_block {
	u64 ino;
	u32 dev;
	u32 block; /* the offset >> BLOCK_SHIFT */
};

enum dk_control {
	DK_C_DISABLED,   /* set from user space: stop no one any more */
	DK_C_LOST,       /* records that found no room in the ring */
	DK_C_STOPS,      /* times a writer was stopped */
	DK_C_STOPPED,    /* bumped whenever something is put into `stopped` or `requests` */
	DK_C_COMPAT,     /* 32-bit programs, whose calls are not looked at */
	DK_C_UNREAD,     /* pieces whose user pages could not be read */
	DK_C_UNSTOPPABLE,/* tasks that could not be stopped when it was needed, or would have been seen to be */
	DK_C_THRESHOLD,  /* bytes waiting in the ring from which on writers are stopped */
	DK_C_UNASKED,    /* requests that found no room */
	DK_C_UNMAPPED,   /* mappings that found no room */
	DK_C_ASYNC,      /* calls of io_uring or AIO that could not be followed */
	DK_C_CUTS,       /* files that were cut by their path */
	DK_C_MAPPED,     /* set from user space: how many files are mapped and watched */
	DK_C_JUDGES,     /* set from user space: it judges paths */
	DK_C_EPOCH,      /* grows when a directory was moved: verdicts on paths are void */
	DK_C_MOVES,      /* times that anything got another name */
	DK_C_APART,      /* set from user space: paths of all processes may lead through mounts that we do not see as they do */
	DK_C_MOUNTS,     /* the mount namespace that the command began in; set to 1 from user space: to be found out */
	DK_C_EXITS,      /* tracked processes that ended: a number may be another process's now */
	DK_C_CHANGES,    /* grows with `written` and with what is noted in `followed` */
	DK_C_CUT_SHORT,  /* calls that needed more programs in a row than the kernel allows */
	DK_C_UNFOLLOWED, /* processes that found no room */
	DK_C_CORES,      /* processes whose memory was dumped, and it was not seen into which file */
	DK_C_UNSEEN,     /* changes by calls that are not followed */
	DK_C_GIVEN,      /* files that the kernel was given to write to by itself */
	DK_C_CLOCK,      /* set from user space: the address of the kernel's clock, where it is needed */
	DK_C_URING,      /* set from user space: requests of io_uring are followed */
	DK_C_GROUP,      /* the command's process group, a struct pid */
	DK_C_PIDNS,      /* set from user space: the inode number of the recorder's pid namespace */
	DK_C_NAMESPACE,  /* that namespace, when it was found */
	DK_C_NUMBERS,    /* where its numbers are in a struct pid; 0: not found yet */
	DK_C_SLOTS = 32,
};

/* The ring is made by kernel.py and named by descriptor: bcc's table type has no query. */
#define ring() ((void *)bpf_pseudo_fd(1, RING_FD))
#define questions() ((void *)bpf_pseudo_fd(1, QUESTIONS_FD))

BPF_F_TABLE("array", u32, u64, control, DK_C_SLOTS, BPF_F_MMAPABLE);
BPF_HASH(tracked, u32, u8, 65536);
BPF_HASH(stopped, u32, u8, 4096); /* small: it is searched whenever somebody waits */
BPF_HASH(requests, u64, struct dk_request, 4096);
BPF_HASH(followed, struct dk_key, u64, 4096); /* files whose pages user space knows; 1: not any more, none of them */
BPF_HASH(written, struct dk_block, u8, 16384);
BPF_HASH(mappings, u32, struct dk_mappings, 2048);
/* Threads of a process do not come back from its io_uring while it has asked, by this time, for more than was served. */
BPF_HASH(holds, u32, u64, 4096);
/* Written by user space alone: the time of the last request it has served. Of processes that are gone, too: never full. */
BPF_TABLE("lru_hash", u32, u64, served, 4096);
BPF_HASH(touched, u32, struct dk_touched, 65536);
BPF_HASH(workers, u32, u32, 4096); /* process -> its io_uring worker that touched an inode last */
BPF_HASH(skipped_devs, u32, u8, 1024);
BPF_TABLE("lru_hash", struct dk_key, struct dk_seen, seen, 131072);
BPF_TABLE("lru_hash", struct dk_question, u32, verdicts, 65536); /* the filter that rejects what was asked about */
BPF_ARRAY(left_out, u64, 64); /* calls, by filter */
BPF_TABLE("lru_hash", u64, struct dk_position, positions, 16384); /* by struct file * */
BPF_TABLE("lru_hash", u64, struct dk_pending, pending, 512); /* by struct io_kiocb * */
BPF_TABLE("lru_hash", u64, struct dk_flights, flights, 256); /* by struct inode * */
BPF_ARRAY(scratch, struct dk_scratch, NCPU);
BPF_ARRAY(bindings, struct dk_binding, NCPU);
#define CALLS 512
BPF_ARRAY(handled, u8, CALLS); /* set from user space: calls whose changes are told by who handles them */
BPF_TABLE("lru_hash", u32, struct dk_waits, waits, 4096); /* by process */
BPF_PROG_ARRAY(on_exit, CALLS);
BPF_PROG_ARRAY(programs, 32); /* not "helpers": bcc 0.18 has a symbol of that name */
#define HELPER_BIND 0
#define HELPER_REQUEST 1
#define HELPER_URING_WRITE 2
#define HELPER_URING_FILE 3
#define HELPER_URING_OPEN 4
#define HELPER_URING_NAME 5
#define HELPER_AIO 6
#define HELPER_NAME 7
#define HELPER_AIO_BEHIND 8
#define HELPER_FAILED 9
#define HELPER_JUDGE 10
#define HELPER_APART 11
#define HELPER_VECTORS 12
#define HELPER_MADE 13
#define HELPER_XATTR 14
#define HELPER_CORE 15
#define HELPER_EXIT 16
#define HELPER_URING_XATTR 17
