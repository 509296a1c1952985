/*
 * advice.c: what a thread advises of its memory, and whether it may be touched.
 */
#include "torture.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE  103
#endif

void drop(struct arena *arena)
{
	struct range *range = choose_piece(arena);

	if (!range)
		return;
	note(arena, range, 0, range->nr, NULL);
	must(arena,
	     madvise(range->addr, range->nr * PAGE_SIZE, MADV_DONTNEED) == 0,
	     "MADV_DONTNEED");
	set_zero(range, 0);
}

void free_lazily(struct arena *arena)
{
	struct range *range = choose_piece(arena);

	if (!range)
		return;
	note(arena, range, 0, range->nr, NULL);
	must(arena, madvise(range->addr, range->nr * PAGE_SIZE, MADV_FREE) == 0,
	     "MADV_FREE");
	for (size_t i = 0; i < range->nr; i++)
		if (range->pages[i].key)
			range->pages[i].flags |= PAGE_FREED;
}

/* Set what children get, on a piece; mostly back, or they get little. */
static void advise_for_children(struct arena *arena, uint32_t flag, int advice,
				int opposite)
{
	struct range *range = choose_piece(arena);

	if (!range)
		return;
	bool set = choose(arena, 4) == 0;

	note(arena, range, 0, range->nr, NULL);
	must(arena,
	     madvise(range->addr, range->nr * PAGE_SIZE,
		     set ? advice : opposite) == 0,
	     "madvise for children");
	change_flag(range, flag, set);
}

void keep_from_children(struct arena *arena)
{
	advise_for_children(arena, PAGE_DONTFORK, MADV_DONTFORK, MADV_DOFORK);
}

void wipe_in_children(struct arena *arena)
{
	advise_for_children(arena, PAGE_WIPEONFORK, MADV_WIPEONFORK,
			    MADV_KEEPONFORK);
}

/*
 * Guards stay for a while, and then only zeros are behind them.  Where a page
 * is still missing UFFDIO_COPY puts it in the place of a guard, and nobody
 * tells, so each is touched first.
 */
void guard(struct arena *arena)
{
	struct range *range = choose_piece(arena);

	if (!range || any_flag(range, PAGE_NO_ACCESS))
		return;
	for (size_t i = 0; i < range->nr; i++)
		check_page(arena, range, i);
	note(arena, range, 0, range->nr, NULL);
	/* Not every kernel has it. */
	if (madvise(range->addr, range->nr * PAGE_SIZE, MADV_GUARD_INSTALL) < 0)
		return;
	change_flag(range, PAGE_GUARD, true);
	set_zero(range, 0);
}

static void unguard_range(struct arena *arena, struct range *range)
{
	if (!any_flag(range, PAGE_GUARD))
		return;
	note(arena, range, 0, range->nr, NULL);
	must(arena,
	     madvise(range->addr, range->nr * PAGE_SIZE, MADV_GUARD_REMOVE) ==
		     0,
	     "MADV_GUARD_REMOVE");
	change_flag(range, PAGE_GUARD, false);
}

void unguard(struct arena *arena)
{
	struct range *range = choose_piece(arena);

	if (range)
		unguard_range(arena, range);
}

/* What the kernel may or may not do, and changes no content. */
void advise(struct arena *arena)
{
	static const int advices[] = {
		MADV_HUGEPAGE,       MADV_NOHUGEPAGE, MADV_POPULATE_READ,
		MADV_POPULATE_WRITE, MADV_COLLAPSE,   MADV_COLD,
		MADV_SEQUENTIAL,     MADV_NORMAL,     MADV_DONTDUMP,
		MADV_REMOVE, /* EINVAL, of memory that is of no file */
	};
	size_t nr_advices = sizeof(advices) / sizeof(advices[0]);
	struct range *range = choose_piece(arena);

	if (!range)
		return;
	note(arena, range, 0, range->nr, NULL);
	(void)!madvise(range->addr, range->nr * PAGE_SIZE,
		       advices[choose(arena, nr_advices)]);
}

void lock_for_a_while(struct arena *arena)
{
	struct range *range = choose_piece(arena);

	if (!range || range->nr > 64 * options.unit)
		return;
	note(arena, range, 0, range->nr, NULL);
	/* Not more than the limit, nor where there is no access. */
	(void)!mlock2(range->addr, range->nr * PAGE_SIZE,
		      choose(arena, 2) ? MLOCK_ONFAULT : 0);
	for (size_t i = 0; i < range->nr; i += 4)
		check_page(arena, range, i);
	must(arena, munlock(range->addr, range->nr * PAGE_SIZE) == 0,
	     "munlock");
}

static void set_protection(struct arena *arena, struct range *range, int prot)
{
	must(arena, mprotect(range->addr, range->nr * PAGE_SIZE, prot) == 0,
	     "mprotect");
	change_flag(range, PAGE_NONE, prot == PROT_NONE);
	change_flag(range, PAGE_READONLY, prot == PROT_READ);
}

void protect(struct arena *arena)
{
	static const int prots[] = {PROT_NONE, PROT_READ, READ_WRITE,
				    READ_WRITE};
	struct range *range = choose_piece(arena);

	if (!range)
		return;
	note(arena, range, 0, range->nr, NULL);
	set_protection(arena, range, prots[choose(arena, 4)]);
}

/* Splits a mapping and joins it again. */
void protect_page(struct arena *arena)
{
	struct range *range;
	size_t page;

	if (!has_page(arena, PAGE_NO_ACCESS | PAGE_READONLY, &range, &page))
		return;
	char *addr = page_addr(range, page);
	note(arena, range, page, 1, NULL);
	must(arena, mprotect(addr, PAGE_SIZE, PROT_NONE) == 0, "mprotect");
	must(arena, mprotect(addr, PAGE_SIZE, PROT_READ) == 0, "mprotect");
	check_page(arena, range, page);
	must(arena, mprotect(addr, PAGE_SIZE, READ_WRITE) == 0, "mprotect");
	/* The kernel need not have joined it. */
	range->split = range->nr > 1;
}

void unprotect_all(struct arena *arena)
{
	for (size_t i = 0; i < arena->nr_ranges; i++) {
		set_protection(arena, &arena->ranges[i], READ_WRITE);
		unguard_range(arena, &arena->ranges[i]);
	}
}
