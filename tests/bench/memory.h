/*
 * What every process of the benchmark knows: where its pages lie, and what
 * each of them must hold.
 *
 * Pages are numbered from 0.  They lie in runs of as many as @run, with a page
 * between two runs that is in no image; sessions are ranges of equal size, one
 * behind the other.  layout.py has the same rule.
 *
 * A page's words count up from a number that its address gives, so that a page
 * of zeros, or one in the wrong place, is wrong, and looking at one takes a
 * tenth of a microsecond: what is measured is the handler.
 */
#ifndef BENCH_MEMORY_H
#define BENCH_MEMORY_H

#include "../support/demand.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE_SIZE      4096ull
#define WORDS_PER_PAGE (PAGE_SIZE / sizeof(uint64_t))
#define MEMORY_ADDR    0x200000000000ull

struct layout {
	uint64_t nr_pages;
	uint64_t run;
	uint64_t nr_sessions;
};

static inline uint64_t page_addr(const struct layout *layout, uint64_t number)
{
	return MEMORY_ADDR + (number + number / layout->run) * PAGE_SIZE;
}

static inline uint64_t pages_of_session(const struct layout *layout)
{
	return layout->nr_pages / layout->nr_sessions;
}

static inline uint64_t session_addr(const struct layout *layout,
				    uint64_t session)
{
	return page_addr(layout, session * pages_of_session(layout));
}

static inline uint64_t session_size(const struct layout *layout)
{
	return session_addr(layout, 1) - session_addr(layout, 0);
}

/* Map what is to be filled, or dumped, page by page. */
static inline void map_memory(void *addr, uint64_t size)
{
	demand(mmap(addr, size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE |
			    MAP_NORESERVE,
		    -1, 0) == addr,
	       "mmap");
	demand(madvise(addr, size, MADV_NOHUGEPAGE) == 0, "MADV_NOHUGEPAGE");
}

/* The finaliser of splitmix64. */
static inline uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

static inline void fill_page(void *page, uint64_t addr)
{
	uint64_t *words = page, first = mix(addr);

	for (uint64_t i = 0; i < WORDS_PER_PAGE; i++)
		words[i] = first + i;
}

/* Whether @page, wherever it is now, is the one of @addr. */
static inline bool is_page(const void *page, uint64_t addr)
{
	const uint64_t *words = page;
	uint64_t first = mix(addr), wrong = 0;

	for (uint64_t i = 0; i < WORDS_PER_PAGE; i++)
		wrong |= words[i] ^ (first + i);
	return !wrong;
}

static inline uint64_t now_ns(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

#endif
