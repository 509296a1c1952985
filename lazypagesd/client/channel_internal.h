/*
 * channel_internal.h: what the .c files of the channel share; see channel.h
 * for what they do, and wire.h for what is said.  channel_all.c includes them,
 * so what is static has another name in each.
 *
 *	channel.c         opening a channel, its lock, and fork()
 *	channel_serve.c   packets, and how they are applied
 *	channel_faults.c  the handler of SIGSEGV
 *	channel_ranges.c  registering, and the calls that change mappings
 *
 * Each registered range has a shadow: a second mapping as long, to which the
 * pages are written that come.  When a neighbourhood is complete there, one
 * mremap(2) puts it in place of memory that nobody could touch.  Both have
 * their pages at the same distances, so that the kernel can make one mapping
 * of what has arrived, and both are private, so that fork() comes out right.
 *
 * One lock is held by whoever takes a packet, and by whoever changes the
 * mappings, from before that is told until it is done.  Who has told takes
 * the packets itself until READ comes: those before READ were sent by one who
 * had not read of the change and are for the memory as it is, those after it
 * are for the memory as it is going to be, and are taken when it is.
 *
 * The lock is taken in a signal handler.  Its holder touches no memory that
 * is missing, and has all signals blocked.
 */
#ifndef LAZYPAGESD_CHANNEL_INTERNAL_H
#define LAZYPAGESD_CHANNEL_INTERNAL_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "channel.h"
#include "wire.h"

#define PAGE_SIZE  4096ul
#define MAX_RANGES 256

enum page_state {
	MISSING,
	ASKED, /* for by a thread that waits */
	ASIDE, /* in the shadow, or zero */
	THERE, /* where it belongs */
};

struct range {
	uint8_t *start;
	size_t nr_pages;
	uint8_t *shadow; /* of pages that are THERE: somebody else's */
	uint8_t *states; /* of each page; never freed */
	size_t chunk_pages;
};

/* In a shared library as well, what follows is for these files alone. */
#pragma GCC visibility push(hidden)

/* The channel of this process.  Once open, it changes under the lock alone. */
extern struct lpd_channel {
	int fd;
	int child_fd; /* of the fork under way */
	pid_t pid;
	bool is_v2;
	bool complete; /* all that was missing is zero, and told so */
	bool ended;    /* nothing comes any more */
	uint64_t features;
	uint64_t nr_told; /* events, which is the number of the last one */
	uint32_t lock;    /* futex: 0 free, 1 held, 2 held and waited for */
	uint32_t filled;  /* futex: changes whenever a page may have come */
	unsigned int nr_ranges;
	size_t nr_chunks;
	struct range ranges[MAX_RANGES];
	struct sigaction previous;
	sigset_t fork_mask;
	struct {
		struct lpd_op op;
		uint8_t bytes[LPD_MAX_COPY];
	} packet;
} lpd_channel;

static inline size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* ---- channel.c: the lock, and waiting; callable in a signal handler ---- */

/* futex(2) on a word that no other process shares. */
void lpd_channel_futex(uint32_t *word, int operation, uint32_t value);

/*
 * Block all signals, then take the lock; not recursive.  *ret_mask is the mask
 * that there was, which lpd_channel_unlock() is to be given.
 */
void lpd_channel_lock(sigset_t *ret_mask);
void lpd_channel_unlock(const sigset_t *mask);

/* Let everybody look again who waits for a page. */
void lpd_channel_wake_all(void);

/*
 * Answer one who asks after the exchange: the daemon that had been answered
 * has died, and left nothing to the next.  To anything else than before the
 * answer is zeros.
 */
void lpd_channel_grant_again(const struct lpd_wire_api *asked);

/* ---- channel_serve.c: pages; the lock is held ---- */

/*
 * The pages [*ret_first, *ret_end) of a range that lie within
 * [addr, addr + len); false if none do, and nothing is written then.
 */
bool lpd_range_intersect(const struct range *range, uintptr_t addr, size_t len,
			 size_t *ret_first, size_t *ret_end);

/* The end of the run of pages in one state that begins at first. */
size_t lpd_range_run_end(const struct range *range, size_t first, size_t end);

/*
 * Put in place what is complete of the neighbourhoods of the pages
 * [first, end), and wake whoever waits.  Tries until there is memory for it.
 */
void lpd_range_publish(struct range *range, size_t first, size_t end);

/* ---- channel_serve.c: packets ---- */

/* Nobody has been asked for these pages: who waits asks.  The lock is held. */
void lpd_channel_forget_asked(uintptr_t addr, size_t len);

/* Start the thread that takes what comes; 0 or a negative errno. */
int lpd_channel_start_serving(void);

/*
 * Send a packet, and with it a descriptor unless fd is -1; it stays the
 * caller's.  0 or a negative errno: that nobody is there to read it is no
 * error, see there.  Needs no lock; callable in a signal handler, where it may
 * change errno.
 */
int lpd_channel_send_packet(const void *bytes, size_t len, int fd);

/*
 * Tell of an event, with at most 3 arguments and fd as above, and take packets
 * until it has been read, by this daemon or the next.  Nothing is told of a
 * type that the other end has not asked for, nor after the end.  The caller
 * holds the lock, and keeps it until the event has taken place; which it must
 * not if this fails, with a negative errno.
 */
int lpd_channel_tell(unsigned int type, const uint64_t *args,
		     unsigned int nr_args, int fd);

/* ---- channel_faults.c ---- */

/*
 * The handler of SIGSEGV: returns when the page is there, or hands on to
 * lpd_channel.previous what is none of ours.  Leaves errno as it was.
 */
void lpd_channel_on_segv(int sig, siginfo_t *info, void *context);

#pragma GCC visibility pop

#endif /* LAZYPAGESD_CHANNEL_INTERNAL_H */
