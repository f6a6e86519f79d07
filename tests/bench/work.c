/* What the benches have recorded: work WHAT COUNT SIZE [FILES]. Ends with 1 where a call fails. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t state = 88172645463325252u; /* the same every time: runs are compared */

static uint64_t chance(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void mark(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "/.diffkeeper/mark/%s", name);
	open(path, O_RDONLY);
}

/* COUNT writes of SIZE bytes, one after the other into one file. */
static int appends(long count, long size, char *buffer)
{
	int fd = open("out", O_CREAT | O_TRUNC | O_WRONLY, 0644);

	for (long i = 0; i < count; i++)
		if (write(fd, buffer, size) != size)
			return 1;
	return 0;
}

static int names(long count)
{
	char a[64], b[64];

	for (long i = 0; i < count; i++) {
		sprintf(a, "a%ld", i);
		sprintf(b, "b%ld", i);
		close(open(a, O_CREAT | O_WRONLY, 0644));
		if (rename(a, b) || unlink(b))
			return 1;
	}
	return 0;
}

static int stats(long count)
{
	struct stat s;

	for (long i = 0; i < count; i++)
		if (stat(".", &s))
			return 1;
	return 0;
}

/*
 * A program's life in a tree of FILES files named dNN/fNNNNN: a log grows in small writes, and after each tenth
 * write to it one of the files is written to, somewhere. Then, between two marks, one file is changed once more.
 */
static int life(long count, long size, char *buffer, long files)
{
	char path[64];
	struct stat s;
	int log = open("log", O_CREAT | O_APPEND | O_WRONLY, 0644), fd;

	mark("begin");
	for (long i = 1; i <= count; i++) {
		if (i % 10) {
			if (write(log, buffer, size) != size)
				return 1;
			continue;
		}
		long file = chance() % files;
		sprintf(path, "d%02ld/f%05ld", file / 100, file);
		fd = open(path, O_WRONLY);
		if (fd < 0 || fstat(fd, &s) || pwrite(fd, buffer, size, chance() % (s.st_size - size)) != size)
			return 1;
		close(fd);
	}
	mark("before");
	fd = open("d00/f00007", O_WRONLY);
	if (pwrite(fd, "changed", 7, 100) != 7)
		return 1;
	mark("after");
	return 0;
}

/* COUNT writes of SIZE bytes at random aligned places of the file "large". */
static int places(long count, long size, char *buffer)
{
	struct stat s;
	int fd = open("large", O_RDWR);

	if (fd < 0 || fstat(fd, &s))
		return 1;
	for (long i = 0; i < count; i++) {
		memcpy(buffer, &i, sizeof(i));
		if (pwrite(fd, buffer, size, (off_t)(chance() % (s.st_size / size)) * size) != size)
			return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	long count = atol(argv[2]), size = atol(argv[3]);
	char *buffer = malloc(size + 8);

	for (long i = 0; i < size; i++)
		buffer[i] = chance() % 64 + 32;
	if (!strcmp(argv[1], "appends"))
		return appends(count, size, buffer);
	if (!strcmp(argv[1], "names"))
		return names(count);
	if (!strcmp(argv[1], "stats"))
		return stats(count);
	if (!strcmp(argv[1], "life"))
		return life(count, size, buffer, atol(argv[4]));
	if (!strcmp(argv[1], "places"))
		return places(count, size, buffer);
	return 2;
}
