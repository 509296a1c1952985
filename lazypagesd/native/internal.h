/*
 * internal.h: what the .c files of the data plane share among themselves.
 */
#ifndef LAZYPAGESD_INTERNAL_H
#define LAZYPAGESD_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include "native.h"

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
 * Protocols: the seam at which a new kind of descriptor is added.
 */

enum lpd_message_kind {
	LPD_MESSAGE_FAULT = 1,
	LPD_MESSAGE_FORK,
	LPD_MESSAGE_REMAP,
	LPD_MESSAGE_REMOVE,
	LPD_MESSAGE_UNMAP,
	LPD_MESSAGE_UNKNOWN,
	LPD_MESSAGE_PART, /* of the message before it, which has been told */
};

/* A message, whatever its format was. */
struct lpd_message {
	enum lpd_message_kind kind;
	uint64_t number; /* of an event that can come twice; 0: it cannot */
	union {
		struct {
			uint64_t addr; /* of the page */
			uint32_t tid;  /* 0: not told */
		} fault;
		int32_t child_fd; /* FORK */
		struct {
			uint64_t start, end; /* REMOVE, UNMAP */
		} range;
		struct {
			uint64_t from, to, len; /* REMAP */
		} remap;
	};
};

/*
 * How one kind of descriptor is read and filled through.  Chosen once, when
 * it is handed over, so that no message costs a branch.
 */
struct lpd_protocol {
	uint32_t message_size;
	/* Are events read in the order in which they take place, each once? */
	bool in_order;
	/* May helpers fill through the descriptor, beside the worker? */
	bool is_helped;
	/*
	 * Whole messages into buffer; how many, or -errno: -EAGAIN none, -ESRCH
	 * none ever again.  *last_event is the number of the last event that
	 * was read, where they have numbers; what comes again is left out.
	 */
	int (*read)(int fd, uint8_t *buffer, unsigned int max_messages,
		    uint64_t *last_event);
	/*
	 * Who served before us may have died before it let the process go on
	 * that had caused this event.  NULL if the kernel does.
	 */
	void (*confirm)(int fd, uint64_t last_event);
	struct lpd_message (*decode)(const uint8_t *raw);
	/* Make a FORK one without a child; a single store. */
	void (*disown)(uint8_t *raw);
	/*
	 * As lpd_uffd_copy(), lpd_uffd_zeropage() and so on in uffd.h.
	 */
	int64_t (*copy)(int fd, uint64_t addr, const void *bytes, uint64_t len);
	int64_t (*zeropage)(int fd, uint64_t addr, uint64_t len);
	int (*wake)(int fd, uint64_t addr, uint64_t len);
	int (*probe)(int fd);
	/* Every page that was to come is in.  NULL if close() tells enough. */
	void (*conclude)(int fd);
};

extern const struct lpd_protocol lpd_channel_v1, lpd_channel_v2;

/* NULL if there is no such protocol. */
const struct lpd_protocol *lpd_protocol_get(uint32_t id);

/* ------------------------------------------------------------------------
 * Filling
 */

/* How an attempt to fill ended. */
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
 * Bytes of a source, without waiting: at least one page of them, at most len.
 * Returns how many, and where (valid until the next call for this worker);
 * -EINPROGRESS when a reader fetches them, -EAGAIN when all readers are busy,
 * or another -errno: ENODATA where the source ends before the page does.
 */
int64_t lpd_source_read(struct lpd_worker *worker, struct lpd_session *session,
			uint32_t source, uint64_t offset, uint64_t len,
			const uint8_t **ret_bytes);

/*
 * The same, copied to where the caller wants them; with -EINPROGRESS and
 * -EAGAIN, what is read for that is one cold read at most.
 */
int64_t lpd_source_read_into(struct lpd_worker *worker,
			     struct lpd_session *session, uint32_t source,
			     uint64_t offset, uint64_t len, uint8_t *bytes);

/* Forget what is staged for a session. */
void lpd_source_forget(struct lpd_worker *worker, struct lpd_session *session);

/* Let the sessions whose cold reads are done go on. */
void lpd_reads_collect(struct lpd_worker *worker);

/* Free the reads that a session has been offered, used or not. */
void lpd_reads_release(struct lpd_worker *worker, struct lpd_session *session);

