/*
 * state.c: the memfd of a session: layout, checks, and how it is copied when
 * the process forks.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "internal.h"

/* "lazypgsd", read as a little-endian number. */
#define STATE_MAGIC 0x64736770797a616cull

#define COMMIT_TABLE_SHIFT  40
#define COMMIT_CURSOR_SHIFT 48

int lpd_memory_map(int fd, uint64_t size, void **ret_memory)
{
	void *memory =
		mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (memory == MAP_FAILED)
		return -errno;
	*ret_memory = memory;
	return 0;
}

void lpd_memory_unmap(void *memory, uint64_t size)
{
	munmap(memory, size);
}

static uint64_t round_to_page(uint64_t size)
{
	return (size + LPD_PAGE_SIZE - 1) & ~(uint64_t)(LPD_PAGE_SIZE - 1);
}

static uint64_t bits_size(uint64_t nr_pages)
{
	return round_to_page((nr_pages + 63) / 64 * 8);
}

/* A region holds at least one page, so nr_pages of them are the most. */
static uint64_t table_size(uint64_t nr_pages)
{
	return round_to_page(nr_pages * sizeof(struct lpd_region));
}

uint64_t lpd_state_size(uint64_t nr_pages)
{
	return round_to_page(sizeof(struct lpd_state)) +
	       2 * bits_size(nr_pages) + 2 * table_size(nr_pages);
}

struct lpd_commit lpd_state_commit(const struct lpd_state *state)
{
	/* Pairs with the release in lpd_state_set_commit(). */
	uint64_t word = __atomic_load_n(&state->commit, __ATOMIC_ACQUIRE);

	return (struct lpd_commit){
		.nr_regions = word & ((1ull << COMMIT_TABLE_SHIFT) - 1),
		.table = word >> COMMIT_TABLE_SHIFT & 1,
		.cursor = word >> COMMIT_CURSOR_SHIFT,
	};
}

void lpd_state_set_commit(struct lpd_state *state, struct lpd_commit commit)
{
	uint64_t word = commit.nr_regions |
			(uint64_t)commit.table << COMMIT_TABLE_SHIFT |
			(uint64_t)commit.cursor << COMMIT_CURSOR_SHIFT;

	/* The table is written before it is in force, and seen so. */
	__atomic_store_n(&state->commit, word, __ATOMIC_RELEASE);
}

const struct lpd_region *lpd_state_regions(const struct lpd_state *state,
					   uint64_t *ret_nr_regions)
{
	struct lpd_commit commit = lpd_state_commit(state);

	*ret_nr_regions = commit.nr_regions;
	return (const void *)((const char *)state +
			      state->table_offset[commit.table]);
}

/* FNV-1a over the fixed part: enough to tell a torn or foreign memfd. */
static uint64_t fixed_checksum(const struct lpd_state *state)
{
	const uint8_t *bytes = (const uint8_t *)state;
	uint64_t sum = 0xcbf29ce484222325ull;

	for (size_t i = 0; i < offsetof(struct lpd_state, checksum); i++)
		sum = (sum ^ bytes[i]) * 0x100000001b3ull;
	return sum;
}

/* Without a sum that wraps around: any of it may be anything. */
static bool region_valid(const struct lpd_region *region, uint64_t nr_pages,
			 uint32_t nr_sources)
{
	uint64_t size = (uint64_t)region->nr_pages * LPD_PAGE_SIZE;

	return region->nr_pages && region->start < LPD_USER_SPACE_END &&
	       size <= LPD_USER_SPACE_END - region->start &&
	       (region->start | region->offset) % LPD_PAGE_SIZE == 0 &&
	       region->offset <= INT64_MAX - size &&
	       region->source < nr_sources && region->first_bit < nr_pages &&
	       region->nr_pages <= nr_pages - region->first_bit;
}

/*
 * Sorted, disjoint, within bounds, and of no more pages than there are: so
 * moves, which cut regions into pages at most, never need a longer table.  Of a
 * new one (is_new) also that all bits lie side by side, as they do until
 * something is moved.
 */
static bool regions_valid(const struct lpd_region *regions, uint64_t nr_regions,
			  uint64_t nr_pages, uint32_t nr_sources, bool is_new)
{
	uint64_t end = 0, left = nr_pages;

	for (uint64_t i = 0; i < nr_regions; i++) {
		if (!region_valid(&regions[i], nr_pages, nr_sources) ||
		    regions[i].start < end || regions[i].nr_pages > left ||
		    (is_new && regions[i].first_bit != nr_pages - left))
			return false;
		end = lpd_region_end(&regions[i]);
		left -= regions[i].nr_pages;
	}
	return !is_new || !left;
}

