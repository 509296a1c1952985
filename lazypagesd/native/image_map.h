/*
 * image_map.h: CRIU's pagemap files -> a flat map of regions.
 *
 * Runs at load, never at a fault: decodes pagemap-N.img (records of
 * [u32 size][pagemap_entry]) and lays a chain of such files, a checkpoint and
 * its parents, flat over the VMAs that can be lazy.  Allocates nothing and
 * keeps nothing: every buffer is the caller's.  Callable from any thread.
 */
#ifndef LAZYPAGESD_IMAGE_MAP_H
#define LAZYPAGESD_IMAGE_MAP_H

#include "types.h"

/* Flags of an entry, with CRIU's values. */
enum lpd_entry_flags {
	LPD_ENTRY_PARENT = 1,  /* its bytes are in the parent image */
	LPD_ENTRY_LAZY = 2,    /* may be restored lazily */
	LPD_ENTRY_PRESENT = 4, /* its bytes are in the pages file */
};

/* One entry of a pagemap file: 24 bytes, for there can be millions. */
struct lpd_entry {
	uint64_t start;
	uint64_t offset; /* of its first page in the pages file, if PRESENT */
	uint32_t nr_pages;
	uint32_t flags;
};

/* What can be wrong with a pagemap; in the comment what `value` then is. */
enum lpd_image_fault {
	LPD_IMAGE_TRUNCATED = 1, /* bytes left, too few for a record's size */
	LPD_IMAGE_PAST_FILE,     /* size of a record longer than the file */
	LPD_IMAGE_TOO_LONG,      /* size of a record over LPD_RECORD_MAX */
	LPD_IMAGE_VARINT,        /* - (cut off, or over 64 bits) */
	LPD_IMAGE_UNKNOWN_FIELD, /* number of the field */
	LPD_IMAGE_WIRE_TYPE,     /* number of the field */
	LPD_IMAGE_MISSING_FIELD, /* number of the field */
	LPD_IMAGE_NR_PAGES,      /* number of pages: 0, or 2^32 and more */
	LPD_IMAGE_FLAGS,         /* flags: unknown, none, or contradictory */
	LPD_IMAGE_UNALIGNED,     /* address */
	LPD_IMAGE_PAST_LIMIT,    /* address; it or the end is too high */
	LPD_IMAGE_UNSORTED,      /* address, below the end of the one before */
	LPD_IMAGE_NO_PARENT,     /* address of a page that lies in a parent */
	LPD_IMAGE_NOT_IN_PARENT, /* address of a page; level says in whom */
	LPD_IMAGE_NOT_PRESENT,   /* address of a page still at its source */
};

/* Where and what it is: written when a function returns -EBADMSG. */
struct lpd_image_error {
	uint32_t fault;  /* enum lpd_image_fault */
	uint32_t level;  /* of flattening: 0 the checkpoint, 1 its parent... */
	uint64_t offset; /* of decoding: in the pagemap file */
	uint64_t value;
};

/* No writer needs a tenth of this: five fields of eleven bytes at most. */
enum { LPD_RECORD_MAX = 4096 };

/*
 * A pagemap file while it is decoded, piece by piece.  The caller sets all
 * of it at first (position: where the first entry's record begins; what is
 * counted: 0) and from then on only reads it.  With entries NULL nothing but
 * the framing is looked at, and nr_entries is a count to allocate by, of no
 * more than an entry for each eight bytes of the file.
 */
struct lpd_pagemap {
	struct lpd_entry *entries;
	uint64_t capacity;
	uint64_t nr_entries;
	uint64_t file_size;
	uint64_t position;   /* of the next record, in the file */
	uint64_t pages_size; /* bytes of the pages file spoken for so far */
	uint64_t end;        /* of the last entry */
};

/*
 * Decode the whole records at the head of buf, which holds the len bytes of
 * the file from map->position on.  Advances position by what it took: less
 * than len if a record is cut by the end of buf, never by nothing when len
 * is at least 4 + LPD_RECORD_MAX or reaches to the end of the file.
 * Strict: whatever is not exactly a pagemap entry as we know it is refused.
 *
 * Returns 0, -EBADMSG (and *ret_error), or -ENOSPC past capacity.
 */
int lpd_pagemap_decode(struct lpd_pagemap *map, const uint8_t *buf, size_t len,
		       struct lpd_image_error *ret_error);

/* A range of addresses. */
struct lpd_range {
	uint64_t start;
	uint64_t end;
};

/* The entries of one image in a chain; cursor is the flattening's own. */
struct lpd_level {
	const struct lpd_entry *entries;
	uint64_t nr_entries;
	uint64_t cursor;
};

/*
 * A chain of images (levels[0] the checkpoint, each next one the parent of
 * the one before) and the VMAs that can be lazy, sorted and disjoint.
 */
struct lpd_chain {
	struct lpd_level *levels;
	const struct lpd_range *vmas;
	uint64_t nr_vmas;
	uint32_t nr_levels;
};

/*
 * Lay a chain flat.  The regions are what of the LAZY entries of levels[0]
 * lies in a VMA, cut at the VMAs' ends, each with the level that has its
 * bytes as its source; neighbours in address, VMA and file are one region.
 * Each begins where an entry or a VMA does, or where an entry of a parent
 * ends: so there are no more of them than entries and VMAs together.
 *
 * Returns 0, -EBADMSG (and *ret_error), or -ENOSPC past capacity.
 */
int lpd_chain_flatten(struct lpd_chain *chain, struct lpd_region *regions,
		      uint64_t capacity, struct lpd_image_error *ret_error,
		      uint64_t *ret_nr_regions);

#endif /* LAZYPAGESD_IMAGE_MAP_H */
