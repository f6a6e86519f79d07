/*
 * One io_uring request of each kind, done and waited for, in a ring of its own: a library, loaded by tests/oracle/requests.py.
 * All return what the request did, or a negative error number.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <liburing.h>
#include <string.h>
#include <sys/uio.h>

#define RING_FTRUNCATE 55 /* liburing has no words for it before 2.6 */

enum { PLAIN, DEFERRED, POLL };

static int begin(struct io_uring *ring, int way)
{
	return io_uring_queue_init(8, ring, way == DEFERRED ? IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN :
						     way == POLL ? IORING_SETUP_SQPOLL : 0);
}

/* Submits what was prepared, waits for all of it and says how the last one ended. */
static int end(struct io_uring *ring, int count)
{
	int result = io_uring_submit(ring);
	for (int i = 0; i < count && result >= 0; i++) {
		struct io_uring_cqe *cqe;
		int error;
		while ((error = io_uring_wait_cqe(ring, &cqe)) == -EINTR)
			continue;
		result = error ? error : cqe->res;
		if (!error)
			io_uring_cqe_seen(ring, cqe);
	}
	io_uring_queue_exit(ring);
	return result;
}

/* `how`: 0 write, 1 vectors, 2 registered buffer, 3 two writes linked to each other. `flags`: IOSQE_*. */
int ring_write(int way, int flags, int how, int fd, char *data, unsigned size, unsigned long long offset)
{
	struct io_uring ring;
	struct iovec parts[3] = {{data, size / 3}, {data + size / 3, size / 3}, {data + size / 3 * 2, size - size / 3 * 2}};
	struct iovec whole = {data, size};
	int error = begin(&ring, way);
	if (error)
		return error;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	if (how == 2 && (error = io_uring_register_buffers(&ring, &whole, 1))) {
		io_uring_queue_exit(&ring);
		return error;
	}
	if (how == 1)
		io_uring_prep_writev(sqe, fd, parts, 3, offset);
	else if (how == 2)
		io_uring_prep_write_fixed(sqe, fd, data, size, offset, 0);
	else
		io_uring_prep_write(sqe, fd, data, how == 3 ? size / 2 : size, offset);
	io_uring_sqe_set_flags(sqe, flags | (how == 3 ? IOSQE_IO_LINK : 0));
	if (how == 3) {
		sqe = io_uring_get_sqe(&ring);
		io_uring_prep_write(sqe, fd, data + size / 2, size - size / 2, offset + (offset + 1 ? size / 2 : 0));
		io_uring_sqe_set_flags(sqe, flags);
	}
	return end(&ring, how == 3 ? 2 : 1);
}

int ring_splice(int way, int flags, int from, int fd, unsigned size, long long offset)
{
	struct io_uring ring;
	int error = begin(&ring, way);
	if (error)
		return error;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	io_uring_prep_splice(sqe, from, -1, fd, offset, size, 0);
	io_uring_sqe_set_flags(sqe, flags);
	return end(&ring, 1);
}

int ring_fallocate(int way, int flags, int fd, int mode, long long offset, long long length)
{
	struct io_uring ring;
	int error = begin(&ring, way);
	if (error)
		return error;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	io_uring_prep_fallocate(sqe, fd, mode, offset, length);
	io_uring_sqe_set_flags(sqe, flags);
	return end(&ring, 1);
}

int ring_ftruncate(int way, int flags, int fd, long long size)
{
	struct io_uring ring;
	int error = begin(&ring, way);
	if (error)
		return error;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	io_uring_prep_rw(RING_FTRUNCATE, sqe, fd, NULL, 0, size);
	io_uring_sqe_set_flags(sqe, flags);
	return end(&ring, 1);
}

int ring_open(int way, int flags, int dirfd, const char *path, int how, unsigned mode)
{
	struct io_uring ring;
	int error = begin(&ring, way);
	if (error)
		return error;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	io_uring_prep_openat(sqe, dirfd, path, how, mode);
	io_uring_sqe_set_flags(sqe, flags);
	return end(&ring, 1);
}

/* `how`: 0 mkdir, 1 symlink, 2 link, 3 rename, 4 unlink. `mode` is the mode or the flags. */
int ring_name(int way, int flags, int how, int dirfd, const char *path, int newdir, const char *other, int mode)
{
	struct io_uring ring;
	int error = begin(&ring, way);
	if (error)
		return error;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	if (how == 0)
		io_uring_prep_mkdirat(sqe, dirfd, path, mode);
	else if (how == 1)
		io_uring_prep_symlinkat(sqe, other, dirfd, path);
	else if (how == 2)
		io_uring_prep_linkat(sqe, dirfd, path, newdir, other, mode);
	else if (how == 3)
		io_uring_prep_renameat(sqe, dirfd, path, newdir, other, mode);
	else
		io_uring_prep_unlinkat(sqe, dirfd, path, mode);
	io_uring_sqe_set_flags(sqe, flags);
	return end(&ring, 1);
}

/* Of the file at `path`, or of `fd` where that is null. `how`: XATTR_*. */
int ring_setxattr(int way, int flags, int fd, const char *path, const char *name, const char *value, unsigned size, int how)
{
	struct io_uring ring;
	int error = begin(&ring, way);
	if (error)
		return error;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	if (path)
		io_uring_prep_setxattr(sqe, name, value, path, how, size);
	else
		io_uring_prep_fsetxattr(sqe, fd, name, value, how, size);
	io_uring_sqe_set_flags(sqe, flags);
	return end(&ring, 1);
}
