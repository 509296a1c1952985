/*
 * mappings.c: what a thread does to the mappings of its arena.
 *
 * The kernel chooses most addresses, so threads are given places that others
 * have just left.
 */
#include "torture.h"

#define GIB (1ul << 30)

struct range *choose_range(struct arena *arena)
{
	return &arena->ranges[choose(arena, arena->nr_ranges)];
}

size_t choose_length(struct arena *arena)
{
	static const size_t longest[] = {1, 4, 16, 64, 512};
	size_t nr = 1 + choose(arena, longest[choose(arena, 5)]);

	/* Units of more than a page are large enough if they are few. */
	return options.unit == 1 ? nr : (1 + nr % 8) * options.unit;
}

char *map_pages(char *hint, size_t nr, int prot, int more_flags)
{
	/* Of huge pages that are moved, the kernel loses reservations. */
	int huge = options.unit == 1 ? 0 : MAP_HUGETLB | MAP_NORESERVE;

	return mmap(hint, nr * PAGE_SIZE, prot,
		    MAP_PRIVATE | MAP_ANONYMOUS | huge | more_flags, -1, 0);
}

/* Where a piece of nr pages begins in a range. */
static size_t choose_first(struct arena *arena, const struct range *range,
			   size_t nr)
{
	size_t nr_places = (range->nr - nr) / options.unit + 1;

	return choose(arena, nr_places) * options.unit;
}

struct range *choose_piece(struct arena *arena)
{
	struct range *range = choose_range(arena);
	size_t nr = choose_length(arena);

	/* Page by page takes long. */
	if (range->split && nr > 16 * options.unit)
		nr = (1 + nr % 16) * options.unit;
	if (nr > range->nr)
		nr = range->nr;
	return isolate(arena, range, choose_first(arena, range, nr), nr);
}

/*
 * A piece that may be moved.  Of huge pages on both sides of a multiple of
 * 1 GiB the kernel loses those above, if there is nothing below: see
 * docs/explanation/correctness.md.
 */
static struct range *choose_movable(struct arena *arena)
{
	struct range *range = choose_piece(arena);

	if (!range || options.unit == 1)
		return range;
	uintptr_t start = (uintptr_t)range->addr;
	uintptr_t last = start + range->nr * PAGE_SIZE - 1;
	return start / GIB == last / GIB ? range : NULL;
}

static size_t nr_pages_of(const struct arena *arena)
{
	size_t nr = 0;

	for (size_t i = 0; i < arena->nr_ranges; i++)
		nr += arena->ranges[i].nr;
	return nr;
}

void map_new(struct arena *arena)
{
	size_t nr = choose_length(arena);

	/* There are not as many huge pages as one likes. */
	if (options.unit > 1 && nr_pages_of(arena) > 2 * options.nr_pages)
		return;
	/* Sometimes where somebody was lately, if that is free. */
	char *hint = NULL;

	if (choose(arena, 2) && arena->nr_steps)
		hint = arena->steps[choose(arena, arena->nr_steps < NR_STEPS
							  ? arena->nr_steps
							  : NR_STEPS)]
			       .addr;
	char *addr = map_pages(hint, nr, READ_WRITE, 0);
	must(arena, addr != MAP_FAILED, "mmap");
	struct range *range = add_range(arena, addr, nr, false);
	note(arena, range, 0, nr, NULL);
}

void unmap_range(struct arena *arena, struct range *range)
{
	note(arena, range, 0, range->nr, NULL);
	must(arena, munmap(range->addr, range->nr * PAGE_SIZE) == 0, "munmap");
	remove_range(arena, range);
}

void unmap(struct arena *arena)
{
	struct range *range = choose_piece(arena);

	if (range && arena->nr_ranges > 4)
		unmap_range(arena, range);
}

