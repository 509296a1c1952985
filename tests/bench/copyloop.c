/*
 * copyloop PAGES NR_PAGES NR_THREADS: the fastest that memory can be filled: a
 * plain loop of UFFDIO_COPY, a MiB at a time, out of a mapping of the pages
 * file, each thread its part.  Every page is looked at in the end.
 */
#define _GNU_SOURCE
#include "../support/restored.h"
#include "memory.h"

#include <pthread.h>

#define PIECE       (1ull << 20)
#define MAX_THREADS 16

static int uffd;
static const char *pages;

struct part {
	pthread_t id;
	uint64_t start, end; /* in bytes */
};

static void *copy_part(void *arg)
{
	const struct part *part = arg;
	uint64_t at = part->start;

	while (at < part->end) {
		struct uffdio_copy copy = {
			.dst = MEMORY_ADDR + at,
			.src = (uintptr_t)pages + at,
			.len = part->end - at < PIECE ? part->end - at : PIECE,
		};

		demand(ioctl(uffd, UFFDIO_COPY, &copy) == 0, "UFFDIO_COPY");
		at += copy.len;
	}
	return NULL;
}

static void map_pages(const char *path, uint64_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	demand(fd >= 0, path);
	pages = mmap(NULL, size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
	demand(pages != MAP_FAILED, path);
}

static void run(struct part *parts, uint64_t nr_threads)
{
	for (uint64_t i = 0; i < nr_threads; i++)
		demand(pthread_create(&parts[i].id, NULL, copy_part,
				      &parts[i]) == 0,
		       "pthread_create");
	for (uint64_t i = 0; i < nr_threads; i++)
		pthread_join(parts[i].id, NULL);
}

int main(int argc, char **argv)
{
	struct part parts[MAX_THREADS];

	if (argc != 4)
		return 2;
	uint64_t nr_pages = strtoull(argv[2], NULL, 0);
	uint64_t nr_threads = strtoull(argv[3], NULL, 0);
	uint64_t nr_wrong = 0;
	map_pages(argv[1], nr_pages * PAGE_SIZE);
	map_memory((void *)MEMORY_ADDR, nr_pages * PAGE_SIZE);
	uffd = open_userfaultfd();
	register_missing(uffd, (void *)MEMORY_ADDR, nr_pages * PAGE_SIZE);
	for (uint64_t i = 0; i < nr_threads; i++)
		parts[i] = (struct part){
			.start = nr_pages * i / nr_threads * PAGE_SIZE,
			.end = nr_pages * (i + 1) / nr_threads * PAGE_SIZE,
		};

	uint64_t start_ns = now_ns(CLOCK_MONOTONIC);
	uint64_t cpu_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID);
	run(parts, nr_threads);
	cpu_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_ns;
	uint64_t total_ns = now_ns(CLOCK_MONOTONIC) - start_ns;

	for (uint64_t i = 0; i < nr_pages; i++) {
		uint64_t addr = MEMORY_ADDR + i * PAGE_SIZE;

		nr_wrong += !is_page((const void *)addr, addr);
	}
	printf("{\"total_ns\": %lu, \"cpu_ns\": %lu, \"nr_touches\": %lu, "
	       "\"nr_wrong\": %lu}\n",
	       total_ns, cpu_ns, nr_pages, nr_wrong);
	return 0;
}
