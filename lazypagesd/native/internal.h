/*
 * internal.h: what the .c files of the data plane share among themselves.
 */
#ifndef LAZYPAGESD_INTERNAL_H
#define LAZYPAGESD_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include "native.h"
#include "protocol.h"

struct epoll_event;

/* Counters have one writer; readers want whole values, in no order. */
#define LPD_COUNT(counter, n)                                                  \
	__atomic_store_n(&(counter), (counter) + (n), __ATOMIC_RELAXED)

static inline uint64_t lpd_min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t lpd_max(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline bool lpd_overlap(uint64_t start, uint64_t end,
			       uint64_t other_start, uint64_t other_end)
{
	return start < other_end && other_start < end;
}

#define LPD_NS_PER_MS 1000000ull
#define LPD_NS_PER_S  1000000000ull

static inline uint64_t lpd_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * LPD_NS_PER_S + now.tv_nsec;
}

static inline uint64_t lpd_region_end(const struct lpd_region *region)
{
	return region->start + (uint64_t)region->nr_pages * LPD_PAGE_SIZE;
}

/* At which it is drained now; whoever set it asks for what must see it. */
static inline uint64_t lpd_state_drain_rate(const struct lpd_state *state)
{
	return __atomic_load_n(&state->drain_rate, __ATOMIC_RELAXED);
}

/*
 * commit, unpacked: the table in force, its length, and how many of the
 * messages in the buffer have taken effect.
 */
struct lpd_commit {
	uint64_t nr_regions;
	unsigned int table;
	unsigned int cursor;
};

struct lpd_commit lpd_state_commit(const struct lpd_state *state);
void lpd_state_set_commit(struct lpd_state *state, struct lpd_commit commit);

/*
 * Set the bits [first, first + n) of the pages that the image no longer
 * speaks for; return how many were clear.
 */
uint64_t lpd_bits_set(struct lpd_state *state, uint64_t first, uint64_t n);

/* ------------------------------------------------------------------------
 * Where a daemon that is tested may die: crash.c
 */

#ifdef LPD_CRASH_POINTS
/* Die here, if this is the point and the moment that were chosen. */
void lpd_crash_point(const char *name);
#else
#define lpd_crash_point(name) ((void)0)
#endif

/* ------------------------------------------------------------------------
 * What is left behind in the state for whoever takes it over: takeover.c
 */

/* The round's events are in order, and may take effect from now on. */
void lpd_state_keep_arrangement(struct lpd_state *state,
				unsigned int nr_events);

/* The round is done with: no message is left, nor any arrangement. */
void lpd_state_clear_messages(struct lpd_state *state, unsigned int nr_messages,
			      size_t message_size);

/* Begin with the round that was left behind, if there is any. */
void lpd_session_find_messages(struct lpd_session *session);

/* ------------------------------------------------------------------------
 * Accounts: recorder.c
 */

/* A fault is answered, or is held: count how long it took, and record it. */
void lpd_account_fault(struct lpd_session *session,
		       const struct lpd_pending *fault);

/* Count and record pages that were filled and nobody waited for, as kind. */
void lpd_account_run(struct lpd_session *session, uint64_t addr, uint64_t len,
		     enum lpd_step_kind kind);

/* Record an event that has taken effect / a FORK whose child is served. */
void lpd_account_event(const struct lpd_session *session,
		       const struct lpd_message *message);
void lpd_account_fork(const struct lpd_session *session);

/* ------------------------------------------------------------------------
 * Sessions, as the worker sees them
 */

/* How an attempt to go on with one ended. */
enum lpd_outcome {
	LPD_FILLED,
	LPD_AGAIN,  /* the mappings are changing: read on, then try again */
	LPD_LATER,  /* no memory in the target: try again in a while */
	LPD_MISSED, /* a reader is fetching the bytes */
	LPD_HELD,   /* the source is broken: told, and waits for a RETRY */
	LPD_PACED,  /* nobody waits for it: not before pace.due_ns */
	LPD_GONE,   /* the address space is no more */
};

/*
 * Read what is there, let events take effect, answer faults: LPD_FILLED, and
 * what could not be answered is pending; LPD_AGAIN when more events are on
 * their way; LPD_GONE; or LPD_HELD when the descriptor cannot be read at all.
 */
enum lpd_outcome lpd_session_serve(struct lpd_worker *worker,
				   struct lpd_session *session);

/* Message i of the round, decoded. */
struct lpd_message lpd_session_message(const struct lpd_session *session,
				       unsigned int i);

/*
 * Ask the kernel what an earlier attempt to arrange the round wanted to know,
 * now that the address space is quiet.
 */
void lpd_room_ask(struct lpd_session *session);

/*
 * Put the events of a round that come early or late where they belong, and
 * leave out those that say nothing new.  The round has all events of what they
 * belong to (see lpd_uffd_probe()), or false is returned: then read on, list
 * the events anew, and ask again.
 */
bool lpd_order_arrange(struct lpd_session *session);

/*
 * Bring to place `first` of state->order the event that took place next; the
 * state tells of all those before.
 */
void lpd_order_next(struct lpd_session *session, unsigned int first);

/*
 * Is something that got EAGAIN to be tried again on the spot?  A thread that
 * does nothing but change mappings lets others in only between two of its
 * calls, for a microsecond; so be there when it comes, for a part of a turn.
 */
bool lpd_session_insists(struct lpd_session *session);

/* Is it not yet time to try again? */
bool lpd_session_too_early(struct lpd_session *session);

/*
 * Let the events that have been read take effect, though nothing be filled any
 * more: no one else knows of the children of a FORK among them.  False if one
 * has paused the session.
 */
bool lpd_session_conclude(struct lpd_session *session);

/* The child of a FORK has been made: count its message as done with. */
void lpd_session_resume(struct lpd_session *session);

/*
 * Put a session at the head of a list that others push to and take from
 * meanwhile; next is where it has the link of that list.
 */
void lpd_session_push(struct lpd_session **list, struct lpd_session *session,
		      struct lpd_session **next);

/* Tell the control plane, once it looks. */
void lpd_session_report(struct lpd_session *session, uint32_t status);

/* The worker's last word of a session, which may be freed from then on. */
void lpd_session_detached(struct lpd_session *session);

/* Tell of a page that cannot be filled. */
void lpd_session_hold(struct lpd_session *session, struct lpd_trouble trouble);

/* ------------------------------------------------------------------------
 * Workers and readers
 */

/*
 * Wait for messages, or for what else wakes a worker, until until_ns (of
 * lpd_now_ns(); UINT64_MAX: for ever).  Returns as epoll_wait() does, and
 * leaves in now_ns when.
 */
int lpd_worker_wait(struct lpd_worker *worker, struct epoll_event *ready,
		    int max_ready, uint64_t until_ns);

/* Let the worker look at its inbox and its reads. */
void lpd_worker_wake(struct lpd_worker *worker);

/* Let one reader look for a queued read. */
void lpd_reader_wake(struct lpd_worker *worker);

#endif /* LAZYPAGESD_INTERNAL_H */
