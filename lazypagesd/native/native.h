/*
 * native.h: the whole of the boundary between the C data plane and Python.
 *
 * Declarations only: cffi reads this file (without its preprocessor lines),
 * and every .c file includes it.  C answers page faults; Python decides
 * everything else.  C never calls Python, allocates nothing, logs nothing and
 * takes no lock; it works on memory that Python prepared, and reports through
 * counters and an eventfd.
 *
 * Functions return 0 or a negative errno; results come through a last
 * parameter named ret_..., written only on success.  Addresses, offsets and
 * sizes are in bytes, ranges are half-open.
 *
 * Threads: "control plane" is any Python thread, "worker" the one thread
 * inside lpd_worker_run().  A field that both touch says so; each such field
 * is read and written with the __atomic builtins in C.
 */
#ifndef LAZYPAGESD_NATIVE_H
#define LAZYPAGESD_NATIVE_H

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
	/*
	 * Of the states that are made here, and of the oldest that can be taken
	 * over.  The former grows with every change that an older daemon cannot
	 * make sense of: here, or in what is beside a state (record.proto).
	 */
	LPD_STATE_VERSION = 4,
	LPD_STATE_OLDEST = 4,
	LPD_MAX_MESSAGES = 2048, /* of one round */
	LPD_MAX_QUESTIONS = 64,  /* about it, to the kernel */
	LPD_MAX_MESSAGE_SIZE = 32,
	LPD_NR_LATENCY_BUCKETS = 40,
	LPD_MAX_THREADS = 64,  /* whose losses are told apart */
	LPD_MAX_PENDING = 256, /* faults to be tried again */
	LPD_MAX_WISHES = 16,   /* neighbourhoods to be filled */
	LPD_MAX_TROUBLES = 32, /* reports not yet taken */
	LPD_NR_READS = 16,     /* cold reads under way, a worker */
	LPD_READ_SIZE = 65536, /* of one cold read */
	LPD_STAGING_SIZE = 1 << 20,
	LPD_MAX_HELPERS = 3,           /* of a worker */
	LPD_NR_JOBS = 2,               /* of a helper: one is done, one waits */
	LPD_HELPER_READ_SIZE = 262144, /* that a helper reads at once */
	LPD_HUGE_SIZE = 2 << 20,       /* of a page of hugetlbfs */
	LPD_NR_ASSEMBLIES = 3,         /* of a worker */
	LPD_MAX_PIECE_PAGES = 64, /* of drain, when all is quiet: 256 KiB */
	LPD_MAX_RUNS = 64,        /* filled in one step, however short */
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

/* ------------------------------------------------------------------------
 * State: all that must outlive the daemon, in one memfd for each session.
 */

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

/* ------------------------------------------------------------------------
 * userfaultfd: one function a call, callable from any thread.
 */

/*
 * Fill [addr, addr + len), which lies in one mapping, from bytes; wakes who
 * waits for it.  Returns the bytes filled, which may be fewer, or -errno.
 */
int64_t lpd_uffd_copy(int fd, uint64_t addr, const void *bytes, uint64_t len);

/* The same with zeros. */
int64_t lpd_uffd_zeropage(int fd, uint64_t addr, uint64_t len);

/* Let every thread that waits within the range fault again. */
int lpd_uffd_wake(int fd, uint64_t addr, uint64_t len);

/*
 * Is the address space still there?  0; -EAGAIN: yes, and it is being changed
 * by an operation whose event has not been read, or whose caller has not gone
 * on since; -ESRCH: no.  Changes nothing in it.
 */
int lpd_uffd_probe(int fd);

/*
 * Is [addr, addr + len) within one registered mapping?  1, 0, or -EAGAIN or
 * -ESRCH as above.  Changes nothing.
 */
int lpd_uffd_registered(int fd, uint64_t addr, uint64_t len);

/*
 * Is what belongs to [addr, addr + len), of hugetlbfs, there already, because
 * it is shared with somebody who has it?  1, and it is mapped, as a touch would
 * do it; 0; or -EAGAIN or -ESRCH as above.
 */
