/*
 * Does each kind of asynchronous file operation once, in the working directory, and after each copies `file` and sets a mark:
 * `async_writer RING`, where RING is "plain", "deferred" (completions only in the submitter) or "poll" (a kernel thread
 * submits); or `async_writer aio`. Prints nothing; fails loudly.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define CHECK(condition) do { if (!(condition)) { fprintf(stderr, "line %d: %m\n", __LINE__); exit(1); } } while (0)

static struct io_uring ring;

/* A mark, and beside it what `file` holds then, copied with plain calls. */
static void mark(const char *name)
{
	static char content[1 << 20];
	char path[128];
	int from = open("file", O_RDONLY), to;
	ssize_t size = read(from, content, sizeof(content));
	snprintf(path, sizeof(path), "at-%s", name);
	to = open(path, O_CREAT | O_WRONLY, 0644);
	CHECK(from >= 0 && to >= 0 && size >= 0 && write(to, content, size) == size);
	close(from);
	close(to);
	snprintf(path, sizeof(path), "/.diffkeeper/mark/%s", name);
	CHECK(open(path, O_RDONLY) < 0);
}

static struct io_uring_sqe *next(void)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	CHECK(sqe);
	return sqe;
}

/* Submits what was prepared and waits for it; says its result. */
static int go(const char *name)
{
	struct io_uring_cqe *cqe;
	int error, result;
	CHECK(io_uring_submit(&ring) >= 0);
	while ((error = io_uring_wait_cqe(&ring, &cqe)) == -EINTR)
		continue;
	CHECK(!error);
	result = cqe->res;
	io_uring_cqe_seen(&ring, cqe);
	errno = -result;
	if (result < 0)
		fprintf(stderr, "%s: %m\n", name);
	CHECK(result >= 0);
	mark(name);
	return result;
}

static void with_ring(unsigned flags)
{
	static char buffer[300000], fixed[8192] __attribute__((aligned(4096)));
	struct iovec vectors[90], registered = {fixed, sizeof(fixed)};
	int fd, pipes[2];
	CHECK(!io_uring_queue_init(32, &ring, flags));
	io_uring_prep_openat(next(), AT_FDCWD, "file", O_CREAT | O_RDWR, 0644);
	fd = go("openat");
	memset(buffer, 'w', sizeof(buffer));
	io_uring_prep_write(next(), fd, buffer, sizeof(buffer), 0);
	go("write");
	memset(buffer, 'p', 100);
	io_uring_prep_write(next(), fd, buffer, 100, 5000);
	go("pwrite");
	for (int i = 0; i < 3; i++)
		vectors[i] = (struct iovec){buffer + i * 1000, 10 + i};
	io_uring_prep_writev(next(), fd, vectors, 3, 7000);
	CHECK(io_uring_submit(&ring) >= 0);
	if (!(flags & IORING_SETUP_SQPOLL))
		memset(vectors, 0, sizeof(vectors)); /* they are the program's own again once they are submitted */
	go("writev");
	for (int i = 0; i < 90; i++)
		vectors[i] = (struct iovec){buffer + i, 5};
	io_uring_prep_writev(next(), fd, vectors, 90, 9000);
	go("many-vectors");
	CHECK(!io_uring_register_buffers(&ring, &registered, 1));
	memset(fixed, 'f', sizeof(fixed));
	io_uring_prep_write_fixed(next(), fd, fixed, 4096, 12000, 0);
	go("fixed");
	CHECK(lseek(fd, 100, SEEK_SET) == 100);
	io_uring_prep_write(next(), fd, "position", 8, -1);
	go("position");
	struct io_uring_sqe *worker = next();
	io_uring_prep_write(worker, fd, "in a worker", 11, 200);
	io_uring_sqe_set_flags(worker, IOSQE_ASYNC);
	go("worker");
	io_uring_prep_fallocate(next(), fd, 0, 400000, 1000);
	go("fallocate");
	io_uring_prep_fallocate(next(), fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 20000, 9000);
	go("punch");
	CHECK(!pipe(pipes));
	CHECK(write(pipes[1], "through a pipe", 14) == 14);
	io_uring_prep_splice(next(), pipes[0], -1, fd, 30000, 14, 0);
	go("splice");
	io_uring_prep_mkdirat(next(), AT_FDCWD, "directory", 0700);
	go("mkdirat");
	io_uring_prep_linkat(next(), AT_FDCWD, "file", AT_FDCWD, "directory/hard", 0);
	go("linkat");
	io_uring_prep_symlinkat(next(), "../file", AT_FDCWD, "directory/soft");
	go("symlinkat");
	io_uring_prep_renameat(next(), AT_FDCWD, "directory/soft", AT_FDCWD, "softer", 0);
	go("renameat");
	io_uring_prep_unlinkat(next(), AT_FDCWD, "directory/hard", 0);
	go("unlinkat");
	io_uring_prep_unlinkat(next(), AT_FDCWD, "directory", AT_REMOVEDIR);
	go("rmdir");
	if (!setxattr("file", "user.tried", "x", 1, 0) && !removexattr("file", "user.tried")) {
		char value[] = "a value";
		io_uring_prep_fsetxattr(next(), fd, "user.by-descriptor", value, 0, 7);
		CHECK(io_uring_submit(&ring) >= 0);
		if (!(flags & IORING_SETUP_SQPOLL))
			memset(value, 0, sizeof(value));
		go("fsetxattr");
		io_uring_prep_setxattr(next(), "user.by-path", "", "file", 0, 0);
		go("setxattr");
	}
	io_uring_prep_openat(next(), AT_FDCWD, "file", O_TRUNC | O_WRONLY, 0);
	go("truncate");
	io_uring_queue_exit(&ring);
}

