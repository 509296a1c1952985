/*
 * What every victim of these tests does: know what each of its words must be,
 * wait, look, and say what it saw.
 *
 * A page's words are a hash of the page's key and their place in it, so that a
 * page in the wrong place, of the wrong process or of the wrong version is as
 * wrong as one of zeros.  Key 0 means a page of zeros.
 */
#ifndef VICTIM_H
#define VICTIM_H

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE_SIZE      ((size_t)4096)
#define WORDS_PER_PAGE (PAGE_SIZE / sizeof(uint64_t))
#define PAGES_PER_MIB  ((size_t)256)

/* Pages that were looked at, and the first that was wrong. */
struct tally {
	size_t nr_pages;
	size_t nr_wrong;
	uint64_t wrong_addr;
	uint64_t wrong_key;
	uint64_t wrong_word;
};

static inline void must(bool happened, const char *what)
{
	if (!happened) {
		perror(what);
		_exit(2);
	}
}

/* The finaliser of splitmix64. */
static inline uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

static inline uint64_t word_of(uint64_t key, size_t index)
{
	return key == 0 ? 0 : mix(key + index * sizeof(uint64_t));
}

/* The key of a page of the first version: its own address. */
static inline uint64_t key_of(const void *page, uint64_t seed)
{
	return (uint64_t)(uintptr_t)page + (seed << 48);
}

static inline void fill_page(void *page, uint64_t key)
{
	uint64_t *words = page;

	for (size_t i = 0; i < WORDS_PER_PAGE; i++)
		words[i] = word_of(key, i);
}

static inline bool check_page(const void *page, uint64_t key,
			      struct tally *tally)
{
	const volatile uint64_t *words = page;

	tally->nr_pages++;
	for (size_t i = 0; i < WORDS_PER_PAGE; i++) {
		uint64_t word = words[i];

		if (word == word_of(key, i))
			continue;
		if (tally->nr_wrong++ == 0) {
			tally->wrong_addr = (uint64_t)(uintptr_t)&words[i];
			tally->wrong_key = key;
			tally->wrong_word = word;
		}
		return false;
	}
	return true;
}

static inline void add_tally(struct tally *sum, const struct tally *part)
{
	if (sum->nr_wrong == 0 && part->nr_wrong != 0) {
		sum->wrong_addr = part->wrong_addr;
		sum->wrong_key = part->wrong_key;
		sum->wrong_word = part->wrong_word;
	}
	sum->nr_pages += part->nr_pages;
	sum->nr_wrong += part->nr_wrong;
}

static inline char *map_pages(size_t nr_pages)
{
	void *addr = mmap(NULL, nr_pages * PAGE_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(addr != MAP_FAILED, "mmap");
	return addr;
}

static inline void fill_range(char *addr, size_t nr_pages, uint64_t seed)
{
	for (size_t i = 0; i < nr_pages; i++)
		fill_page(addr + i * PAGE_SIZE,
			  key_of(addr + i * PAGE_SIZE, seed));
}

/*
 * Look at every page once, @stride pages apart (modulo the range; it must not
 * divide @nr_pages unless it is 1).
 */
static inline void check_range(const char *addr, size_t nr_pages, uint64_t seed,
			       size_t stride, struct tally *tally)
{
	for (size_t i = 0; i < nr_pages; i++) {
		const char *page = addr + (i * stride % nr_pages) * PAGE_SIZE;

		check_page(page, key_of(page, seed), tally);
	}
}

/* Write @text to DIR/NAME such that it is there whole or not at all. */
static inline void publish(const char *dir, const char *name, const char *text)
{
	char path[512], part[520];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	snprintf(part, sizeof(part), "%s.part", path);
	FILE *file = fopen(part, "w");
	must(file && fputs(text, file) >= 0 && fclose(file) == 0, part);
	must(rename(part, path) == 0, path);
}

static inline void report(const char *dir, const char *name,
			  const struct tally *tally)
{
	char text[256];

	snprintf(text, sizeof(text), "%zu %zu %#lx %#lx %#lx\n",
		 tally->nr_pages, tally->nr_wrong, tally->wrong_addr,
		 tally->wrong_key, tally->wrong_word);
	publish(dir, name, text);
}

/* Wait until DIR/NAME is there: a file, because a signal would need our pid. */
static inline void await(const char *dir, const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	while (access(path, F_OK) != 0)
		nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

#endif
