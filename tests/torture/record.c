/*
 * record.c: what every page of an arena must hold, and what it is told when
 * one does not.
 */
#include "torture.h"

#define ARENA_SPACING 0x1000000000ul /* 64 GiB */
#define FIRST_ARENA   0x100000000000ul

/* The finaliser of splitmix64. */
uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

size_t choose(struct arena *arena, size_t nr)
{
	arena->random += 0x9e3779b97f4a7c15;
	return mix(arena->random) % nr;
}

static uint64_t word_of(uint64_t key, size_t index)
{
	if (key == 0 || index == 0)
		return key;
	return mix(key + index * sizeof(uint64_t));
}

void fill_page(void *page, uint64_t key)
{
	uint64_t *words = page;

	for (size_t i = 0; i < WORDS_PER_PAGE; i++)
		words[i] = word_of(key, i);
}

/*
 * Every arena has holes of another size and share: none, every other page, or
 * long runs.
 */
static bool is_hole(unsigned int arena, size_t page)
{
	static const unsigned int runs[] = {0, 1, 0, 16, 0, 3, 0, 64};
	unsigned int run = runs[(arena + options.seed) % 8];

	return run && (page / run) % 2 &&
	       mix(options.seed + arena + page / run) % 4 != 0;
}

uint64_t image_key(unsigned int arena, size_t page)
{
	if (is_hole(arena, page))
		return 0;
	return 1ul << 63 | (options.seed & 0xffff) << 44 |
	       (uint64_t)arena << 36 | page;
}

char *arena_start(unsigned int arena)
{
	return (char *)(FIRST_ARENA + arena * ARENA_SPACING);
}

void arena_init(struct arena *arena)
{
	struct range *range = add_range(arena, arena_start(arena->number),
					options.nr_pages, true);

	pthread_mutex_init(&arena->lock, NULL);
	arena->random = mix(options.seed * MAX_ARENAS + arena->number + 1);
	for (size_t i = 0; i < range->nr; i++) {
		range->pages[i].key = image_key(arena->number, i);
		range->pages[i].flags = range->pages[i].key ? 0 : PAGE_UNTOLD;
	}
	arena->file = memfd_create("scratch", MFD_CLOEXEC);
	must(arena, arena->file >= 0, "memfd_create");
	must(arena, pipe2(arena->pipe, O_CLOEXEC) == 0, "pipe2");
}

/* ---- what is wrong ---- */

static void print_past(const struct page *page)
{
	for (int i = 0; i < NR_PAST && page->past[i]; i++)
		printf(" #%u %s", page->past[i] >> 6,
		       operation_name(page->past[i] & 63));
	printf("\n");
}

void print_steps(const struct arena *arena)
{
	uint64_t first =
		arena->nr_steps > NR_STEPS ? arena->nr_steps - NR_STEPS : 0;

	for (uint64_t i = first; i < arena->nr_steps; i++) {
		const struct step *step = &arena->steps[i % NR_STEPS];

		printf("  #%lu %s %p+%#zx -> %p\n", step->operation, step->what,
		       step->addr, step->nr * PAGE_SIZE, step->to);
	}
}

_Noreturn void finding(struct arena *arena, const char *what)
{
	printf("seed %lu, thread %u, operation %lu (%s), depth %u: %s\n",
	       options.seed, arena->number, arena->operation,
	       operation_name(arena->what), child_depth, what);
	print_steps(arena);
	fflush(stdout);
	_exit(1);
}

void must(struct arena *arena, bool happened, const char *what)
{
	char text[128];

	if (happened)
		return;
	snprintf(text, sizeof(text), "%s: %s", what, strerror(errno));
	finding(arena, text);
}

static _Noreturn void wrong_page(struct arena *arena, const struct range *range,
				 size_t page, const uint64_t *found,
				 size_t index, const char *how)
{
	const struct page *record = &range->pages[page];
	char *addr = range->addr + page * PAGE_SIZE;
	char text[320];

	snprintf(text, sizeof(text),
		 "wrong page at %p (%s), word %zu: %#lx expected, %#lx found; "
		 "key %#lx expected, %#lx found; flags %#x%s",
		 addr, how, index, word_of(record->key, index), found[index],
		 record->key, found[0], record->flags,
		 range->registered ? "" : ", not registered");
	printf("page %p: lately", addr);
	print_past(record);
	finding(arena, text);
}

/* The index of the first word that is not of @key; WORDS_PER_PAGE if none. */
static size_t first_wrong(const volatile uint64_t *words, uint64_t key)
{
	size_t i = 0;

	while (i < WORDS_PER_PAGE && words[i] == word_of(key, i))
		i++;
	return i;
}

void check_copy(struct arena *arena, const struct range *range, size_t page,
		const void *copy, const char *how)
{
	const struct page *record = &range->pages[page];
	size_t wrong = first_wrong(copy, record->key);

	arena->nr_checked++;
	if (wrong == WORDS_PER_PAGE || ((record->flags & PAGE_FREED) &&
					first_wrong(copy, 0) == WORDS_PER_PAGE))
		return;
	wrong_page(arena, range, page, copy, wrong, how);
}

void check_page(struct arena *arena, const struct range *range, size_t page)
{
	if (!(range->pages[page].flags & PAGE_NO_ACCESS))
		check_copy(arena, range, page, range->addr + page * PAGE_SIZE,
			   "read");
}

