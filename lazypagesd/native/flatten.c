/*
 * flatten.c: lay a chain of pagemaps flat over the VMAs that can be lazy.
 *
 * Addresses only ever grow, so each level has one cursor that only ever
 * advances: the whole costs every entry of every level once, and each piece
 * of the result the depth at which its bytes are.
 */
#include <errno.h>
#include <stdbool.h>

#include "image_map.h"

struct flattening {
	const struct lpd_chain *chain;
	uint64_t vma; /* cursor in the chain's VMAs */
	struct lpd_region *regions;
	uint64_t capacity;
	uint64_t nr_regions;
	struct lpd_region last; /* grows until something does not fit it */
	uint64_t last_vma;
	struct lpd_image_error *ret_error;
};

/* Bytes [start, end) that lie in one entry of one level. */
struct piece {
	uint64_t start, end;
	uint64_t offset; /* in the pages file of level */
	uint32_t level;
};

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static int refuse(struct flattening *f, enum lpd_image_fault fault,
		  uint32_t level, uint64_t addr)
{
	*f->ret_error = (struct lpd_image_error){.fault = fault,
						 .level = level,
						 .value = addr};
	return -EBADMSG;
}

/* Of up to 2^32 pages, which is more than 32 bits of bytes. */
static uint64_t size_of(uint64_t nr_pages)
{
	return nr_pages * LPD_PAGE_SIZE;
}

static uint64_t entry_end(const struct lpd_entry *entry)
{
	return entry->start + size_of(entry->nr_pages);
}

/* Write the region that has been growing; there is none before the first. */
static int last_flush(struct flattening *f)
{
	if (!f->last.nr_pages)
		return 0;
	if (f->nr_regions == f->capacity)
		return -ENOSPC;
	f->regions[f->nr_regions++] = f->last;
	return 0;
}

static bool last_takes(const struct flattening *f, const struct piece *piece)
{
	const struct lpd_region *last = &f->last;
	uint64_t size = size_of(last->nr_pages);
	uint64_t nr_pages = (piece->end - piece->start) / LPD_PAGE_SIZE;

	return size && f->last_vma == f->vma && last->source == piece->level &&
	       last->start + size == piece->start &&
	       last->offset + size == piece->offset &&
	       nr_pages <= UINT32_MAX - last->nr_pages;
}

/* A piece is no longer than its entry, whose pages are counted in 32 bits. */
static int piece_add(struct flattening *f, const struct piece *piece)
{
	uint32_t nr_pages = (piece->end - piece->start) / LPD_PAGE_SIZE;
	int r;

	if (last_takes(f, piece)) {
		f->last.nr_pages += nr_pages;
		return 0;
	}
	r = last_flush(f);
	if (r)
		return r;
	f->last = (struct lpd_region){
		.start = piece->start,
		.offset = piece->offset,
		.first_bit = f->last.first_bit + f->last.nr_pages,
		.nr_pages = nr_pages,
		.source = piece->level,
	};
	f->last_vma = f->vma;
	return 0;
}

/* The entry of a level at addr, or NULL; addr never decreases. */
static const struct lpd_entry *level_find(struct lpd_level *level,
					  uint64_t addr)
{
	while (level->cursor < level->nr_entries) {
		const struct lpd_entry *entry = &level->entries[level->cursor];

		if (addr < entry_end(entry))
			return addr >= entry->start ? entry : NULL;
		level->cursor++;
	}
	return NULL;
}

/* Find who has the bytes at piece->start, and cut the piece to what he has. */
static int piece_resolve(struct flattening *f, struct piece *piece)
{
	uint64_t addr = piece->start;

	for (uint32_t i = 0; i < f->chain->nr_levels; i++) {
		const struct lpd_entry *entry =
			level_find(&f->chain->levels[i], addr);

		if (!entry)
			return refuse(f, LPD_IMAGE_NOT_IN_PARENT, i, addr);
		piece->end = min_u64(piece->end, entry_end(entry));
		if (entry->flags & LPD_ENTRY_PRESENT) {
			piece->offset = entry->offset + (addr - entry->start);
			piece->level = i;
			return 0;
		}
		if (!(entry->flags & LPD_ENTRY_PARENT))
			return refuse(f, LPD_IMAGE_NOT_PRESENT, i, addr);
	}
	return refuse(f, LPD_IMAGE_NO_PARENT, f->chain->nr_levels - 1, addr);
}

static int range_flatten(struct flattening *f, uint64_t start, uint64_t end)
{
	while (start < end) {
		struct piece piece = {.start = start, .end = end};
		int r = piece_resolve(f, &piece);

		if (r)
			return r;
		r = piece_add(f, &piece);
		if (r)
			return r;
		start = piece.end;
	}
	return 0;
}

static int entry_flatten(struct flattening *f, const struct lpd_entry *entry)
{
	uint64_t end = entry_end(entry);

	for (; f->vma < f->chain->nr_vmas; f->vma++) {
		const struct lpd_range *vma = &f->chain->vmas[f->vma];
		int r;

		if (vma->start >= end)
			break;
		r = range_flatten(f, max_u64(entry->start, vma->start),
				  min_u64(end, vma->end));
		if (r)
			return r;
		if (vma->end > end) /* the next entry may be in it too */
			break;
	}
	return 0;
}

static int top_flatten(struct flattening *f)
{
	const struct lpd_level *top = &f->chain->levels[0];

	for (uint64_t i = 0; i < top->nr_entries; i++) {
		int r;

		/* What is not lazy is populated by who restores. */
		if (!(top->entries[i].flags & LPD_ENTRY_LAZY))
			continue;
		r = entry_flatten(f, &top->entries[i]);
		if (r)
			return r;
	}
	return last_flush(f);
}

int lpd_chain_flatten(struct lpd_chain *chain, struct lpd_region *regions,
		      uint64_t capacity, struct lpd_image_error *ret_error,
		      uint64_t *ret_nr_regions)
{
	struct flattening f = {
		.chain = chain,
		.regions = regions,
		.capacity = capacity,
		.ret_error = ret_error,
	};
	int r;

	for (uint32_t i = 0; i < chain->nr_levels; i++)
		chain->levels[i].cursor = 0;
	r = top_flatten(&f);
	if (!r)
		*ret_nr_regions = f.nr_regions;
	return r;
}
