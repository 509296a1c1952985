/*
 * victim_hammer.c: one operation, over and over, in a thread.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>

#include "victim.h"

/* As in victim.py. */
enum { HAMMER_DONTNEED = 1, HAMMER_MREMAP, HAMMER_MPROTECT };

static struct {
	pthread_t thread;
	_Atomic bool stop;
	uint64_t what, len;
	void *at, *other;
	uint64_t nr_blows;
} hammer;

static bool strike(void)
{
	switch (hammer.what) {
	case HAMMER_DONTNEED:
		return madvise(hammer.at, hammer.len, MADV_DONTNEED) == 0;
	case HAMMER_MREMAP:
		return mremap(hammer.at, hammer.len, hammer.len,
			      MREMAP_MAYMOVE | MREMAP_FIXED,
			      hammer.other) == hammer.other &&
		       mremap(hammer.other, hammer.len, hammer.len,
			      MREMAP_MAYMOVE | MREMAP_FIXED,
			      hammer.at) == hammer.at;
	case HAMMER_MPROTECT:
		return mprotect(hammer.at, hammer.len, PROT_READ) == 0 &&
		       mprotect(hammer.at, hammer.len,
				PROT_READ | PROT_WRITE) == 0;
	default:
		return false;
	}
}

static void *swing(void *arg)
{
	/* Once at least, however soon it is told to stop. */
	do {
		if (!strike())
			break;
		hammer.nr_blows++;
	} while (!hammer.stop);
	return arg;
}

static int64_t do_hammer(const uint64_t *args)
{
	hammer.what = args[0];
	hammer.at = (void *)args[1];
	hammer.len = args[2];
	hammer.other = (void *)args[3];
	hammer.stop = false;
	hammer.nr_blows = 0;
	return -pthread_create(&hammer.thread, NULL, swing, NULL);
}

/* How often it struck; an error if it gave up. */
static int64_t do_hush(const uint64_t *args)
{
	bool gave_up = pthread_tryjoin_np(hammer.thread, NULL) == 0;

	(void)args;
	if (gave_up)
		return -EIO;
	hammer.stop = true;
	pthread_join(hammer.thread, NULL);
	return hammer.nr_blows;
}

const struct command hammer_commands[] = {
	{"hammer", do_hammer},
	{"hush", do_hush},
	{0},
};
