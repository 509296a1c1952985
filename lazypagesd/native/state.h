/*
 * state.h: all that must outlive the daemon, in one memfd for each session.
 */
#ifndef LAZYPAGESD_STATE_H
#define LAZYPAGESD_STATE_H

#include "types.h"

enum {
	/*
	 * Of the states that are made here, and of the oldest that can be taken
	 * over.  The former grows with every change that an older daemon cannot
	 * make sense of: here, or in what is beside a state (record.proto).
	 */
	LPD_STATE_VERSION = 4,
	LPD_STATE_OLDEST = 4,
	LPD_MAX_MESSAGES = 2048, /* of one round */
	LPD_MAX_MESSAGE_SIZE = 32,
	LPD_NR_LATENCY_BUCKETS = 40,
	LPD_MAX_THREADS = 64, /* whose losses are told apart */
};

/*
 * Map the first size bytes of a memfd for all who have it / unmap them.  What
 * is mapped needs no descriptor, so the caller may close its own.
 */
int lpd_memory_map(int fd, uint64_t size, void **ret_memory);
void lpd_memory_unmap(void *memory, uint64_t size);

/* What it took to answer a fault. */
enum lpd_fault_kind {
	LPD_FAULT_IMAGE = 0, /* the image's bytes, at once */
	LPD_FAULT_ZERO,      /* zeros, at once */
	LPD_FAULT_RETRY,     /* refused before: mappings changing, no memory */
	LPD_FAULT_COLD,      /* its bytes were not at hand */
	LPD_NR_FAULT_KINDS,
};

/* Of faults, from their message being read to their page being in. */
struct lpd_latency {
	uint64_t count;
	uint64_t sum_ns;
	uint64_t max_ns;
	/* bucket i counts latencies in [2^i, 2^(i+1)) ns */
	uint64_t buckets[LPD_NR_LATENCY_BUCKETS];
};

/*
 * What a thread has waited for; tid is its number in its own pid namespace,
 * and known only where the descriptor has UFFD_FEATURE_THREAD_ID.  Of several
 * that wait at one page, those count that are answered one by one; what they
 * wait while a page is held is not told, since they are to fault anew.
 */
struct lpd_thread {
	uint64_t tid; /* 0: all those for whom there was no place */
	uint64_t faults;
	uint64_t lost_ns;
};

/* What a session did.  Written by the worker, read by anybody, atomically. */
struct lpd_counters {
	uint64_t faults;          /* messages that asked for a page */
	uint64_t fills;           /* successful COPY and ZEROPAGE calls */
	uint64_t pages_fault;     /* image pages filled on demand */
	uint64_t pages_neighbour; /* ... around a fault */
	/*
	 * Of them, those whose neighbourhood was gone through to its end: the
	 * next fault came right behind it.  The kernel tells of no touch of a
	 * page that is there, so that nothing more is known of the others.
	 */
	uint64_t pages_followed;
	uint64_t pages_drain;   /* ... in the background */
	uint64_t pages_zero;    /* zero pages, on demand, or in a huge page */
	uint64_t pages_present; /* found filled by somebody else */
	uint64_t pages_dropped; /* given up by REMOVE, UNMAP or REMAP */
	uint64_t bytes;         /* of image pages filled */
	uint64_t events_fork;
	uint64_t events_remap;
	uint64_t events_remove;
	uint64_t events_unmap;
	uint64_t events_unknown;
	/* Of events, where they could have been in either: see room.c. */
	uint64_t orders_guessed;
	uint64_t retries;  /* fills tried again: EAGAIN, ENOMEM */
	uint64_t requeues; /* faults given back to the kernel to be read anew */
	uint64_t wakes;    /* faults answered by a WAKE alone */
	uint64_t misses;   /* faults whose bytes were not at hand */
	uint64_t held;     /* faults that wait for a source to be mended */
	struct lpd_latency latencies[LPD_NR_FAULT_KINDS];
};