#define BATCH 100

static void submit(io_context_t context, struct iocb **blocks, int count, const char *name)
{
	struct io_event events[BATCH];
	CHECK(io_submit(context, count, blocks) == count);
	CHECK(io_getevents(context, count, count, events, NULL) == count);
	mark(name);
}

static void with_aio(void)
{
	static char buffer[600000] __attribute__((aligned(4096)));
	io_context_t context = NULL;
	struct iocb blocks[BATCH], *all[BATCH];
	struct iovec vectors[2] = {{buffer, 5}, {buffer + 100, 7}};
	int fd = open("file", O_CREAT | O_RDWR, 0644), other = open("other", O_CREAT | O_RDWR, 0644);
	CHECK(fd >= 0 && other >= 0 && !io_setup(BATCH, &context));
	for (int i = 0; i < BATCH; i++)
		all[i] = &blocks[i];
	memset(buffer, 'a', sizeof(buffer));
	io_prep_pwrite(&blocks[0], fd, buffer, sizeof(buffer), 0);
	submit(context, all, 1, "pwrite");
	io_prep_pwrite(&blocks[0], fd, "one", 3, 10);
	io_prep_pwritev(&blocks[1], other, vectors, 2, 50);
	io_prep_pwrite(&blocks[2], fd, "three", 5, 700000);
	submit(context, all, 3, "three");
	for (int i = 0; i < BATCH; i++) {
		buffer[i] = 'A' + i % 26;
		io_prep_pwrite(&blocks[i], i % 2 ? fd : other, buffer + i, i + 1, 20000 + 300 * i);
	}
	submit(context, all, BATCH, "batch");
	close(other);
	other = open("other", O_WRONLY | O_APPEND);
	io_prep_pwrite(&blocks[0], other, "appended", 8, 3);
	submit(context, all, 1, "append");
	close(fd);
	fd = open("file", O_RDWR | O_DIRECT);
	if (fd >= 0) { /* not on every filesystem */
		memset(buffer, 'd', 8192);
		io_prep_pwrite(&blocks[0], fd, buffer, 8192, 4096);
		submit(context, all, 1, "direct");
	}
	io_destroy(context);
}

int main(int argc, char **argv)
{
	const char *way = argc > 1 ? argv[1] : "plain";
	if (!strcmp(way, "aio"))
		with_aio();
	else if (!strcmp(way, "deferred"))
		with_ring(IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	else
		with_ring(!strcmp(way, "poll") ? IORING_SETUP_SQPOLL : 0);
	return 0;
}
