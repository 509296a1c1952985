/*
 * jobs.c: what a worker gives its helpers to do, and how it stays the only one
 * that knows anything of a session.
 *
 * Helpers begin in the middle of what the drain has to do, and where the upper
 * half has been filled, in the middle of the rest.  So they do not run into
 * the worker; and a program that walks through its memory in order does not
 * run into them: it would be right behind, and wait for every page.
 *
 * Fills must not overtake events: none may happen between an event's being
 * read and its having taken effect, or bytes of the image would appear where
 * the process has dropped, moved or replaced its memory.  Until an event is
 * read, the kernel sees to that (it completes fills that are under way before
 * it raises an event, and answers EAGAIN from then on).  So before a worker
 * reads messages it suspends the session's jobs; if there was nothing but
 * faults it lets them go on, and revokes them otherwise.  A helper has to claim
 * each piece before it fills it; and a worker that meets a piece that was
 * claimed waits until it is in, for as long as COPY takes.  A disk is never
 * waited for: a helper reads first and claims afterwards.
 *
 * What has been filled is counted by its bits, which stay with the pages
 * whatever becomes of their addresses, and always before messages are read: of
 * a worker that is killed whoever comes next knows no more.  A worker also
 * revokes what it is about to fill itself, or a page could be counted twice.
 */
#include <sched.h>

#include "helper.h"
#include "roster.h"

#define JOB_PAGES 256 /* 1 MiB */
/* Less is not worth another thread's waking up. */
#define MIN_JOB_PAGES 16

/*
 * A processor that others want as well may be lost in the middle of a COPY that
 * the worker has to wait for.  So a helper that was waited for rests for so
 * many times as long.
 */
#define RESTS_FOR_WAIT 64

static uint64_t job_end(const struct lpd_job *job)
{
	return lpd_region_end(&job->runs[job->nr_runs - 1]);
}

void lpd_helpers_restart(struct lpd_session *session, uint64_t end)
{
	session->help_start = end;
	session->help_addr = end;
	session->help_end = end;
}

/* The upper half of what drain has to do below their area is theirs, too. */
static bool take_area(struct lpd_session *session)
{
	uint64_t end = session->help_start ?: LPD_USER_SPACE_END;
	uint64_t start = lpd_state_middle(session->state, session->drain_addr,
					  end, MIN_JOB_PAGES);

	if (start == end)
		return false;
	session->help_start = start;
	session->help_addr = start;
	session->help_end = end;
	return true;
}

/* What is missing next in their area, as runs of a job; how many pages. */
static uint32_t gather_job(const struct lpd_session *session,
			   struct lpd_job *job)
{
	uint32_t nr_pages = 0;

	job->nr_runs = lpd_state_gather(session->state, session->help_addr,
					session->help_end, JOB_PAGES, job->runs,
					LPD_MAX_RUNS);
	for (uint32_t i = 0; i < job->nr_runs; i++)
		nr_pages += job->runs[i].nr_pages;
	return nr_pages;
}

/* False if there is nothing for a helper. */
static bool offer(struct lpd_session *session, struct lpd_job *job)
{
	while (gather_job(session, job) < MIN_JOB_PAGES)
		if (!take_area(session))
			return false;
	job->session = session;
	job->fd = session->fd;
	job->sources = session->sources;
	job->nr_filled = 0;
	job->closed = 0;
	job->nr_counted = 0;
	session->nr_jobs++;
	session->help_addr = job_end(job);
	__atomic_store_n(&job->state, LPD_JOB_OFFERED, __ATOMIC_RELEASE);
	return true;
}

void lpd_helpers_offer(struct lpd_worker *worker, struct lpd_session *session)
{
	/* Pieces are no huge pages. */
	if (!session->protocol->is_helped || session->huge_end ||
	    session->state->nr_missing < worker->helped_from_pages ||
	    lpd_state_drain_rate(session->state) != LPD_DRAIN_EAGER)
		return;
	uint64_t now = lpd_now_ns();
	for (unsigned int i = 0; i < worker->nr_helpers; i++) {
		struct lpd_helper *helper = &worker->helpers[i];
		bool offered = false;

		if (now < helper->rests_until_ns)
			continue;
		for (unsigned int j = 0; j < LPD_NR_JOBS; j++)
			if (lpd_job_state(&helper->jobs[j]) == LPD_JOB_FREE)
				offered |= offer(session, &helper->jobs[j]);
		if (offered)
			lpd_helper_wake(helper);
	}
}

/*
 * A job was not done from here on.  Whatever was in the way of a helper, the
 * worker is to meet it itself.
 */
static void go_back(struct lpd_session *session, uint64_t addr, bool ended)
{
	session->drain_addr = lpd_min(session->drain_addr, addr);
	if (!ended)
		session->help_addr = lpd_min(session->help_addr, addr);
}

/*
 * Count what a job has filled since this was asked last, while its helper fills
 * nothing; return where it goes on, 0: it is done.
 */