/* Where everything lies; what is fixed depends on this alone. */
static void lay_out(struct lpd_state *state, uint64_t nr_pages)
{
	state->size = lpd_state_size(nr_pages);
	state->nr_pages = nr_pages;
	state->bits_offset = round_to_page(sizeof(*state));
	state->unmapped_offset = state->bits_offset + bits_size(nr_pages);
	state->table_offset[0] = state->unmapped_offset + bits_size(nr_pages);
	state->table_offset[1] = state->table_offset[0] + table_size(nr_pages);
}

static void init_fixed(struct lpd_state *state, uint32_t protocol,
		       uint64_t nr_pages, uint32_t nr_sources)
{
	lay_out(state, nr_pages);
	state->magic = STATE_MAGIC;
	state->version = LPD_STATE_VERSION;
	state->protocol = protocol;
	state->nr_sources = nr_sources;
	state->checksum = fixed_checksum(state);
}

int lpd_state_init(struct lpd_state *state, uint32_t protocol,
		   const struct lpd_region *regions, uint64_t nr_regions,
		   uint64_t nr_pages, uint32_t nr_sources)
{
	if (!regions_valid(regions, nr_regions, nr_pages, nr_sources, true))
		return -EINVAL;
	if (!lpd_protocol_get(protocol))
		return -EPROTONOSUPPORT;
	init_fixed(state, protocol, nr_pages, nr_sources);
	memcpy((char *)state + state->table_offset[0], regions,
	       nr_regions * sizeof(*regions));
	state->nr_missing = nr_pages;
	state->drain_rate = LPD_DRAIN_EAGER;
	state->pace = LPD_DRAIN_EAGER;
	lpd_state_set_commit(state,
			     (struct lpd_commit){.nr_regions = nr_regions});
	return 0;
}

void lpd_state_fork(struct lpd_state *child, const struct lpd_state *parent)
{
	uint64_t nr_regions;
	const struct lpd_region *regions =
		lpd_state_regions(parent, &nr_regions);

	init_fixed(child, parent->protocol, parent->nr_pages,
		   parent->nr_sources);
	/* Both bitmaps, which lie side by side. */
	memcpy((char *)child + child->bits_offset,
	       (const char *)parent + parent->bits_offset,
	       2 * bits_size(parent->nr_pages));
	memcpy((char *)child + child->table_offset[0], regions,
	       nr_regions * sizeof(*regions));
	child->nr_missing = parent->nr_missing;
	child->released = __atomic_load_n(&parent->released, __ATOMIC_RELAXED);
	child->drain_rate = parent->drain_rate;
	child->pace = parent->pace;
	lpd_state_set_commit(child,
			     (struct lpd_commit){.nr_regions = nr_regions});
}

void lpd_state_release(struct lpd_state *state)
{
	/* What it allows is ordered by the request that follows it. */
	__atomic_store_n(&state->released, 1, __ATOMIC_RELAXED);
}

void lpd_state_set_drain_rate(struct lpd_state *state, uint64_t rate)
{
	/* As above. */
	__atomic_store_n(&state->drain_rate, rate, __ATOMIC_RELAXED);
}

/* Of a state whose fixed part is as it should be. */
static bool variable_valid(const struct lpd_state *state)
{
	struct lpd_commit commit = lpd_state_commit(state);
	const struct lpd_region *regions =
		(const void *)((const char *)state +
			       state->table_offset[commit.table]);

	if (commit.nr_regions > state->nr_pages ||
	    commit.cursor > LPD_MAX_MESSAGES ||
	    state->nr_arranged > LPD_MAX_MESSAGES ||
	    state->nr_missing > state->nr_pages)
		return false;
	for (unsigned int i = 0; i < commit.cursor; i++)
		if (state->order[i] >= LPD_MAX_MESSAGES)
			return false;
	for (unsigned int i = 0; i < state->nr_arranged; i++)
		if (state->arranged[i] >= LPD_MAX_MESSAGES)
			return false;
	return regions_valid(regions, commit.nr_regions, state->nr_pages,
			     state->nr_sources, false);
}

int lpd_state_check(const struct lpd_state *state, uint64_t size)
{
	if (size < sizeof(*state) || state->magic != STATE_MAGIC)
		return -EPROTO;
	if (state->checksum != fixed_checksum(state))
		return -EBADMSG;
	if (state->version < LPD_STATE_OLDEST ||
	    state->version > LPD_STATE_VERSION)
		return -EPROTONOSUPPORT;
	/* Also keeps the sizes computed from nr_pages from wrapping around. */
	if (state->nr_pages > LPD_USER_SPACE_END / LPD_PAGE_SIZE)
		return -EBADMSG;

	struct lpd_state expected;
	lay_out(&expected, state->nr_pages);
	if (state->size != size || state->size != expected.size ||
	    state->bits_offset != expected.bits_offset ||
	    state->unmapped_offset != expected.unmapped_offset ||
	    state->table_offset[0] != expected.table_offset[0] ||
	    state->table_offset[1] != expected.table_offset[1] ||
	    !lpd_protocol_get(state->protocol) || !variable_valid(state))
		return -EBADMSG;
	return 0;
}
