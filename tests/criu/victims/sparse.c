/*
 * sparse DIR MIB STEP keep|lose: memory with a page in every STEP, and nothing
 * between them.
 *
 * With "lose" the middle third is unmapped and the last third dropped, each in
 * one call, before anything is looked at.
 */
#include "victim.h"

#include <string.h>

static char *addr;
static size_t nr_pages;
static size_t step;

/* Look at each page that is filled, and the empty one behind it. */
static void check(size_t start, size_t end, bool filled, struct tally *tally)
{
	for (size_t i = start; i + 1 < end; i += step) {
		const char *page = addr + i * PAGE_SIZE;

		check_page(page + PAGE_SIZE, 0, tally);
		check_page(page, filled ? key_of(page, 3) : 0, tally);
	}
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	const char *dir = argv[1];
	bool lose = strcmp(argv[4], "lose") == 0;
	struct tally tally = {0};

	step = strtoul(argv[3], NULL, 0);
	/* A third, in steps, so that every third begins with a filled page. */
	size_t third =
		strtoul(argv[2], NULL, 0) * PAGES_PER_MIB / 3 / step * step;

	nr_pages = 3 * third;
	addr = mmap(NULL, nr_pages * PAGE_SIZE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	must(addr != MAP_FAILED, "mmap");
	must(madvise(addr, nr_pages * PAGE_SIZE, MADV_NOHUGEPAGE) == 0,
	     "MADV_NOHUGEPAGE");
	for (size_t i = 0; i < nr_pages; i += step)
		fill_page(addr + i * PAGE_SIZE,
			  key_of(addr + i * PAGE_SIZE, 3));
	publish(dir, "ready", "");
	await(dir, "go");
	if (lose) {
		must(munmap(addr + third * PAGE_SIZE, third * PAGE_SIZE) == 0,
		     "munmap");
		must(madvise(addr + 2 * third * PAGE_SIZE, third * PAGE_SIZE,
			     MADV_DONTNEED) == 0,
		     "MADV_DONTNEED");
	}
	check(0, third, true, &tally);
	if (!lose)
		check(third, 2 * third, true, &tally);
	check(2 * third, nr_pages, !lose, &tally);
	report(dir, "sparse", &tally);
	return tally.nr_wrong != 0;
}