static uint64_t count(struct lpd_job *job)
{
	struct lpd_session *session = job->session;
	uint64_t before = 0; /* pages of the runs before */

	for (uint32_t i = 0; i < job->nr_runs; i++) {
		const struct lpd_region *run = &job->runs[i];
		uint64_t end = before + run->nr_pages;
		uint64_t first = lpd_max(before, job->nr_counted) - before;
		uint64_t last = lpd_min(end, job->nr_filled) - before;

		if (first < last) {
			LPD_COUNT(session->state->counters.fills, 1);
			lpd_account_run(session,
					run->start + first * LPD_PAGE_SIZE,
					(last - first) * LPD_PAGE_SIZE,
					LPD_STEP_DRAIN);
			lpd_bits_set(session->state, run->first_bit + first,
				     last - first);
			session->pass_progressed = 1;
		}
		if (end > job->nr_filled) {
			job->nr_counted = job->nr_filled;
			return run->start + last * LPD_PAGE_SIZE;
		}
		before = end;
	}
	job->nr_counted = job->nr_filled;
	return 0;
}

/* The last that is counted of a job. */
static void close_books(struct lpd_job *job, bool ended)
{
	if (job->closed)
		return;
	job->closed = 1;
	uint64_t addr = count(job);
	if (addr)
		go_back(job->session, addr, ended);
}

static void free_job(struct lpd_job *job)
{
	job->session->nr_jobs--;
	job->session = NULL;
	__atomic_store_n(&job->state, LPD_JOB_FREE, __ATOMIC_RELEASE);
}

/* The slots of all helpers, by number. */
static unsigned int nr_slots(const struct lpd_worker *worker)
{
	return worker->nr_helpers * LPD_NR_JOBS;
}

static struct lpd_job *job_in(struct lpd_worker *worker, unsigned int i)
{
	return &worker->helpers[i / LPD_NR_JOBS].jobs[i % LPD_NR_JOBS];
}

/* Wait until a helper claims nothing more of a job; return its state. */
static uint32_t suspend(struct lpd_worker *worker, unsigned int slot)
{
	struct lpd_job *job = job_in(worker, slot);
	uint64_t began_ns = lpd_now_ns();
	uint32_t state;

	while ((state = lpd_job_state(job)) == LPD_JOB_FILLING ||
	       ((state == LPD_JOB_OFFERED || state == LPD_JOB_READING) &&
		!lpd_job_change(job, state, state | LPD_JOB_SUSPENDED)))
		/* It is FILLING, perhaps on this very processor. */
		sched_yield();
	uint64_t now = lpd_now_ns();
	if (now - began_ns > worker->helper_wait_ns)
		worker->helpers[slot / LPD_NR_JOBS].rests_until_ns =
			now + RESTS_FOR_WAIT * (now - began_ns);
	return lpd_job_state(job);
}

static void take_back(struct lpd_worker *worker, unsigned int slot)
{
	struct lpd_job *job = job_in(worker, slot);
	uint32_t state = suspend(worker, slot);

	/* Of one that is READING, the helper still has to let go. */
	close_books(job, state == LPD_JOB_ENDED);
	if (state == (LPD_JOB_OFFERED | LPD_JOB_SUSPENDED))
		free_job(job);
	else
		lpd_job_change(job, LPD_JOB_READING | LPD_JOB_SUSPENDED,
			       LPD_JOB_REVOKED);
}

void lpd_helpers_suspend(struct lpd_worker *worker, struct lpd_session *session)
{
	for (unsigned int i = 0; session->nr_jobs && i < nr_slots(worker);
	     i++) {
		struct lpd_job *job = job_in(worker, i);

		if (job->session != session || job->closed)
			continue;
		suspend(worker, i);
		/* What nobody has noted is missing to whoever takes over. */
		count(job);
	}
}

void lpd_helpers_resume(struct lpd_worker *worker, struct lpd_session *session)
{
	for (unsigned int i = 0; session->nr_jobs && i < nr_slots(worker); i++)
		__atomic_fetch_and(&job_in(worker, i)->state,
				   ~LPD_JOB_SUSPENDED, __ATOMIC_RELEASE);
}

bool lpd_helpers_revoke(struct lpd_worker *worker, struct lpd_session *session,
			uint64_t start, uint64_t end)
{
	bool revoked = false;

	for (unsigned int i = 0; session->nr_jobs && i < nr_slots(worker);
	     i++) {
		struct lpd_job *job = job_in(worker, i);

		if (job->session != session || job->closed ||
		    !lpd_overlap(job->runs[0].start, job_end(job), start, end))
			continue;
		take_back(worker, i);
		/* What it has not done is the worker's again. */
		session->waits_for_help = 0;
		revoked = true;
	}
	return revoked;
}

void lpd_helpers_collect(struct lpd_worker *worker)
{
	for (unsigned int i = 0; i < nr_slots(worker); i++) {
		struct lpd_job *job = job_in(worker, i);
		struct lpd_session *session = job->session;

		if (lpd_job_state(job) != LPD_JOB_ENDED)
			continue;
		close_books(job, true);
		free_job(job);
		session->waits_for_help = 0;
		lpd_session_activate(worker, session);
	}
}