/* Move a range to where it takes the place of other memory of ours. */
static void move_over(struct arena *arena, struct range *range, char *to)
{
	size_t step = range->split ? options.unit : range->nr;

	note(arena, range, 0, range->nr, to);
	for (size_t i = 0; i < range->nr; i += step)
		must(arena,
		     mremap(page_addr(range, i), step * PAGE_SIZE,
			    step * PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED,
			    to + i * PAGE_SIZE) == to + i * PAGE_SIZE,
		     "mremap");
	range->addr = to;
}

void move_to_new(struct arena *arena)
{
	struct range *range = choose_movable(arena);

	if (!range)
		return;
	char *to = map_pages(NULL, range->nr, PROT_NONE, MAP_NORESERVE);
	must(arena, to != MAP_FAILED, "mmap of a destination");
	move_over(arena, range, to);
}

/* Registered memory that makes room in the call itself: UNMAP, then REMAP. */
void move_to_own(struct arena *arena)
{
	struct range *range = choose_movable(arena);

	if (!range || arena->nr_ranges < 2)
		return;
	struct range *target = choose_range(arena);
	if (target == range || target->nr < range->nr)
		return;
	target = isolate(arena, target, choose_first(arena, target, range->nr),
			 range->nr);
	if (!target)
		return;
	move_over(arena, range, target->addr);
	remove_range(arena, target);
}

/* One page more or many; in place or to where the kernel likes. */
void grow(struct arena *arena)
{
	struct range *range = choose_movable(arena);
	size_t more = choose_length(arena);

	if (!range || range->split)
		return;
	note(arena, range, 0, range->nr, NULL);
	char *addr = mremap(range->addr, range->nr * PAGE_SIZE,
			    (range->nr + more) * PAGE_SIZE, MREMAP_MAYMOVE);
	must(arena, addr != MAP_FAILED, "mremap to grow");

	/* Its flags are those of the mapping, and so of the last page. */
	uint32_t flags = range->pages[range->nr - 1].flags &
			 ~(PAGE_FREED | PAGE_UNTOLD | PAGE_GUARD);
	struct page *pages = calloc(range->nr + more, sizeof(*pages));
	must(arena, pages, "calloc");
	memcpy(pages, range->pages, range->nr * sizeof(*pages));
	for (size_t i = range->nr; i < range->nr + more; i++)
		pages[i].flags = flags | PAGE_UNTOLD;
	range->pages = pages;
	range->addr = addr;
	range->nr += more;
}

void shrink(struct arena *arena)
{
	struct range *range = choose_movable(arena);

	if (!range || range->split || range->nr <= options.unit)
		return;
	size_t nr_left =
		options.unit + choose_first(arena, range, 2 * options.unit);
	bool moves = choose(arena, 2);
	char *to = range->addr;
	int flags = 0;

	if (moves) {
		flags = MREMAP_MAYMOVE | MREMAP_FIXED;
		to = map_pages(NULL, nr_left, PROT_NONE, MAP_NORESERVE);
		must(arena, to != MAP_FAILED, "mmap of a destination");
	}
	note(arena, range, 0, range->nr, to);
	must(arena,
	     mremap(range->addr, range->nr * PAGE_SIZE, nr_left * PAGE_SIZE,
		    flags, to) == to,
	     "mremap to shrink");
	range->addr = to;
	range->nr = nr_left;
}

void move_and_stay(struct arena *arena)
{
	struct range *range = choose_movable(arena);

	if (!range || range->split || arena->nr_ranges == MAX_RANGES)
		return;
	note(arena, range, 0, range->nr, NULL);
	char *to = mremap(range->addr, range->nr * PAGE_SIZE,
			  range->nr * PAGE_SIZE,
			  MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	must(arena, to != MAP_FAILED, "mremap with MREMAP_DONTUNMAP");
	struct range *left =
		add_range(arena, range->addr, range->nr, range->registered);
	memcpy(left->pages, range->pages, range->nr * sizeof(*left->pages));
	set_zero(left, PAGE_UNTOLD);
	change_flag(left, PAGE_GUARD, false);
	range->addr = to;
}