/*
 * The head of the memfd.  Behind it lie, each at a page boundary, a bitmap
 * (one bit a page: "the image no longer speaks for this page"), another ("it
 * is no longer mapped where its region says"), and two tables of regions, of
 * which one is in force while the other is being written.  All of it is
 * sparse, so room for the worst case costs nothing.
 *
 * commit says which table is in force, how many regions it has, and how many
 * of the messages have taken effect.  One 64-bit store changes all three, so
 * that an event has either happened or not, whenever the daemon dies.  All
 * other events only set bits, which may be done twice.
 *
 * messages is what read(2) writes into.  Slots that hold no message are zero
 * before the read, so that a message is there as soon as the kernel has
 * handed it out, counted or not: its first word is not zero.  read_starts has a
 * bit for each that is the first of a read(2), set before it.  order begins
 * with those that have taken effect, as many as commit says.  arranged is the
 * order in which the events of the round were put before the first of them took
 * effect; without one, nr_arranged is 0.
 */
struct lpd_state {
	/* Written once, by lpd_state_init(), and covered by checksum; whoever
	 * takes over leaves the version what it is. */
	uint64_t magic;
	uint32_t version;
	uint32_t protocol;
	uint64_t size; /* of the memfd */
	uint64_t nr_pages;
	uint64_t bits_offset;
	uint64_t unmapped_offset;
	uint64_t table_offset[2];
	uint32_t nr_sources;
	uint32_t reserved;
	uint64_t checksum;
	/* Written by the worker; released, drain_rate and pace are not. */
	uint64_t commit;
	uint64_t nr_missing; /* pages whose bit is clear */
	uint64_t released;   /* 1 once the restore has finished: drain */
	uint64_t drain_rate; /* atomic, set by the control plane; see below */
	uint64_t pace; /* the control plane's own: what drain_rate is to be */
	struct lpd_counters counters;
	struct lpd_thread threads[LPD_MAX_THREADS]; /* the last one: see tid */
	uint16_t order[LPD_MAX_MESSAGES];
	uint16_t arranged[LPD_MAX_MESSAGES];
	uint32_t nr_arranged;
	uint32_t reserved_too;
	uint64_t last_event; /* of a channel: the number of the last one read */
	uint64_t read_starts[LPD_MAX_MESSAGES / 64];
	uint8_t messages[LPD_MAX_MESSAGES * LPD_MAX_MESSAGE_SIZE];
};

/* How a descriptor is read and filled through: chosen once a session. */
enum lpd_protocol_id {
	LPD_PROTOCOL_UFFD_MSG = 1, /* 32 bytes, as in linux/userfaultfd.h */
	LPD_PROTOCOL_CHANNEL_V1,   /* a socket in its place: client/wire.h */
	LPD_PROTOCOL_CHANNEL_V2,
};

/* Size of the memfd for so many pages, in bytes. */
uint64_t lpd_state_size(uint64_t nr_pages);

/*
 * Lay out state in a zero-filled mapping of lpd_state_size(nr_pages) bytes.
 * The regions are copied.  -EINVAL: unsorted, overlapping, unaligned, empty,
 * past the end of user space, or with bits other than 0 ... nr_pages - 1 in
 * order.
 */
int lpd_state_init(struct lpd_state *state, uint32_t protocol,
		   const struct lpd_region *regions, uint64_t nr_regions,
		   uint64_t nr_pages, uint32_t nr_sources);

/*
 * Make child (zero-filled, as large as parent) the state of a process forked
 * now from parent's.  The caller holds the parent still: its worker has
 * reported LPD_STATUS_FORKED and not yet been told to resume.
 */
void lpd_state_fork(struct lpd_state *child, const struct lpd_state *parent);

/*
 * The restore has finished: what is missing may be filled unasked.  Callable
 * from any thread; tell the worker with LPD_REQUEST_DRAIN.
 */
void lpd_state_release(struct lpd_state *state);

/*
 * Fill what nobody waits for at so many bytes a second: a LPD_DRAIN_... or in
 * between.  A new state is eager; a child begins with its parent's rate.
 * Callable from any thread; tell the worker with LPD_REQUEST_DRAIN.
 */
void lpd_state_set_drain_rate(struct lpd_state *state, uint64_t rate);

