/*
 * victim SOCKET NR_PAGES
 *	fill memory, then serve
 * victim SOCKET NR_PAGES ANSWERS WORK_DIR PID
 *	serve, with memory that a lazy-pages daemon brings
 *
 * A client connects to SOCKET and sends lines. Answers, one line each:
 *
 * get PAGE
 *	the page's word in hex, "right" or "wrong", nanoseconds that reading
 *	it took, number of answers so far
 * verify
 *	number of pages, number of wrong pages
 */
#include "victim.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define WORDS_PER_PAGE (PAGE_SIZE / sizeof(uint64_t))

static volatile uint64_t *memory;
static size_t nr_pages;
static uint64_t answers;

void fail(const char *what)
{
	perror(what);
	_exit(1);
}

uint64_t *map_memory(size_t nr)
{
	void *addr =
		mmap(MEMORY_ADDR, nr * PAGE_SIZE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (addr != MEMORY_ADDR)
		fail("mmap");
	return addr;
}

/* splitmix64 of the page's number: never 0. */
static uint64_t word_of(size_t page)
{
	uint64_t x = (page + 1) * 0x9e3779b97f4a7c15;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

static bool is_right(size_t page)
{
	for (size_t i = 0; i < WORDS_PER_PAGE; i++) {
		if (memory[page * WORDS_PER_PAGE + i] != word_of(page))
			return false;
	}
	return true;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

static void answer_get(FILE *client, size_t page)
{
	uint64_t began_ns = now_ns();
	uint64_t word = memory[page * WORDS_PER_PAGE];
	uint64_t took_ns = now_ns() - began_ns;

	fprintf(client, "%016lx %s %lu %lu\n", word,
		is_right(page) ? "right" : "wrong", took_ns, ++answers);
}

static void answer_verify(FILE *client)
{
	size_t nr_wrong = 0;

	for (size_t page = 0; page < nr_pages; page++)
		nr_wrong += !is_right(page);
	fprintf(client, "%zu %zu\n", nr_pages, nr_wrong);
}

static void answer(FILE *client, const char *line)
{
	size_t page;

	if (sscanf(line, "get %zu", &page) == 1 && page < nr_pages)
		answer_get(client, page);
	else if (strcmp(line, "verify\n") == 0)
		answer_verify(client);
	else
		fprintf(client, "what?\n");
	fflush(client);
}

static int listen_at(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	if (snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path) >=
	    (int)sizeof(addr.sun_path))
		return -1;
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) ||
	    listen(fd, 8))
		fail(path);
	return fd;
}

static void serve(int listener)
{
	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			continue;
		FILE *client = fdopen(fd, "r+");
		char line[64];

		while (fgets(line, sizeof(line), client))
			answer(client, line);
		fclose(client);
	}
}

int main(int argc, char **argv)
{
	if (argc != 3 && argc != 6)
		return 2;
	nr_pages = strtoull(argv[2], NULL, 10);
	memory = map_memory(nr_pages);
	if (argc == 6) {
		answers = strtoull(argv[3], NULL, 10);
		hand_over(argv[4], atoi(argv[5]), (void *)memory, nr_pages);
	} else {
		for (size_t i = 0; i < nr_pages * WORDS_PER_PAGE; i++)
			memory[i] = word_of(i / WORDS_PER_PAGE);
	}
	serve(listen_at(argv[1]));
}