/*
 * A single attempt: COPY, or ZEROPAGE if bytes is NULL, which keeps at it while
 * it gets EAGAIN for as long as the session insists; and what becomes of a page
 * that is held, or refused, or whose bytes cannot be read, with what is to be
 * told.
 */
int64_t lpd_attempt(struct lpd_session *session, uint64_t addr,
		    const uint8_t *bytes, uint64_t len);
enum lpd_outcome lpd_attempt_held(struct lpd_session *session,
				  struct lpd_trouble trouble, uint32_t err);
enum lpd_outcome lpd_attempt_refused(struct lpd_session *session,
				     struct lpd_trouble trouble, int64_t rc);
enum lpd_outcome lpd_attempt_unreadable(struct lpd_session *session,
					struct lpd_trouble trouble, int64_t rc);

/* What is there is there: let whoever waits for it look again. */
enum lpd_outcome lpd_attempt_wake(struct lpd_session *session,
				  struct lpd_pending *fault);

/* Is a page that got ENOENT not registered, rather than being moved? */
bool lpd_attempt_absent(struct lpd_session *session, uint64_t addr);

/* Between attempts that wait for something that does not tell. */
#define LPD_LATER_NS LPD_NS_PER_MS

/*
 * Fill a page that was faulted at, with up to max_pages - 1 behind it if the
 * image speaks for it; counts, sets bits, and notes in *fault how it went.
 */
enum lpd_outcome lpd_fill_fault(struct lpd_worker *worker,
				struct lpd_session *session,
				struct lpd_pending *fault, uint32_t max_pages);

/*
 * Fill a run in as few calls as it takes; kind, NEIGHBOUR or DRAIN, is what
 * its pages are counted as.  Of its source, so many bytes from its first page
 * on will be wanted, of which some are those of runs that follow.
 */
enum lpd_outcome lpd_fill_run(struct lpd_worker *worker,
			      struct lpd_session *session,
			      const struct lpd_region *run, uint64_t wanted,
			      enum lpd_step_kind kind);

/*
 * Fill the huge page around addr: for a fault or, where that is NULL, unasked;
 * kind is what all but the page of the fault are counted as.  Once it is
 * filled, session->huge_end is its end.
 */
enum lpd_outcome lpd_fill_huge(struct lpd_worker *worker,
			       struct lpd_session *session, uint64_t addr,
			       struct lpd_pending *fault,
			       enum lpd_step_kind kind);

/*
 * Go on with what the session has begun with, whoever did: he need not come
 * again, as drain that goes back to what a helper could not fill.  Returns
 * LPD_FILLED also where nothing was begun or it has to wait; anything else is
 * about the session as a whole.
 */
enum lpd_outcome lpd_hugetlb_go_on(struct lpd_worker *worker,
				   struct lpd_session *session);

/* Is addr in a huge page of which something has been put together? */
bool lpd_hugetlb_begun(struct lpd_worker *worker,
		       const struct lpd_session *session, uint64_t addr);

/* Is addr in the huge page that ends at end?  0: there is none. */
static inline bool lpd_hugetlb_ends_at(uint64_t end, uint64_t addr)
{
	return addr < end && addr >= end - LPD_HUGE_SIZE;
}

/* What was put together of [start, end), or known of it, is not right any more.
 */
void lpd_hugetlb_forget(struct lpd_worker *worker, struct lpd_session *session,
			uint64_t start, uint64_t end);

/*
 * How many pages may be filled now that nobody waits for, by the session's
 * rate; not counting on its release.
 */
uint64_t lpd_background_budget(struct lpd_session *session);

/*
 * How many bytes of its source are wanted from the first of these runs on, to
 * where more than a page of it is not: that of a fault is in the middle of its
 * neighbourhood.
 */
uint64_t lpd_bytes_wanted(const struct lpd_region *runs, uint32_t nr_runs);

/* One bounded piece of work that nobody waits for. */
enum lpd_outcome lpd_background_step(struct lpd_worker *worker,
				     struct lpd_session *session);

/* Is there anything for lpd_background_step() to do? */
bool lpd_background_wanted(const struct lpd_session *session);

/* Remember that the neighbourhood of a page is wanted. */
void lpd_background_wish(struct lpd_session *session, uint64_t addr);

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
