/*
 * helper.c: further threads that fill pages of a session, beside its worker.
 *
 * A worker fills some two gigabytes a second; a session of many need not wait
 * for it alone, where other processors have nothing to do.  It remains the
 * only one that knows anything of the session.  What a helper gets is a job:
 * pages that were missing, where their bytes are, and where they belong.  It
 * reads and COPYs them piece by piece, counts, and looks at nothing else.
 *
 * Fills must not overtake events: none may happen between an event's being
 * read and its having taken effect, or bytes of the image would appear where
 * the process has dropped, moved or replaced its memory.  Until an event is
 * read, the kernel sees to that (it completes fills that are under way before
 * it raises an event, and answers EAGAIN from then on).  So before a worker
 * reads messages it revokes the session's jobs.  A helper has to claim each
 * piece before it fills it, which fails once its job is revoked; and a worker
 * that meets a piece that was claimed waits until it is in, for as long as
 * COPY takes for LPD_PIECE_SIZE.  A disk is never waited for: a helper reads
 * first and claims afterwards.
 *
 * What has been filled is counted by its bits, which stay with the pages
 * whatever becomes of their addresses, and always before messages are read.
 */
#include <errno.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "internal.h"

#define JOB_PAGES 256 /* 1 MiB */
/* Less is not worth another thread's waking up. */
#define MIN_JOB_PAGES 16

/* ---- the helper's side ---- */

static uint32_t job_state(const struct lpd_job *job)
{
	/* Pairs with the release of whoever changed it. */
	return __atomic_load_n(&job->state, __ATOMIC_ACQUIRE);
}