int lpd_uffd_is_shared(int fd, uint64_t addr, uint64_t len);

/* ------------------------------------------------------------------------
 * Sources
 */

/*
 * How a source is read.  Python finds out which (by trying) and passes it.
 */
enum lpd_source_kind {
	LPD_SOURCE_CACHED = 1,   /* preadv2(RWF_NOWAIT) works */
	LPD_SOURCE_MEMORY = 2,   /* lives in memory: no read ever waits */
	LPD_SOURCE_BLOCKING = 3, /* a read may wait and cannot tell */
};

/* A file that pages come from.  The fd is borrowed, and outlives sessions. */
struct lpd_source {
	int32_t fd;
	uint32_t kind;
	uint64_t size;
};

/* ------------------------------------------------------------------------
 * Sessions: one address space, one descriptor, served by one worker.
 */

struct lpd_worker;
struct lpd_protocol; /* how a descriptor is read and filled: internal.h */

/* Asked of a session's worker with lpd_session_request(). */
enum lpd_request {
	LPD_REQUEST_ATTACH = 1 << 0, /* serve from now on */
	LPD_REQUEST_DETACH = 1 << 1, /* stop; answered by detached = 1 */
	LPD_REQUEST_DRAIN = 1 << 2,  /* released or drain_rate has changed */
	LPD_REQUEST_RESUME = 1 << 3, /* the child of a FORK has been made */
	LPD_REQUEST_RETRY = 1 << 4,  /* what is held may be filled now */
};

/* Told by the worker; lpd_session_take_status() takes it. */
enum lpd_status {
	LPD_STATUS_FORKED = 1 << 0,  /* paused: child_fd wants a session */
	LPD_STATUS_DRAINED = 1 << 1, /* no page is missing, and released */
	LPD_STATUS_GONE = 1 << 2,    /* the address space is no more */
	LPD_STATUS_TROUBLE = 1 << 3, /* see lpd_session_take_trouble() */
};

/* A page that could not be filled, and waits.  err is a positive errno:
 * ENODATA when the source ended before it.  source is UINT32_MAX when it was
 * not the source that failed: the kernel refused the fill itself. */
struct lpd_trouble {
	uint64_t addr;
	uint64_t offset;
	uint32_t source;
	uint32_t err;
	uint64_t waiting; /* 1: a thread waits for it; 0: drain met it */
};

/*
 * A fault until it is answered.  Those that are to be tried again are the
 * worker's; others may look, and find a list that is changing.
 */
struct lpd_pending {
	uint64_t addr;
	uint64_t read_ns;
	uint64_t offset; /* of its page in the source, when it was tried last */
	uint32_t source; /* UINT32_MAX: the image did not speak for it */
	uint32_t tid;
	uint16_t tries;
	uint8_t kind;     /* enum lpd_fault_kind */
	uint8_t of_image; /* the image spoke for it when it was tried last */
	uint8_t outcome;  /* enum lpd_fault_outcome, once it is answered */
};

/*
 * What of its rate a session has not spent.  Zero at first; due_ns is written
 * by lpd_pace_allow() when the rate is neither lazy nor eager.
 */
struct lpd_pace {
	uint64_t since_ns; /* the time from then on is still to be spent */
	uint64_t filled;   /* what it had filled when it was last asked */
	uint64_t due_ns;   /* when there is something to fill with again */
};

/*
 * How many bytes may be filled unasked at now_ns (CLOCK_MONOTONIC): 0 for not
 * yet, or never; UINT64_MAX for any number; or at least a page.  filled is all
 * that was filled unasked so far: what has come since the last call is paid
 * for at this rate.  Unspent time beyond 100 ms, or that of a page, is lost.
 */
uint64_t lpd_pace_allow(struct lpd_pace *pace, uint64_t rate, uint64_t now_ns,
			uint64_t filled);

/* Was the page at addr registered once an event had been done? */
struct lpd_question {
	uint64_t addr;
	uint32_t event; /* the message */
	int32_t answer; /* 0, 1, or -errno; -EAGAIN: to be asked again */
};

