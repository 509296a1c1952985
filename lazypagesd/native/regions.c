/*
 * regions.c: regions found, marked and moved.
 *
 * Everything here works on the state alone: no descriptor, no clock.
 */
#include <string.h>

#include "internal.h"

static uint64_t *bits_of(const struct lpd_state *state)
{
	return (uint64_t *)((char *)state + state->bits_offset);
}

static uint64_t *unmapped_of(const struct lpd_state *state)
{
	return (uint64_t *)((char *)state + state->unmapped_offset);
}

/* A word with bits [low, high) set; 0 <= low < high <= 64. */
static uint64_t word_mask(unsigned int low, unsigned int high)
{
	return (~0ull << low) & (~0ull >> (64 - high));
}

/* Set [first, first + n) of a bitmap; return how many were clear. */
static uint64_t set_bits(uint64_t *bits, uint64_t first, uint64_t n)
{
	uint64_t end = first + n, cleared = 0;

	for (uint64_t bit = first; bit < end;) {
		uint64_t next = lpd_min(end, (bit | 63) + 1);
		uint64_t mask = word_mask(bit & 63, ((next - 1) & 63) + 1);
		uint64_t word = bits[bit / 64];

		cleared += __builtin_popcountll(mask & ~word);
		__atomic_store_n(&bits[bit / 64], word | mask,
				 __ATOMIC_RELAXED);
		bit = next;
	}
	return cleared;
}

uint64_t lpd_bits_set(struct lpd_state *state, uint64_t first, uint64_t n)
{
	uint64_t cleared = set_bits(bits_of(state), first, n);

	LPD_COUNT(state->nr_missing, -cleared);
	return cleared;
}

int lpd_state_test(const struct lpd_state *state, uint64_t bit)
{
	uint64_t word =
		__atomic_load_n(&bits_of(state)[bit / 64], __ATOMIC_RELAXED);

	return word >> (bit & 63) & 1;
}

/* The length of the run of bits equal to value, from first, at most max. */
static uint64_t run_length(const uint64_t *bits, uint64_t first, uint64_t max,
			   bool value)
{
	uint64_t end = first + max;

	for (uint64_t bit = first; bit < end; bit = (bit | 63) + 1) {
		uint64_t word = value ? ~bits[bit / 64] : bits[bit / 64];

		word &= ~0ull << (bit & 63);
		if (word)
			return lpd_min(max, (bit & ~63ull) +
						    __builtin_ctzll(word) -
						    first);
	}
	return max;
}

/*
 * The first region that ends after addr.  To halve a table of megabytes touches
 * ten cache lines that nobody else needs, where a guess by address is the
 * region or one beside it; unless regions lie in heaps, far apart.  So a guess
 * that has not even halved what is left is followed by halving it.
 *
 * The control plane asks while the worker may be writing the table: so each
 * region is read once, and start <= addr < end whatever it says.
 */
static uint64_t first_after(const struct lpd_region *regions,
			    uint64_t nr_regions, uint64_t addr)
{
	uint64_t low = 0, high = nr_regions, start, end;
	bool halve = false;

	if (!nr_regions)
		return 0;
	start = regions[0].start;
	end = lpd_region_end(&regions[nr_regions - 1]);
	if (addr < start || addr >= end)
		return addr < start ? 0 : nr_regions;
	while (low < high) {
		uint64_t nr_left = high - low;
		uint64_t skipped = halve ? nr_left / 2
					 : (unsigned __int128)(addr - start) *
						   nr_left / (end - start);
		struct lpd_region region = regions[low + skipped];

		if (lpd_region_end(&region) <= addr) {
			low += skipped + 1;
			start = lpd_region_end(&region);
		} else if (region.start > addr) {
			high = low + skipped;
			end = region.start;
		} else {
			return low + skipped;
		}
		halve = !halve && high - low > nr_left / 2;
	}
	return low;
}

const struct lpd_region *lpd_state_find(const struct lpd_state *state,
					uint64_t addr)
{
	uint64_t nr_regions;
	const struct lpd_region *regions =
		lpd_state_regions(state, &nr_regions);
	uint64_t i = first_after(regions, nr_regions, addr);

	return i < nr_regions && regions[i].start <= addr ? &regions[i] : NULL;
}