/*
 * Check a mapping of size bytes that somebody else left, and changes no more:
 * 0, or -EPROTO (no state), -EBADMSG (checksum or bounds broken), or
 * -EPROTONOSUPPORT (of a version that is too old or too new: magic, version,
 * size and checksum are where they are in every version).  A state that passes
 * leads to no page, bit, source or message that is not there.  That no two
 * regions share a bit is not checked.
 */
int lpd_state_check(const struct lpd_state *state, uint64_t size);

/*
 * Make a state that passed the check one that a session can begin with,
 * wherever whoever served it has died.  After LPD_REQUEST_ATTACH ask for
 * LPD_REQUEST_RETRY, so that faults that had been read are read anew.
 */
void lpd_state_take_over(struct lpd_state *state);

/*
 * The descriptors of children that have been told of, and not yet disowned;
 * at most LPD_MAX_MESSAGES.  Returns how many.
 */
unsigned int lpd_state_forks(const struct lpd_state *state, int32_t *ret_fds);

/*
 * The child behind this descriptor has a session of its own, or never will:
 * whoever takes the state over is not to look for it.  While the worker is
 * paused by its FORK, or none serves the state.
 */
void lpd_state_disown(struct lpd_state *state, int child_fd);

/* The regions in force; a pointer into state. */
const struct lpd_region *lpd_state_regions(const struct lpd_state *state,
					   uint64_t *ret_nr_regions);

/* The region that holds addr, or NULL. */
const struct lpd_region *lpd_state_find(const struct lpd_state *state,
					uint64_t addr);

/* Whether the image no longer speaks for a page; by its bit. */
int lpd_state_test(const struct lpd_state *state, uint64_t bit);

/*
 * Set the bits of every image page within [start, end); return how many were
 * clear.  What REMOVE does to the state.
 */
uint64_t lpd_state_mark(struct lpd_state *state, uint64_t start, uint64_t end);

/* The same, and they are no longer mapped there: what UNMAP does. */
uint64_t lpd_state_unmap(struct lpd_state *state, uint64_t start, uint64_t end);

/* Is any image page still mapped within [start, end)? */
int lpd_state_occupied(const struct lpd_state *state, uint64_t start,
		       uint64_t end);

/*
 * Move what lies in [from, from + len) to [to, to + len), and unmap what was
 * there; return how many of its bits were clear.  The two ranges are
 * disjoint, as mremap(2) demands.  Commits the table together with cursor.
 */
uint64_t lpd_state_remap(struct lpd_state *state, uint64_t from, uint64_t to,
			 uint64_t len, unsigned int cursor);

/*
 * Unmap the missing pages that are not registered with fd.  What a fork has
 * left behind (MADV_DONTFORK) is to be forgotten before something else grows
 * there.  Of a channel nothing is left behind untold, and so nothing done.
 * 0, or -EAGAIN once the child changes its mappings itself, -ESRCH.
 */
int lpd_state_prune(struct lpd_state *state, int fd);

/*
 * A run: the part of a region whose bits are clear, at most max_pages of it.
 * The one that begins at addr / the first at or after it.  Returns its length
 * in pages, 0 if there is none.
 */
uint32_t lpd_state_missing_at(const struct lpd_state *state, uint64_t addr,
			      uint32_t max_pages, struct lpd_region *ret_run);
uint32_t lpd_state_next_missing(const struct lpd_state *state, uint64_t addr,
				uint32_t max_pages, struct lpd_region *ret_run);

/*
 * Where the upper half begins of the regions between start and end, or of the
 * only one; end if there is none, or if that has not twice min_pages.
 */
uint64_t lpd_state_middle(const struct lpd_state *state, uint64_t start,
			  uint64_t end, uint32_t min_pages);

/*
 * All runs that begin within [start, end), which they are cut to: at most
 * max_runs, and of max_pages in all.  Returns how many.
 */
uint32_t lpd_state_gather(const struct lpd_state *state, uint64_t start,
			  uint64_t end, uint64_t max_pages,
			  struct lpd_region *ret_runs, uint32_t max_runs);

#endif /* LAZYPAGESD_STATE_H */