/*
 * Everything about a session that need not outlive the process.  The control
 * plane allocates it zero-filled, sets the first group, and frees it once
 * lpd_session_detached() says so and no report of it is left to be taken.
 */
struct lpd_session {
	/* Set by the control plane before LPD_REQUEST_ATTACH. */
	struct lpd_state *state;
	const struct lpd_source *sources; /* state->nr_sources of them */
	struct lpd_worker *worker;
	int32_t fd;  /* non-blocking; borrowed until detached */
	uint32_t id; /* in the flight recorder */
	/* Of the child's session, before LPD_REQUEST_RESUME; 0: it has none. */
	uint32_t child_id;

	/* Shared, atomic. */
	uint32_t request;
	uint32_t status;
	uint32_t in_inbox;
	uint32_t in_reports;
	uint32_t detached; /* the worker's last word */
	int32_t child_fd;  /* valid with LPD_STATUS_FORKED */
	struct lpd_session *next_in_inbox;
	struct lpd_session *next_in_reports;
	struct lpd_trouble troubles[LPD_MAX_TROUBLES];
	uint32_t troubles_written; /* by the worker; wraps */
	uint32_t troubles_taken;   /* by the control plane; wraps */

	/* The worker's own. */
	const struct lpd_protocol
		*protocol; /* state->protocol, looked up once */
	uint32_t paused;   /* until the child of a FORK is made */
	uint32_t finished; /* drained or gone: told, and served no more */
	uint32_t detaching;
	uint32_t nr_reads; /* cold reads under way for it */
	uint32_t nr_jobs;  /* of helpers, for it */
	/* The worker's ring of sessions that have work. */
	struct lpd_session *next_active;
	struct lpd_session *prev_active;
	/* The round: messages in state->messages, and when they were read. */
	uint32_t nr_messages;
	uint32_t nr_listed;   /* of them, looked at for events */
	uint32_t nr_events;   /* of them, in state->order */
	uint32_t wants_quiet; /* see order.c */
	uint32_t must_read;   /* before anything is tried again */
	uint64_t read_ns;
	uint32_t nr_questions;
	struct lpd_question questions[LPD_MAX_QUESTIONS];
	/* Faults that could not be answered yet. */
	uint32_t nr_pending;
	uint32_t nr_hot;   /* of them, those that no reader will wake us for */
	uint32_t nr_spins; /* turns in a row: EAGAIN, and no message */
	struct lpd_pending pending[LPD_MAX_PENDING];
	uint64_t not_before_ns;   /* of the next attempt, after ENOMEM */
	uint64_t insist_until_ns; /* on fills that get EAGAIN, this turn */
	/* Background: neighbourhoods of faults, then drain. */
	uint32_t nr_wishes;
	uint32_t window_pages;           /* of a neighbourhood */
	uint32_t window_filled;          /* of the last one */
	uint32_t piece_pages;            /* of drain */
	uint32_t waits_for_read;         /* drain met a cold page */
	uint32_t waits_for_help;         /* helpers have all that is left */
	uint64_t wishes[LPD_MAX_WISHES]; /* addresses that faulted */
	uint64_t window_end;             /* of the last neighbourhood */
	uint64_t drain_addr;             /* where drain goes on */
	/* Of drain, what helpers are at, and where they go on; 0: the end. */
	uint64_t help_start, help_addr, help_end;
	uint32_t pass_progressed; /* drain filled something since address 0 */
	uint32_t stuck;           /* drain went round and filled nothing */
	struct lpd_pace pace;
	/* The end of the huge page that was tried last, and of the one that was
	 * filled last; 0: none.  When that was, and when somebody was last told
	 * to look whether one is there. */
	uint64_t huge_end;
	uint64_t huge_filled_end;
	uint64_t huge_filled_ns;
	uint64_t huge_woken_ns;
	/* A page that is not registered; see attempt.c. */
	uint64_t absent_addr;
	uint32_t absent_confirmed;
};