/* The part of region within [start, end); false if there is none. */
static bool intersect(const struct lpd_region *region, uint64_t start,
		      uint64_t end, struct lpd_region *ret_part)
{
	start = lpd_max(start, region->start);
	end = lpd_min(end, lpd_region_end(region));
	if (start >= end)
		return false;

	uint64_t skipped = start - region->start;
	*ret_part = (struct lpd_region){
		.start = start,
		.offset = region->offset + skipped,
		.first_bit = region->first_bit + skipped / LPD_PAGE_SIZE,
		.nr_pages = (end - start) / LPD_PAGE_SIZE,
		.source = region->source,
	};
	return true;
}

/* The image speaks no more for what is in [start, end), mapped or not. */
static uint64_t give_up(struct lpd_state *state, uint64_t start, uint64_t end,
			bool unmapped)
{
	uint64_t nr_regions, cleared = 0;
	const struct lpd_region *regions =
		lpd_state_regions(state, &nr_regions);
	struct lpd_region part;

	for (uint64_t i = first_after(regions, nr_regions, start);
	     i < nr_regions && intersect(&regions[i], start, end, &part); i++) {
		cleared += lpd_bits_set(state, part.first_bit, part.nr_pages);
		if (unmapped)
			set_bits(unmapped_of(state), part.first_bit,
				 part.nr_pages);
	}
	return cleared;
}

uint64_t lpd_state_mark(struct lpd_state *state, uint64_t start, uint64_t end)
{
	return give_up(state, start, end, false);
}

uint64_t lpd_state_unmap(struct lpd_state *state, uint64_t start, uint64_t end)
{
	return give_up(state, start, end, true);
}

int lpd_state_occupied(const struct lpd_state *state, uint64_t start,
		       uint64_t end)
{
	uint64_t nr_regions;
	const struct lpd_region *regions =
		lpd_state_regions(state, &nr_regions);
	struct lpd_region part;

	for (uint64_t i = first_after(regions, nr_regions, start);
	     i < nr_regions && intersect(&regions[i], start, end, &part); i++)
		if (run_length(unmapped_of(state), part.first_bit,
			       part.nr_pages, true) < part.nr_pages)
			return 1;
	return 0;
}

/* Append what of regions[0 ... nr) lies in [start, end), moved by shift. */
static uint64_t append(struct lpd_region *table, uint64_t length,
		       const struct lpd_region *regions, uint64_t nr_regions,
		       uint64_t start, uint64_t end, uint64_t shift)
{
	for (uint64_t i = first_after(regions, nr_regions, start);
	     i < nr_regions && regions[i].start < end; i++) {
		if (intersect(&regions[i], start, end, &table[length]))
			table[length++].start += shift;
	}
	return length;
}

static bool overlaps(const struct lpd_region *regions, uint64_t nr_regions,
		     uint64_t start, uint64_t end)
{
	uint64_t i = first_after(regions, nr_regions, start);

	return i < nr_regions && regions[i].start < end;
}

uint64_t lpd_state_remap(struct lpd_state *state, uint64_t from, uint64_t to,
			 uint64_t len, unsigned int cursor)
{
	struct lpd_commit commit = lpd_state_commit(state);
	uint64_t n;
	const struct lpd_region *old = lpd_state_regions(state, &n);
	/* What was mapped at the destination is no more. */
	uint64_t dropped = lpd_state_unmap(state, to, to + len);

	if (overlaps(old, n, from, from + len)) {
		struct lpd_region *table =
			(void *)((char *)state +
				 state->table_offset[!commit.table]);
		uint64_t low = lpd_min(from, to), high = lpd_max(from, to);
		uint64_t length = append(table, 0, old, n, 0, low, 0);

		lpd_crash_point("half-moved");
		/* The moved block takes the place of what was at `to`. */
		if (low == to)
			length = append(table, length, old, n, from, from + len,
					to - from);
		length = append(table, length, old, n, low + len, high, 0);
		if (high == to)
			length = append(table, length, old, n, from, from + len,
					to - from);
		length = append(table, length, old, n, high + len, ~0ull, 0);
		lpd_crash_point("moved");
		commit.nr_regions = length;
		commit.table = !commit.table;
	}
	commit.cursor = cursor;
	lpd_state_set_commit(state, commit);
	return dropped;
}

