/*
 * victim_reading.c: memory is read: by threads, so that whoever commands them
 * is never held.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "victim.h"

struct reader {
	pthread_t thread;
	const uint8_t *from;
	size_t len;
	uint8_t *bytes;
};

static struct reader readers[MAX_THREADS];
static unsigned int nr_readers;
static pthread_barrier_t start_line;

static void *read_memory(void *arg)
{
	struct reader *reader = arg;

	pthread_barrier_wait(&start_line);
	for (size_t done = 0; done < reader->len; done += PAGE_SIZE)
		memcpy(reader->bytes + done, reader->from + done, PAGE_SIZE);
	return NULL;
}

/* args: address, bytes, threads, bytes from one thread's start to the next's */
static int64_t do_begin(const uint64_t *args)
{
	nr_readers = args[2];
	pthread_barrier_init(&start_line, NULL, nr_readers);
	for (unsigned int i = 0; i < nr_readers; i++) {
		readers[i].from = (const uint8_t *)args[0] + i * args[3];
		readers[i].len = args[1];
		readers[i].bytes = malloc(args[1]);
		if (pthread_create(&readers[i].thread, NULL, read_memory,
				   &readers[i]))
			return -EAGAIN;
	}
	return 0;
}

/* The bytes that the threads read, one thread's after the other's. */
void end_reading(void)
{
	size_t len = 0;

	for (unsigned int i = 0; i < nr_readers; i++) {
		pthread_join(readers[i].thread, NULL);
		len += readers[i].len;
	}
	answer_begin(0, len);
	for (unsigned int i = 0; i < nr_readers; i++) {
		send_all(readers[i].bytes, readers[i].len);
		free(readers[i].bytes);
	}
	nr_readers = 0;
}

/* In this very thread: one is all that a test can do without. */
void read_now(const uint64_t *args)
{
	uint8_t *bytes = malloc(args[1]);

	for (size_t done = 0; done < args[1]; done += PAGE_SIZE)
		memcpy(bytes + done, (const uint8_t *)args[0] + done,
		       PAGE_SIZE);
	answer_begin(0, args[1]);
	send_all(bytes, args[1]);
	free(bytes);
}

static void *touch(void *arg)
{
	(void)*(volatile uint8_t *)arg;
	return arg;
}

/*
 * Touch a page each from so many threads, which nobody waits for: as many as
 * there could be made is the result.  args: address, threads
 */
static int64_t do_crowd(const uint64_t *args)
{
	uint64_t nr_threads = 0;
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, PTHREAD_STACK_MIN);
	/* Without guards their stacks are one mapping, of which few may be. */
	pthread_attr_setguardsize(&attr, 0);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	while (nr_threads < args[1]) {
		pthread_t thread;
		uint8_t *page = (uint8_t *)args[0] + nr_threads * PAGE_SIZE;

		if (pthread_create(&thread, &attr, touch, page))
			break;
		nr_threads++;
	}
	pthread_attr_destroy(&attr);
	return nr_threads;
}

/* Give memory to a system call. */
static int64_t do_syscall(const uint64_t *args)
{
	int fds[2];

	if (pipe(fds) < 0)
		return -errno;
	int64_t result = result_of(write(fds[1], (void *)args[0], args[1]));
	close(fds[0]);
	close(fds[1]);
	return result;
}

const struct command reading_commands[] = {
	{"begin", do_begin},
	{"crowd", do_crowd},
	{"syscall", do_syscall},
	{0},
};