/* Ask something of the session's worker: LPD_REQUEST_... bits. */
void lpd_session_request(struct lpd_session *session, uint32_t request);

/*
 * Whether the address space behind the descriptor is no more.  Callable from
 * any thread, as long as the descriptor is open.
 */
int lpd_session_is_gone(const struct lpd_session *session);

/* Whether the worker has answered LPD_REQUEST_DETACH. */
int lpd_session_detached(const struct lpd_session *session);

/* Take what the worker told, as LPD_STATUS_... bits. */
uint32_t lpd_session_take_status(struct lpd_session *session);

/* Take the oldest report of a page that cannot be filled: 0, or -ENOENT. */
int lpd_session_take_trouble(struct lpd_session *session,
			     struct lpd_trouble *ret_trouble);

/* ------------------------------------------------------------------------
 * Flight recorder: what a worker did last, in a memfd that outlives it.
 *
 * Two rings, each with one writer, the worker.  An entry is written into the
 * place of the oldest one, and then counted.  So whoever reads copies entries
 * and looks at the count after that: with n entries counted, those before
 * n + 1 - capacity may have been overwritten meanwhile, and are left out; so
 * is what a worker has half written that died.  Once a ring has filled up it
 * therefore shows one entry less than it has room for.
 *
 * A recorder that nobody has written to for long is still read in this way:
 * the count alone tells what is whole.
 */
enum {
	LPD_RECORDER_VERSION = 1,
	/* One of which is being written. */
	LPD_RECORDER_FAULTS = 65536 + 1,
	LPD_RECORDER_STEPS = 16384,
};

enum lpd_fault_outcome {
	LPD_OUTCOME_NONE = 0,
	LPD_OUTCOME_FILLED,
	LPD_OUTCOME_WOKEN, /* something was there: who waits looks again */
	LPD_OUTCOME_HELD,  /* cannot be filled, and waits for a retry */
	LPD_OUTCOME_GONE,  /* its process was no more */
};

/* Beside faults: pages filled unasked, and events. */
enum lpd_step_kind {
	LPD_STEP_NEIGHBOUR = 1,
	LPD_STEP_DRAIN,
	LPD_STEP_FORK,
	LPD_STEP_REMAP,
	LPD_STEP_REMOVE,
	LPD_STEP_UNMAP,
};

/* Times are of CLOCK_MONOTONIC.  session is that of struct lpd_session. */
struct lpd_fault {
	uint64_t time_ns; /* when it was answered */
	uint64_t addr;
	uint64_t offset; /* in the source */
	uint64_t latency_ns;
	uint32_t session;
	uint32_t tid;    /* 0: not known */
	uint32_t source; /* UINT32_MAX: of none */
	uint16_t tries;
	uint8_t kind;    /* enum lpd_fault_kind */
	uint8_t outcome; /* enum lpd_fault_outcome */
};

struct lpd_step {
	uint64_t time_ns;
	uint64_t addr;
	uint64_t len;
	uint64_t to; /* of a REMAP */
	uint32_t session;
	uint32_t child; /* of a FORK: its session; 0: none */
	uint32_t kind;  /* enum lpd_step_kind */
	uint32_t reserved;
};

struct lpd_recorder {
	uint64_t magic;
	uint32_t version;
	uint32_t worker; /* whose it is, by number: this daemon's, or the next's
			  */
	uint64_t nr_faults; /* so far; atomic, as nr_steps */
	uint64_t nr_steps;
	/* The control plane's own: the largest number of a session so far, and
	 * how many daemons have gone on in it. */
	uint64_t last_session;
	uint64_t nr_takeovers;
	struct lpd_fault faults[LPD_RECORDER_FAULTS];
	struct lpd_step steps[LPD_RECORDER_STEPS];
};

/* Begin that of a worker, in zero-filled memory. */
void lpd_recorder_init(struct lpd_recorder *recorder, uint32_t worker);

/* Check what another worker has left: 0, or -EPROTO. */
int lpd_recorder_check(const struct lpd_recorder *recorder);

