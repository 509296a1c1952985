/*
 * channel_ranges.c: registering memory, and the calls that change its mappings.
 */
#define _GNU_SOURCE 1 /* like -D_GNU_SOURCE, which a program may have */
#include "channel_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Half of the mappings that there can be at most; see max_map_count. */
#define MAX_CHUNKS      8192
#define MIN_CHUNK_PAGES 16

/* ---- ranges ---- */

static void *map(void *addr, size_t len, int protection, int flags)
{
	return mmap(addr, len, protection,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
}

static void add_range(struct range range)
{
	if (!range.nr_pages)
		return;
	lpd_channel.ranges[lpd_channel.nr_ranges] = range;
	/* The neighbourhoods lie otherwise than they did. */
	lpd_range_publish(&lpd_channel.ranges[lpd_channel.nr_ranges++], 0,
			  range.nr_pages);
}

/* Pages [first, end) of a range, as a range. */
static struct range part_of(struct range range, size_t first, size_t end)
{
	range.start += first * PAGE_SIZE;
	range.shadow += first * PAGE_SIZE;
	range.states += first;
	range.nr_pages = end - first;
	return range;
}

/* Take pages out of a range, which moves in the table. */
static struct range cut(unsigned int i, size_t first, size_t end)
{
	struct range range = lpd_channel.ranges[i];

	lpd_channel.ranges[i] = lpd_channel.ranges[--lpd_channel.nr_ranges];
	add_range(part_of(range, 0, first));
	add_range(part_of(range, end, range.nr_pages));
	return part_of(range, first, end);
}

static void unmap_shadow(const struct range *range)
{
	size_t next;

	for (size_t i = 0; i < range->nr_pages; i = next) {
		next = lpd_range_run_end(range, i, range->nr_pages);
		if (range->states[i] != THERE)
			munmap(range->shadow + i * PAGE_SIZE,
			       (next - i) * PAGE_SIZE);
	}
}

/* Nothing is registered within [addr, addr + len) any more. */
static void forget(uintptr_t addr, size_t len)
{
	size_t first, end;

	for (unsigned int i = 0; i < lpd_channel.nr_ranges;) {
		if (lpd_range_intersect(&lpd_channel.ranges[i], addr, len,
					&first, &end)) {
			struct range range = cut(i, first, end);

			unmap_shadow(&range);
			i = 0;
		} else {
			i++;
		}
	}
	lpd_channel_wake_all();
}

/* Is there room in the table, whatever is cut? */
static bool has_room(void)
{
	return lpd_channel.nr_ranges + 4 <= MAX_RANGES;
}

static int add_new(uint8_t *start, size_t len)
{
	struct range range = {
		.start = start,
		.nr_pages = len / PAGE_SIZE,
		.shadow = map(NULL, len, PROT_READ | PROT_WRITE, 0),
		.states = map(NULL, len / PAGE_SIZE, PROT_READ | PROT_WRITE, 0),
		.chunk_pages = MIN_CHUNK_PAGES,
	};

	if (range.shadow == MAP_FAILED || range.states == MAP_FAILED ||
	    map(start, len, PROT_NONE, MAP_FIXED) == MAP_FAILED)
		return -errno;
	while (range.chunk_pages < range.nr_pages &&
	       lpd_channel.nr_chunks + range.nr_pages / range.chunk_pages >
		       MAX_CHUNKS)
		range.chunk_pages *= 2;
	lpd_channel.nr_chunks += range.nr_pages / range.chunk_pages + 1;
	add_range(range);
	return 0;
}

static bool is_range(const void *addr, size_t len)
{
	return len && !(((uintptr_t)addr | len) % PAGE_SIZE);
}

int lpd_channel_register(void *addr, size_t len)
{
	sigset_t mask;
	int rc;

	if (!is_range(addr, len))
		return -EINVAL;
	lpd_channel_lock(&mask);
	if (lpd_channel.fd < 0 || lpd_channel.ended || lpd_channel.complete)
		rc = -EPIPE;
	else
		rc = has_room() ? add_new(addr, len) : -ENOSPC;
	lpd_channel_unlock(&mask);
	return rc;
}

void lpd_channel_populate(const void *addr, size_t len)
{
	const volatile uint8_t *bytes = addr;

	for (size_t i = 0; i < len; i += PAGE_SIZE)
		(void)bytes[i];
}

/* ---- calls that change the mappings ---- */

static int tell_range(unsigned int type, const void *addr, size_t len)
{
	uint64_t args[] = {(uintptr_t)addr, (uintptr_t)addr + len};

	return lpd_channel_tell(type, args, 2, -1);
}

static int unmap_range(void *addr, size_t len)
{
	int rc = has_room() ? tell_range(LPD_V2_UNMAP, addr, len) : -ENOMEM;

	if (rc)
		return rc;
	forget((uintptr_t)addr, len);
	return munmap(addr, len) < 0 ? -errno : 0;
}

int lpd_channel_munmap(void *addr, size_t len)
{
	sigset_t mask;

	if (!is_range(addr, len))
		return -EINVAL;
	lpd_channel_lock(&mask);
	int rc = unmap_range(addr, len);
	lpd_channel_unlock(&mask);
	return rc;
}

/* Zero are from now on what was awaited, and what was written aside. */
static void make_zero(struct range *range, size_t first, size_t end)
{
	for (; first < end; first++) {
		if (range->states[first] == ASIDE)
			madvise(range->shadow + first * PAGE_SIZE, PAGE_SIZE,
				MADV_DONTNEED);
		if (range->states[first] != THERE)
			range->states[first] = ASIDE;
	}
}

static int discard_range(void *addr, size_t len)
{
	size_t first, end;
	int rc = tell_range(LPD_V2_REMOVE, addr, len);

	if (rc)
		return rc;
	rc = madvise(addr, len, MADV_DONTNEED) < 0 ? -errno : 0;
	for (unsigned int i = 0; i < lpd_channel.nr_ranges; i++) {
		struct range *range = &lpd_channel.ranges[i];

		if (lpd_range_intersect(range, (uintptr_t)addr, len, &first,
					&end)) {
			make_zero(range, first, end);
			lpd_range_publish(range, first, end);
		}
	}
	return rc;
}

int lpd_channel_discard(void *addr, size_t len)
{
	sigset_t mask;

	if (!is_range(addr, len))
		return -EINVAL;
	lpd_channel_lock(&mask);
	int rc = discard_range(addr, len);
	lpd_channel_unlock(&mask);
	return rc;
}

/* Move pages that are there, over mappings that the kernel has not joined. */
static void move_pages(uint8_t *from, uint8_t *to, size_t len)
{
	for (size_t done = 0, piece = len; done < len;) {
		piece = min_size(piece, len - done);
		if (mremap(from + done, piece, piece,
			   MREMAP_MAYMOVE | MREMAP_FIXED,
			   to + done) != MAP_FAILED)
			done += piece;
		else if (errno == EFAULT && piece > PAGE_SIZE)
			piece = piece / 2 & ~(PAGE_SIZE - 1);
		else
			abort(); /* told, and cannot be done: never go on so */
	}
}

static int move_range(uint8_t *from, size_t len, uint8_t *to)
{
	uint64_t args[] = {(uintptr_t)from, (uintptr_t)to, len};
	unsigned int i = 0;
	size_t first, end;

	while (i < lpd_channel.nr_ranges &&
	       !lpd_range_intersect(&lpd_channel.ranges[i], (uintptr_t)from,
				    len, &first, &end))
		i++;
	if (i == lpd_channel.nr_ranges || (end - first) * PAGE_SIZE != len)
		return -EFAULT;
	int rc = lpd_channel_tell(LPD_V2_REMAP, args, 3, -1);

	if (rc)
		return rc;
	struct range range = cut(i, first, end);
	forget((uintptr_t)to, len);
	if (map(to, len, PROT_NONE, MAP_FIXED) == MAP_FAILED)
		abort();
	for (size_t next, page = 0; page < range.nr_pages; page = next) {
		next = lpd_range_run_end(&range, page, range.nr_pages);
		if (range.states[page] == THERE)
			move_pages(from + page * PAGE_SIZE,
				   to + page * PAGE_SIZE,
				   (next - page) * PAGE_SIZE);
	}
	munmap(from, len);
	range.start = to;
	add_range(range);
	return 0;
}

int lpd_channel_mremap(void *from, size_t len, void *to)
{
	uintptr_t a = (uintptr_t)from, b = (uintptr_t)to;
	sigset_t mask;
	int rc;

	if (!is_range(from, len) || !is_range(to, len) ||
	    (a < b + len && b < a + len))
		return -EINVAL;
	lpd_channel_lock(&mask);
	if (!(lpd_channel.features & LPD_V2_FEATURE(LPD_V2_REMAP)))
		rc = -EOPNOTSUPP;
	else
		rc = has_room() ? move_range(from, len, to) : -ENOMEM;
	lpd_channel_unlock(&mask);
	return rc;
}
