/*
 * content.c: what a thread does with the pages of its arena: looks at them and
 * writes them, itself or through system calls.
 */
#include "torture.h"

#include <sys/uio.h>

bool has_page(struct arena *arena, uint32_t forbidden, struct range **ret_range,
	      size_t *ret_page)
{
	*ret_range = choose_range(arena);
	*ret_page = choose(arena, (*ret_range)->nr);
	return !((*ret_range)->pages[*ret_page].flags & forbidden);
}

char *page_addr(const struct range *range, size_t page)
{
	return range->addr + page * PAGE_SIZE;
}

void look(struct arena *arena)
{
	struct range *range = choose_range(arena);
	size_t page = choose(arena, range->nr);

	for (size_t i = choose_length(arena); i && page < range->nr;
	     i--, page++)
		check_page(arena, range, page);
}

static void set_key(struct arena *arena, struct range *range, size_t page)
{
	range->pages[page].key = ((uint64_t)child_depth + 1) << 58 |
				 (uint64_t)arena->number << 48 |
				 ++arena->nr_versions;
	range->pages[page].flags &= ~PAGE_FREED;
}

void rewrite(struct arena *arena)
{
	struct range *range;
	size_t page;

	if (!has_page(arena, PAGE_NO_ACCESS | PAGE_READONLY, &range, &page))
		return;
	note(arena, range, page, 1, NULL);
	set_key(arena, range, page);
	fill_page(page_addr(range, page), range->pages[page].key);
}

void read_from_file(struct arena *arena)
{
	uint64_t bytes[WORDS_PER_PAGE];
	struct range *range;
	size_t page;

	if (!has_page(arena, PAGE_NO_ACCESS | PAGE_READONLY, &range, &page))
		return;
	note(arena, range, page, 1, NULL);
	set_key(arena, range, page);
	fill_page(bytes, range->pages[page].key);
	must(arena, pwrite(arena->file, bytes, PAGE_SIZE, 0) == PAGE_SIZE,
	     "pwrite");
	must(arena,
	     pread(arena->file, page_addr(range, page), PAGE_SIZE, 0) ==
		     PAGE_SIZE,
	     "pread");
}

void write_to_file(struct arena *arena)
{
	uint64_t bytes[WORDS_PER_PAGE];
	struct range *range = choose_range(arena);
	size_t page = choose(arena, range->nr);
	bool hidden = range->pages[page].flags & PAGE_NO_ACCESS;
	ssize_t n = pwrite(arena->file, page_addr(range, page), PAGE_SIZE, 0);

	if (hidden) {
		must(arena, n < 0 && errno == EFAULT,
		     "pwrite of a page without access");
		return;
	}
	must(arena, n == PAGE_SIZE, "pwrite");
	must(arena, pread(arena->file, bytes, PAGE_SIZE, 0) == PAGE_SIZE,
	     "pread");
	check_copy(arena, range, page, bytes, "write(2) to a file");
}

static void read_whole(struct arena *arena, void *bytes)
{
	for (size_t done = 0; done < PAGE_SIZE;) {
		ssize_t n = read(arena->pipe[0], (char *)bytes + done,
				 PAGE_SIZE - done);

		must(arena, n > 0, "read from a pipe");
		done += n;
	}
}

void write_to_pipe(struct arena *arena)
{
	uint64_t bytes[WORDS_PER_PAGE];
	struct range *range;
	size_t page;

	if (!has_page(arena, PAGE_NO_ACCESS, &range, &page))
		return;
	struct iovec vector = {page_addr(range, page), PAGE_SIZE};
	bool spliced = choose(arena, 2);
	ssize_t n = spliced ? vmsplice(arena->pipe[1], &vector, 1, 0)
			    : writev(arena->pipe[1], &vector, 1);

	must(arena, n == PAGE_SIZE, spliced ? "vmsplice" : "write to a pipe");
	read_whole(arena, bytes);
	check_copy(arena, range, page, bytes,
		   spliced ? "vmsplice" : "write(2) to a pipe");
}