/*
 * Copy the entries [first, end), numbered from 0 on as they were written, of
 * which end have been counted and first is not older than the ring is long.
 * Returns the first of them that is whole; end if none is.  Callable from any
 * thread, also while the worker writes.
 */
uint64_t lpd_recorder_read_faults(const struct lpd_recorder *recorder,
				  uint64_t first, uint64_t end,
				  struct lpd_fault *ret_faults);
uint64_t lpd_recorder_read_steps(const struct lpd_recorder *recorder,
				 uint64_t first, uint64_t end,
				 struct lpd_step *ret_steps);

/* ------------------------------------------------------------------------
 * Workers: threads that own sessions.
 */

/*
 * A read that would wait for the disk, done by a reader thread.  The worker
 * fills in a slot and sets it QUEUED; a reader makes it READING, then DONE;
 * the worker uses the bytes and sets it FREE.  state is atomic, and whoever
 * changed it last owns the rest.
 */
enum lpd_read_state {
	LPD_READ_FREE = 0,
	LPD_READ_QUEUED,
	LPD_READ_READING,
	LPD_READ_DONE,
};

struct lpd_read {
	uint32_t state;
	uint32_t source;
	struct lpd_session *session;
	uint64_t offset;
	int64_t result; /* bytes, or -errno */
	uint32_t len;
	int32_t fd;
	uint32_t offered; /* the session has been told */
	uint8_t *bytes;   /* LPD_READ_SIZE */
};

/*
 * Pages that a helper is to fill: see jobs.c.  The worker fills in a slot and
 * sets it OFFERED; the helper begins it (READING), claims each piece (FILLING)
 * and lets go of it (READING), and sets it ENDED; the worker sets it FREE.  The
 * worker may set it REVOKED in between, or SUSPENDED in addition for a moment,
 * in which the helper neither begins nor claims, but not while it is FILLING.
 */
enum lpd_job_state {
	LPD_JOB_FREE = 0,
	LPD_JOB_OFFERED,
	LPD_JOB_READING,
	LPD_JOB_FILLING,
	LPD_JOB_REVOKED,
	LPD_JOB_ENDED,
	LPD_JOB_SUSPENDED = 8, /* a flag */
};

struct lpd_job {
	uint32_t state; /* atomic */
	/* The worker's, before it is offered. */
	int32_t fd;
	const struct lpd_source *sources;
	uint32_t nr_runs;
	struct lpd_region runs[LPD_MAX_RUNS];
	/* The helper's, while it is FILLING. */
	uint32_t nr_filled; /* pages, from the first run on */
	/* The worker's own. */
	uint32_t nr_counted; /* pages, of those that were filled */
	uint32_t closed;     /* and that was all of them */
	struct lpd_session *session;
};

/* A thread that fills for a worker; bytes are set as a worker's. */
struct lpd_helper {
	uint8_t *bytes;  /* LPD_HELPER_READ_SIZE */
	int32_t jobs_fd; /* eventfd: a job is offered, or stop has changed */
	uint64_t rests_until_ns; /* the worker's own */
	struct lpd_job jobs[LPD_NR_JOBS];
};

/* A huge page that is being put together: see hugetlb.c. */
struct lpd_assembly {
	struct lpd_session *session; /* waits for a read; NULL: it is free */
	uint64_t start;
	uint64_t have;  /* bytes, from the first on */
	uint8_t *bytes; /* LPD_HUGE_SIZE */
};

/*
 * The control plane allocates a worker zero-filled, with staging, page and
 * the bytes of each read and assembly, and frees it after all its threads have
 * returned.
 */
struct lpd_worker {
	/* Set by the control plane. */
	uint8_t *staging;              /* LPD_STAGING_SIZE */
	uint8_t *page;                 /* LPD_PAGE_SIZE */
	struct lpd_recorder *recorder; /* NULL: nothing is recorded */
	/* So long, at most, it asks for messages before it sleeps; atomic. */
	uint64_t max_poll_ns;
	uint32_t nr_helpers;
	uint32_t helped_from_pages; /* sessions that miss so many */
	uint64_t helper_wait_ns;    /* one that is waited for longer rests */
	struct lpd_helper helpers[LPD_MAX_HELPERS];
	struct lpd_read reads[LPD_NR_READS];
	struct lpd_assembly assemblies[LPD_NR_ASSEMBLIES];