/* Of a region, from start on: up to max_pages in a row that are missing. */
static uint32_t first_run(const struct lpd_state *state,
			  const struct lpd_region *region, uint64_t start,
			  uint64_t max_pages, struct lpd_region *ret_run)
{
	struct lpd_region rest;

	if (!intersect(region, start, lpd_region_end(region), &rest))
		return 0;
	uint64_t filled =
		run_length(bits_of(state), rest.first_bit, rest.nr_pages, true);
	if (filled == rest.nr_pages)
		return 0;
	rest.start += filled * LPD_PAGE_SIZE;
	rest.offset += filled * LPD_PAGE_SIZE;
	rest.first_bit += filled;
	rest.nr_pages =
		run_length(bits_of(state), rest.first_bit,
			   lpd_min(rest.nr_pages - filled, max_pages), false);
	*ret_run = rest;
	return rest.nr_pages;
}

uint32_t lpd_state_missing_at(const struct lpd_state *state, uint64_t addr,
			      uint32_t max_pages, struct lpd_region *ret_run)
{
	const struct lpd_region *region = lpd_state_find(state, addr);

	if (!region ||
	    lpd_state_test(state, region->first_bit + (addr - region->start) /
							      LPD_PAGE_SIZE))
		return 0;
	return first_run(state, region, addr, max_pages, ret_run);
}

uint64_t lpd_state_middle(const struct lpd_state *state, uint64_t start,
			  uint64_t end, uint32_t min_pages)
{
	uint64_t nr_regions;
	const struct lpd_region *regions =
		lpd_state_regions(state, &nr_regions);
	uint64_t first = first_after(regions, nr_regions, start);
	uint64_t last = first_after(regions, nr_regions, end);
	struct lpd_region only;

	last += last < nr_regions && regions[last].start < end;
	if (last > first + 1)
		return regions[first + (last - first) / 2].start;
	if (last <= first || !intersect(&regions[first], start, end, &only) ||
	    only.nr_pages < 2 * min_pages)
		return end;
	return only.start + (uint64_t)(only.nr_pages / 2) * LPD_PAGE_SIZE;
}

uint32_t lpd_state_gather(const struct lpd_state *state, uint64_t start,
			  uint64_t end, uint64_t max_pages,
			  struct lpd_region *ret_runs, uint32_t max_runs)
{
	uint64_t nr_regions;
	const struct lpd_region *regions =
		lpd_state_regions(state, &nr_regions);
	uint64_t i = first_after(regions, nr_regions, start);
	uint32_t n = 0;

	while (n < max_runs && max_pages && i < nr_regions &&
	       regions[i].start < end) {
		struct lpd_region *run = &ret_runs[n];

		if (!first_run(state, &regions[i], start, max_pages, run)) {
			i++;
			continue;
		}
		if (run->start >= end)
			break;
		run->nr_pages = lpd_min(run->nr_pages,
					(end - run->start) / LPD_PAGE_SIZE);
		max_pages -= run->nr_pages;
		start = lpd_region_end(run);
		n++;
	}
	return n;
}

uint32_t lpd_state_next_missing(const struct lpd_state *state, uint64_t addr,
				uint32_t max_pages, struct lpd_region *ret_run)
{
	return lpd_state_gather(state, addr, LPD_USER_SPACE_END, max_pages,
				ret_run, 1)
		       ? ret_run->nr_pages
		       : 0;
}

int lpd_state_prune(struct lpd_state *state, int fd)
{
	uint64_t nr_regions, addr = 0;
	const struct lpd_region *regions =
		lpd_state_regions(state, &nr_regions);
	struct lpd_region run;
	uint64_t end =
		nr_regions ? lpd_region_end(&regions[nr_regions - 1]) : 0;
	uint64_t len = end;

	if (lpd_protocol_get(state->protocol)->in_order)
		return 0;
	while (lpd_state_next_missing(state, addr, 1, &run)) {
		int rc;

		addr = run.start;
		/* Mappings are few and large, and hold many regions each. */
		len = lpd_min(2 * len, end - addr);
		while (!(rc = lpd_uffd_registered(fd, addr, len)) &&
		       len > LPD_PAGE_SIZE)
			len = lpd_max(len / 2 & ~(uint64_t)(LPD_PAGE_SIZE - 1),
				      LPD_PAGE_SIZE);
		if (rc < 0)
			return rc;
		if (!rc)
			lpd_state_unmap(state, addr, addr + len);
		addr += len;
	}
	return 0;
}