void check_arena(struct arena *arena, size_t stride)
{
	for (size_t i = 0; i < arena->nr_ranges; i++) {
		const struct range *range = &arena->ranges[i];

		for (size_t page = choose(arena, stride); page < range->nr;
		     page += stride)
			check_page(arena, range, page);
	}
}

void note(struct arena *arena, const struct range *range, size_t page,
	  size_t nr, char *to)
{
	arena->steps[arena->nr_steps++ % NR_STEPS] = (struct step){
		.operation = arena->operation,
		.what = operation_name(arena->what),
		.addr = range->addr + page * PAGE_SIZE,
		.nr = nr,
		.to = to,
	};
	for (size_t i = page; i < page + nr; i++) {
		uint32_t *past = range->pages[i].past;

		memmove(past + 1, past, (NR_PAST - 1) * sizeof(*past));
		past[0] = arena->operation << 6 | arena->what;
	}
}

/* ---- ranges ---- */

struct range *add_range(struct arena *arena, char *addr, size_t nr,
			bool registered)
{
	struct range *range = &arena->ranges[arena->nr_ranges++];

	must(arena, arena->nr_ranges <= MAX_RANGES, "room for a range");
	*range = (struct range){
		.addr = addr,
		.nr = nr,
		.registered = registered,
		/* Never freed: pieces of it are in other ranges, too. */
		.pages = calloc(nr, sizeof(struct page)),
	};
	must(arena, range->pages, "calloc");
	return range;
}

void remove_range(struct arena *arena, struct range *range)
{
	*range = arena->ranges[--arena->nr_ranges];
}

/* A range of pages [page, page + nr) of another. */
static struct range part_of(const struct range *range, size_t page, size_t nr)
{
	return (struct range){
		.addr = range->addr + page * PAGE_SIZE,
		.nr = nr,
		.pages = range->pages + page,
		.registered = range->registered,
		.split = range->split && nr > 1,
	};
}

struct range *isolate(struct arena *arena, struct range *range, size_t page,
		      size_t nr)
{
	struct range whole = *range;

	if (arena->nr_ranges + 2 > MAX_RANGES)
		return NULL;
	*range = part_of(&whole, page, nr);
	if (page)
		arena->ranges[arena->nr_ranges++] = part_of(&whole, 0, page);
	if (page + nr < whole.nr)
		arena->ranges[arena->nr_ranges++] =
			part_of(&whole, page + nr, whole.nr - page - nr);
	return range;
}

static int compare_addr(const void *a, const void *b)
{
	const struct range *left = a, *right = b;

	return left->addr < right->addr ? -1 : left->addr > right->addr;
}

void join_ranges(struct arena *arena)
{
	size_t nr = 0;

	qsort(arena->ranges, arena->nr_ranges, sizeof(*arena->ranges),
	      compare_addr);
	for (size_t i = 0; i < arena->nr_ranges; i++) {
		struct range *next = &arena->ranges[i];
		struct range *last = nr ? &arena->ranges[nr - 1] : NULL;

		if (last && last->addr + last->nr * PAGE_SIZE == next->addr &&
		    last->pages + last->nr == next->pages &&
		    last->registered == next->registered) {
			last->nr += next->nr;
			last->split = true;
		} else {
			arena->ranges[nr++] = *next;
		}
	}
	arena->nr_ranges = nr;
}

bool any_flag(const struct range *range, uint32_t flags)
{
	for (size_t i = 0; i < range->nr; i++)
		if (range->pages[i].flags & flags)
			return true;
	return false;
}

void set_zero(struct range *range, uint32_t more_flags)
{
	for (size_t i = 0; i < range->nr; i++) {
		range->pages[i].key = 0;
		range->pages[i].flags &= ~PAGE_FREED;
		range->pages[i].flags |= more_flags;
	}
}

void change_flag(struct range *range, uint32_t flag, bool set)
{
	for (size_t i = 0; i < range->nr; i++) {
		range->pages[i].flags &= ~flag;
		if (set)
			range->pages[i].flags |= flag;
	}
}

static void wipe_page(struct page *page)
{
	page->flags &= ~(PAGE_FREED | PAGE_GUARD);
	/* What has been written is not missing. */
	if (page->key >> 63)
		page->flags |= PAGE_FREED;
	else
		page->key = 0;
}

static void wipe(struct range *range)
{
	for (size_t i = 0; i < range->nr; i++)
		if (range->pages[i].flags & PAGE_WIPEONFORK)
			wipe_page(&range->pages[i]);
}

void drop_unforked(struct arena *arena)
{
	for (size_t i = 0; i < arena->nr_ranges; i++)
		wipe(&arena->ranges[i]);
	for (size_t i = 0; i < arena->nr_ranges;) {
		struct range *range = &arena->ranges[i];
		size_t first = 0, nr;

		while (first < range->nr &&
		       !(range->pages[first].flags & PAGE_DONTFORK))
			first++;
		if (first == range->nr) {
			i++;
			continue;
		}
		for (nr = 1; first + nr < range->nr &&
			     (range->pages[first + nr].flags & PAGE_DONTFORK);)
			nr++;
		must(arena, isolate(arena, range, first, nr), "room to fork");
		remove_range(arena, range);
	}
}
