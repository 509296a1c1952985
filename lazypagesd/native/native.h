/*
 * native.h: the whole of the boundary between the C data plane and Python.
 *
 * Declarations only: cffi reads this file (without its preprocessor lines),
 * and every .c file includes it.  Functions return 0 or a negative errno;
 * results come through a last parameter named ret_..., written only on
 * success.  Addresses and offsets are in bytes, ranges are half-open.
 */
#ifndef LAZYPAGESD_NATIVE_H
#define LAZYPAGESD_NATIVE_H

#include <stddef.h>
#include <stdint.h>

/*
 * A region: a range of run-time addresses, and where its bytes come from.
 * Regions of one session are sorted by start and disjoint.  first_bit is the
 * position of the region's first page in the session's bitmap; it stays with
 * the page wherever mremap() moves it.
 */
struct lpd_region {
	uint64_t start;
	uint64_t offset;    /* of the first page, in the source */
	uint64_t first_bit;
	uint32_t nr_pages;
	uint32_t source;    /* index into the session's sources */
};

#endif /* LAZYPAGESD_NATIVE_H */
