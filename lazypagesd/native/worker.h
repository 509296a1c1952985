/*
 * worker.h: threads that own sessions, and those beside them.
 */
#ifndef LAZYPAGESD_WORKER_H
#define LAZYPAGESD_WORKER_H

#include "recorder.h"
#include "session.h"

enum {
	LPD_NR_READS = 16,     /* cold reads under way, a worker */
	LPD_READ_SIZE = 65536, /* of one cold read */
	LPD_STAGING_SIZE = 1 << 20,
	LPD_MAX_HELPERS = 3,           /* of a worker */
	LPD_NR_JOBS = 2,               /* of a helper: one is done, one waits */
	LPD_HELPER_READ_SIZE = 262144, /* that a helper reads at once */
	LPD_NR_ASSEMBLIES = 3,         /* of a worker */
	LPD_MAX_PIECE_PAGES = 64, /* of drain, when all is quiet: 256 KiB */
	LPD_MAX_RUNS = 64,        /* filled in one step, however short */
};

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
	int32_t report_fd;    /* eventfd: there are reports, or detached ones */

	/* Shared, atomic. */
	struct lpd_session *inbox;
	struct lpd_session *reports;
	struct lpd_session *detached; /* by the worker, its last word of each */
	uint32_t stop;
	uint64_t nr_turns; /* of the loop: who is woken and takes none, hangs */
	uint64_t began_ns;
	uint64_t busy_ns;   /* since then, at work */
	uint64_t polled_ns; /* asking for messages, see wait.c */
	uint64_t longest_turn_ns;

	/* The worker's own. */
	uint64_t now_ns; /* when it has last waited, or ended a turn */
	struct lpd_session *active; /* whose turn it is, in a ring */
	uint32_t nr_active;
	uint32_t nr_idle_steps; /* turns in a row that could do nothing */
	uint64_t nap_until_ns;  /* when the first of them may do something */
	uint32_t nr_reads;      /* slots that are not free */
	uint32_t has_served;    /* a session, in the turn before */
	int64_t poll_credit_ns; /* it does not poll while that is negative */
	uint64_t poll_ns;       /* so long it polls next: learnt */
	uint32_t nr_polls;      /* since it last slept */
	uint32_t nr_sleeps;     /* so often does it sleep before it polls */
	uint32_t max_sleeps;    /* the same, when it had polled */
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
 * Take those that the worker has let go of (LPD_REQUEST_DETACH), linked by
 * next_detached, or NULL.  What is taken with lpd_worker_take_report()
 * afterwards is the last that they have told.  Clear report_fd by reading it
 * before, so that none goes unseen.
 */
struct lpd_session *lpd_worker_take_detached(struct lpd_worker *worker);

/*
 * Take a session that has something to tell, or NULL when none has.  Clear
 * report_fd by reading it before, so that no report goes unseen.
 */
struct lpd_session *lpd_worker_take_report(struct lpd_worker *worker);

#endif /* LAZYPAGESD_WORKER_H */
