/*
 * victim_mappings.c: memory and its mappings are changed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "victim.h"

static int64_t do_write(const uint64_t *args)
{
	memset((void *)args[0], args[2], args[1]);
	return 0;
}

static int64_t do_munmap(const uint64_t *args)
{
	return result_of(munmap((void *)args[0], args[1]));
}

static int64_t do_mremap(const uint64_t *args)
{
	return result_of((intptr_t)mremap((void *)args[0], args[1], args[2],
					  args[3], (void *)args[4]));
}

static int64_t do_madvise(const uint64_t *args)
{
	return result_of(madvise((void *)args[0], args[1], args[2]));
}

static int64_t do_mprotect(const uint64_t *args)
{
	return result_of(mprotect((void *)args[0], args[1], args[2]));
}

/* Every other page, so that each is a mapping.  args: as mprotect */
static int64_t do_stripe(const uint64_t *args)
{
	for (uint64_t done = 0; done < args[1]; done += 2 * PAGE_SIZE)
		if (mprotect((void *)(args[0] + done), PAGE_SIZE, args[2]))
			return -errno;
	return 0;
}

static int64_t do_mlock2(const uint64_t *args)
{
	return result_of(mlock2((void *)args[0], args[1], args[2]));
}

/* How many mappings there are. */
static int64_t do_mappings(const uint64_t *args)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	int64_t nr_lines = 0;

	(void)args;
	for (int c; (c = getc(maps)) != EOF;)
		nr_lines += c == '\n';
	fclose(maps);
	return nr_lines;
}

const struct command mapping_commands[] = {
	{"write", do_write},
	{"munmap", do_munmap},
	{"mremap", do_mremap},
	{"madvise", do_madvise},
	{"mprotect", do_mprotect},
	{"stripe", do_stripe},
	{"mlock2", do_mlock2},
	{"mappings", do_mappings},
	{0},
};