static bool change_state(struct lpd_job *job, uint32_t from, uint32_t to)
{
	return __atomic_compare_exchange_n(&job->state, &from, to, false,
					   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* One piece; false if the job goes no further, whatever the reason. */
static bool fill_piece(struct lpd_job *job, uint8_t *bytes)
{
	uint64_t done = (uint64_t)job->nr_filled * LPD_PAGE_SIZE;
	uint64_t len = (uint64_t)job->run.nr_pages * LPD_PAGE_SIZE - done;
	ssize_t n = pread(job->source_fd, bytes, lpd_min(len, LPD_PIECE_SIZE),
			  job->run.offset + done);

	/* The worker finds out what is wrong, and tells. */
	if (n < LPD_PAGE_SIZE ||
	    !change_state(job, LPD_JOB_READING, LPD_JOB_FILLING))
		return false;
	len = n & ~(uint64_t)(LPD_PAGE_SIZE - 1);
	int64_t filled =
		lpd_uffd_copy(job->fd, job->run.start + done, bytes, len);

	if (filled > 0)
		job->nr_filled += filled / LPD_PAGE_SIZE;
	__atomic_store_n(&job->state, LPD_JOB_READING, __ATOMIC_RELEASE);
	return filled == (int64_t)len && job->nr_filled < job->run.nr_pages;
}

int lpd_helper_run(struct lpd_worker *worker, uint32_t number)
{
	struct lpd_helper *helper = &worker->helpers[number];

	while (!__atomic_load_n(&worker->stop, __ATOMIC_ACQUIRE)) {
		uint64_t count;
		ssize_t n = read(helper->jobs_fd, &count, sizeof(count));

		if (n < 0 && errno != EINTR)
			return -errno;
		/* In the order in which they are offered, again and again. */
		for (unsigned int i = 0, nr_idle = 0; nr_idle < LPD_NR_JOBS;
		     i = (i + 1) % LPD_NR_JOBS) {
			struct lpd_job *job = &helper->jobs[i];

			if (!change_state(job, LPD_JOB_OFFERED,
					  LPD_JOB_READING)) {
				nr_idle++;
				continue;
			}
			while (fill_piece(job, helper->bytes))
				;
			nr_idle = 0;
			__atomic_store_n(&job->state, LPD_JOB_ENDED,
					 __ATOMIC_RELEASE);
			lpd_worker_wake(worker);
		}
	}
	return 0;
}

/* ---- the worker's side ---- */

/* Offer what is missing next; false if there is nothing for a helper. */
static bool offer(struct lpd_session *session, struct lpd_job *job)
{
	struct lpd_region run;

	if (lpd_state_next_missing(session->state, session->drain_addr,
				   JOB_PAGES, &run) < MIN_JOB_PAGES)
		return false;
	job->session = session;
	job->fd = session->fd;
	job->source_fd = session->sources[run.source].fd;
	job->run = run;
	job->nr_filled = 0;
	job->counted = 0;
	session->nr_jobs++;
	session->drain_addr = lpd_region_end(&run);
	__atomic_store_n(&job->state, LPD_JOB_OFFERED, __ATOMIC_RELEASE);
	return true;
}

void lpd_helpers_offer(struct lpd_worker *worker, struct lpd_session *session)
{
	/* Pieces are no huge pages. */
	if (!session->protocol->is_helped || session->huge_end ||
	    session->piece_pages < worker->helped_from_pages ||
	    lpd_state_drain_rate(session->state) != LPD_DRAIN_EAGER)
		return;
	for (unsigned int i = 0; i < worker->nr_helpers; i++) {
		struct lpd_helper *helper = &worker->helpers[i];
		uint64_t nr_offered = 0;

		for (unsigned int j = 0; j < LPD_NR_JOBS; j++)
			if (job_state(&helper->jobs[j]) == LPD_JOB_FREE &&
			    offer(session, &helper->jobs[j]))
				nr_offered++;
		if (nr_offered)
			(void)!write(helper->jobs_fd, &nr_offered,
				     sizeof(nr_offered));
	}
}

/*
 * Count what a job has filled, once its helper fills no more.  False if that
 * is not all, whatever was in its way: the worker is to meet it itself.
 */
static bool count(struct lpd_job *job)
{
	struct lpd_session *session = job->session;
	uint64_t len = (uint64_t)job->nr_filled * LPD_PAGE_SIZE;

	if (job->counted)
		return true;
	job->counted = 1;
	if (job->nr_filled) {
		LPD_COUNT(session->state->counters.fills, 1);
		lpd_account_run(session, job->run.start, len, LPD_STEP_DRAIN);
		lpd_bits_set(session->state, job->run.first_bit,
			     job->nr_filled);
		session->pass_progressed = 1;
	}
	if (job->nr_filled == job->run.nr_pages)
		return true;
	session->drain_addr =
		lpd_min(session->drain_addr, job->run.start + len);
	session->piece_pages = 0;
	return false;
}

static void free_job(struct lpd_job *job)
{
	job->session->nr_jobs--;
	job->session = NULL;
	__atomic_store_n(&job->state, LPD_JOB_FREE, __ATOMIC_RELEASE);
}

static bool is_over(uint32_t state)
{
	return state == LPD_JOB_ENDED || state == LPD_JOB_REVOKED;
}

static void take_back(struct lpd_job *job)
{
	/* Not begun: nobody will look at it any more. */
	if (change_state(job, LPD_JOB_OFFERED, LPD_JOB_REVOKED)) {
		count(job);
		free_job(job);
		return;
	}
	while (!is_over(job_state(job)) &&
	       !change_state(job, LPD_JOB_READING, LPD_JOB_REVOKED))
		/* It is FILLING, perhaps on this very processor. */
		sched_yield();
	count(job);
}

void lpd_helpers_revoke(struct lpd_worker *worker, struct lpd_session *session)
{
	/* What they have not done is the worker's again. */
	session->waits_for_help = 0;
	for (unsigned int i = 0; session->nr_jobs && i < worker->nr_helpers;
	     i++)
		for (unsigned int j = 0; j < LPD_NR_JOBS; j++)
			if (worker->helpers[i].jobs[j].session == session)
				take_back(&worker->helpers[i].jobs[j]);
}

void lpd_helpers_collect(struct lpd_worker *worker)
{
	for (unsigned int i = 0; i < worker->nr_helpers; i++) {
		for (unsigned int j = 0; j < LPD_NR_JOBS; j++) {
			struct lpd_job *job = &worker->helpers[i].jobs[j];
			struct lpd_session *session = job->session;

			if (job_state(job) != LPD_JOB_ENDED)
				continue;
			/* It goes back to where others may be at work. */
			if (!count(job))
				lpd_helpers_revoke(worker, session);
			free_job(job);
			session->waits_for_help = 0;
			lpd_session_activate(worker, session);
		}
	}
}

int lpd_helper_init(struct lpd_helper *helper)
{
	helper->jobs_fd = eventfd(0, EFD_CLOEXEC);
	return helper->jobs_fd < 0 ? -errno : 0;
}

void lpd_helper_deinit(struct lpd_helper *helper)
{
	if (helper->jobs_fd >= 0)
		close(helper->jobs_fd);
	helper->jobs_fd = -1;
}

void lpd_helper_wake(struct lpd_helper *helper)
{
	uint64_t one = 1;

	(void)!write(helper->jobs_fd, &one, sizeof(one));
}
