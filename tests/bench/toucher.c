/*
 * toucher write DIR LAYOUT         write pages-PID.img for each session
 * toucher dumped DIR LAYOUT        be dumped by CRIU, and touch in DIR/go's way
 * toucher handoff LAYOUT TOUCHING  hand over at ./lazy-pages.socket, and touch
 *
 * LAYOUT is NR_PAGES RUN NR_SESSIONS NR_WRITTEN: only pages that the first
 * NR_WRITTEN random touches reach are written, and the rest are holes.
 * TOUCHING is ORDER NR_THREADS NR_TOUCHES PAUSE_NS PAUSE HOW, ORDER one of
 * random, sequential and wait, PAUSE one of work and sleep, HOW one of end,
 * linger and own.
 */
#define _GNU_SOURCE
#include "toucher.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>

#include "order.h"

#define NR_LAYOUT_WORDS   4
#define NR_TOUCHING_WORDS 6
#define FIRST_PID         1000 /* as in layout.py */

/*
 * As criu dump writes them, and cp: so that they lie in the page cache in
 * folios of many pages, which is quicker to read than page by page.
 */
#define WRITTEN_PAGES 256

static void read_layout(char **words, struct layout *layout)
{
	layout->nr_pages = strtoull(words[0], NULL, 0);
	layout->run = strtoull(words[1], NULL, 0);
	layout->nr_sessions = strtoull(words[2], NULL, 0);
}

/* ---- write ---- */

static int create_pages(const char *dir, uint64_t session, uint64_t size)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/pages-%lu.img", dir,
		 FIRST_PID + session);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	demand(fd >= 0 && ftruncate(fd, size) == 0, path);
	return fd;
}

/* Write pages of a session; @place is that of the first in it. */
static void write_run(int fd, const struct layout *layout, uint64_t session,
		      uint64_t place, uint64_t nr)
{
	static uint8_t bytes[WRITTEN_PAGES * PAGE_SIZE];
	uint64_t first = session * pages_of_session(layout) + place;
	size_t size = nr * PAGE_SIZE;

	for (uint64_t i = 0; i < nr; i++)
		fill_page((void *)(bytes + i * PAGE_SIZE),
			  page_addr(layout, first + i));
	demand(pwrite(fd, bytes, size, place * PAGE_SIZE) == (ssize_t)size,
	       "write of pages");
}

static void write_all(int fd, const struct layout *layout, uint64_t session)
{
	uint64_t nr_pages = pages_of_session(layout), nr;

	for (uint64_t place = 0; place < nr_pages; place += nr) {
		nr = nr_pages - place < WRITTEN_PAGES ? nr_pages - place
						      : WRITTEN_PAGES;
		write_run(fd, layout, session, place, nr);
	}
}

static void write_pages(const char *dir, const struct layout *layout,
			uint64_t nr_written)
{
	uint64_t nr_pages = pages_of_session(layout);
	uint64_t nr_each = nr_written / layout->nr_sessions;

	for (uint64_t i = 0; i < layout->nr_sessions; i++) {
		int fd = create_pages(dir, i, nr_pages * PAGE_SIZE);

		if (nr_each == nr_pages)
			write_all(fd, layout, i);
		else
			for (uint64_t j = 0; j < nr_each; j++)
				write_run(fd, layout, i, permute(j, nr_pages),
					  1);
		close(fd);
	}
}

/* ---- dumped ---- */

/* Write DIR/NAME such that it is there whole or not at all. */
static void publish(const char *dir, const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	demand(close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)) == 0,
	       path);
}

static void make_memory(const struct layout *layout)
{
	map_memory((void *)session_addr(layout, 0), session_size(layout));
	for (uint64_t i = 0; i < layout->nr_pages; i++)
		fill_page((void *)page_addr(layout, i), page_addr(layout, i));
}

/*
 * DIR/go is there when we are restored, so that we begin with the first
 * instruction; it is not when we are dumped.
 */
static FILE *await_go(const char *dir)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/go", dir);
	while (access(path, F_OK) != 0)
		sched_yield();
	FILE *file = fopen(path, "r");
	demand(file, path);
	return file;
}

static void be_dumped(const char *dir, const struct layout *layout)
{
	struct touching touching;
	char words[NR_TOUCHING_WORDS][32], *pointers[NR_TOUCHING_WORDS];
	char result[512];

	make_memory(layout);
	publish(dir, "ready");
	FILE *go = await_go(dir);
	uint64_t start_ns = now_ns(CLOCK_MONOTONIC);
	for (int i = 0; i < NR_TOUCHING_WORDS; i++) {
		demand(fscanf(go, "%31s", words[i]) == 1, "go");
		pointers[i] = words[i];
	}
	fclose(go);
	read_touching(pointers, &touching);
	snprintf(result, sizeof(result), "%s/result", dir);
	touch_and_report(layout, &touching, start_ns, result);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	struct touching touching;
	struct layout layout;

	if (strcmp(what, "write") == 0 && argc == 3 + NR_LAYOUT_WORDS) {
		read_layout(&argv[3], &layout);
		write_pages(argv[2], &layout, strtoull(argv[6], NULL, 0));
	} else if (strcmp(what, "dumped") == 0 && argc == 3 + NR_LAYOUT_WORDS) {
		read_layout(&argv[3], &layout);
		be_dumped(argv[2], &layout);
	} else if (strcmp(what, "handoff") == 0 &&
		   argc == 2 + NR_LAYOUT_WORDS + NR_TOUCHING_WORDS) {
		read_layout(&argv[2], &layout);
		read_touching(&argv[2 + NR_LAYOUT_WORDS], &touching);
		touch_and_report(&layout, &touching, hand_over(&layout), NULL);
	} else {
		return 2;
	}
	return 0;
}