	/* Made by lpd_worker_init(). */
	int32_t epoll_fd;
	int32_t inbox_fd; /* eventfd: the inbox, reads or stop have changed */
	int32_t reads_fds[2]; /* pipe: a byte for each read that is queued */
	int32_t report_fd;    /* eventfd: lpd_worker_take_report() has news */

	/* Shared, atomic. */
	struct lpd_session *inbox;
	struct lpd_session *reports;
	uint32_t stop;
	uint64_t nr_turns; /* of the loop: who is woken and takes none, hangs */
	uint64_t began_ns;
	uint64_t busy_ns;   /* since then, at work */
	uint64_t polled_ns; /* asking for messages, see wait.c */
	uint64_t longest_turn_ns;

	/* The worker's own. */
	struct lpd_session *active; /* whose turn it is, in a ring */
	uint32_t nr_active;
	uint32_t nr_idle_steps; /* turns in a row that could do nothing */
	uint64_t nap_until_ns;  /* when the first of them may do something */
	uint32_t nr_reads;      /* slots that are not free */
	uint32_t has_served;    /* a session, in the turn before */
	int64_t poll_credit_ns; /* it does not poll while that is negative */
	uint64_t poll_ns;       /* so long it polls next: learnt */
	struct lpd_region runs[LPD_MAX_RUNS]; /* of the step */
	/* What staging holds, if staged_session is not NULL. */
	uint32_t staged_source;
	uint32_t staged_len;
	uint64_t staged_offset;
	struct lpd_session *staged_session;
};

/* Open the worker's descriptors / close them. */
int lpd_worker_init(struct lpd_worker *worker);
void lpd_worker_deinit(struct lpd_worker *worker);

/* Serve until lpd_worker_stop(); call it without the GIL, in one thread. */
int lpd_worker_run(struct lpd_worker *worker);

/* Do the worker's cold reads until lpd_worker_stop(); any number of threads. */
int lpd_reader_run(struct lpd_worker *worker);

/* Do the jobs of one of its helpers until lpd_worker_stop(); in one thread. */
int lpd_helper_run(struct lpd_worker *worker, uint32_t number);

/*
 * Let lpd_worker_run(), nr_readers times lpd_reader_run(), and
 * lpd_helper_run() of each helper return.
 */
void lpd_worker_stop(struct lpd_worker *worker, uint32_t nr_readers);

/*
 * Take a session that has something to tell, or NULL when none has.  Clear
 * report_fd by reading it before, so that no report goes unseen.
 */
struct lpd_session *lpd_worker_take_report(struct lpd_worker *worker);

/* ------------------------------------------------------------------------
 * Image map: CRIU's pagemap files -> a flat map of regions.
 *
 * Runs at load, never at a fault: decodes pagemap-N.img (records of
 * [u32 size][pagemap_entry]) and lays a chain of such files, a checkpoint and
 * its parents, flat over the VMAs that can be lazy.  Allocates nothing and
 * keeps nothing: every buffer is the caller's.  Callable from any thread.
 */

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
	uint64_t page_size;
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
	uint64_t page_size;
	uint32_t nr_levels;
};

/*
 * Lay a chain flat.  The regions are what of the LAZY entries of levels[0]
 * lies in a VMA, cut at the VMAs' ends, each with the level that has its
 * bytes as its source; neighbours in address, VMA and file are one region.
 * With regions NULL they are only counted.
 *
 * Returns 0, -EBADMSG (and *ret_error), or -ENOSPC past capacity.
 */
int lpd_chain_flatten(struct lpd_chain *chain, struct lpd_region *regions,
		      uint64_t capacity, struct lpd_image_error *ret_error,
		      uint64_t *ret_nr_regions);

#endif /* LAZYPAGESD_NATIVE_H */
