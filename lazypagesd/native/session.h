/*
 * session.h: one address space, one descriptor, served by one worker, and the
 * sources of its bytes.
 */
#ifndef LAZYPAGESD_SESSION_H
#define LAZYPAGESD_SESSION_H

#include "state.h"

enum {
	LPD_MAX_QUESTIONS = 64, /* about a round, to the kernel */
	LPD_MAX_PENDING = 256,  /* faults to be tried again */
	LPD_MAX_WISHES = 16,    /* neighbourhoods to be filled */
	LPD_MAX_TROUBLES = 32,  /* reports not yet taken */
};

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

struct lpd_worker;
struct lpd_protocol; /* how a descriptor is read and filled: protocol.h */

/* Asked of a session's worker with lpd_session_request(). */
enum lpd_request {
	LPD_REQUEST_ATTACH = 1 << 0, /* serve from now on */
	LPD_REQUEST_DETACH = 1 << 1, /* stop; see take_detached() */
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
 * plane allocates it zero-filled, sets the first group, and frees it once it
 * has taken it with lpd_worker_take_detached(), and every report after that.
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
	int32_t child_fd; /* valid with LPD_STATUS_FORKED */
	struct lpd_session *next_in_inbox;
	struct lpd_session *next_in_reports;
	struct lpd_session *next_detached;
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
	uint64_t scattered_ns; /* of the last fault; 0: it went on there */
	uint64_t drain_addr;   /* where drain goes on */
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

/* Take what the worker told, as LPD_STATUS_... bits. */
uint32_t lpd_session_take_status(struct lpd_session *session);

/* Take the oldest report of a page that cannot be filled: 0, or -ENOENT. */
int lpd_session_take_trouble(struct lpd_session *session,
			     struct lpd_trouble *ret_trouble);

#endif /* LAZYPAGESD_SESSION_H */
