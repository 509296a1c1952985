/*
 * types.h: what the other headers share.
 */
#ifndef LAZYPAGESD_TYPES_H
#define LAZYPAGESD_TYPES_H

#include <stddef.h>
#include <stdint.h>

/*
 * The end of user addresses with four levels of page tables, where loading
 * and serving agree; the last page below 2^47 is nobody's.
 */
#define LPD_USER_SPACE_END 0x7ffffffff000ull

/*
 * How fast what nobody waits for is filled, in bytes a second; and the two
 * ends: never, and as fast as it goes.
 */
#define LPD_DRAIN_LAZY  0
#define LPD_DRAIN_EAGER UINT64_MAX

enum {
	LPD_PAGE_SIZE = 4096,
	LPD_HUGE_SIZE = 2 << 20, /* of a page of hugetlbfs */
};

/*
 * A region: a range of run-time addresses, and where its bytes come from.
 * Regions of one session are sorted by start and disjoint.  first_bit is the
 * position of the region's first page in the session's bitmap; it stays with
 * the page wherever mremap() moves it.  A page belongs to at most one region,
 * so a session never has more regions than pages.
 */
struct lpd_region {
	uint64_t start;
	uint64_t offset; /* of the first page, in the source */
	uint64_t first_bit;
	uint32_t nr_pages;
	uint32_t source; /* index into the session's sources */
};

#endif /* LAZYPAGESD_TYPES_H */
