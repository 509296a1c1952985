/*
 * helper.c: a further thread that fills pages of sessions, beside their worker.
 *
 * A worker fills some two gigabytes a second; a session of many need not wait
 * for it alone, where other processors have nothing to do.  What a helper gets
 * is a job (see jobs.c): pages that were missing, where their bytes are, and
 * where they belong.  It reads and COPYs them piece by piece, counts, and looks
 * at nothing else.
 *
 * A helper gives way between pieces.  That is better than to be nice: who is
 * nice has, with the processor that it once gets, a whole tick of the kernel,
 * 1 to 4 ms, and whoever has been woken meanwhile waits for all of that; and
 * loses it for longer, whatever it was in the middle of.
 */
#include <errno.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fill.h"
#include "helper.h"

/* Filled at once; of what is read at once there is more. */
#define CLAIM_SIZE 65536

/* As soon as the job is not suspended; false if it is in another state. */
static bool advance(struct lpd_job *job, uint32_t from, uint32_t to)
{
	while (!lpd_job_change(job, from, to)) {
		if ((lpd_job_state(job) & ~LPD_JOB_SUSPENDED) != from)
			return false;
		/* The worker may want this very processor. */
		sched_yield();
	}
	return true;
}

/* Where a helper is with its job. */
struct progress {
	uint32_t run;
	uint64_t done;        /* bytes of that run */
	uint64_t since_yield; /* bytes that were filled */
	/* What has been read: bytes of a source from an offset on. */
	uint32_t source;
	uint64_t offset;
	uint64_t len;
};

/* One COPY; false if the job goes no further, whatever the reason. */
static bool fill_piece(struct lpd_job *job, struct progress *at, uint8_t *bytes)
{
	const struct lpd_region *run = &job->runs[at->run];
	uint64_t offset = run->offset + at->done;

	/* Whose pages these are may wait for this very processor. */
	if (at->since_yield >= CLAIM_SIZE) {
		sched_yield();
		at->since_yield = 0;
	}
	if (run->source != at->source || offset < at->offset ||
	    offset >= at->offset + at->len) {
		uint64_t wanted = lpd_bytes_wanted(run, job->nr_runs - at->run);
		ssize_t n =
			pread(job->sources[run->source].fd, bytes,
			      lpd_min(wanted - at->done, LPD_HELPER_READ_SIZE),
			      offset);

		/* The worker finds out what is wrong, and tells. */
		if (n < LPD_PAGE_SIZE)
			return false;
		at->source = run->source;
		at->offset = offset;
		at->len = n & ~(uint64_t)(LPD_PAGE_SIZE - 1);
	}
	uint64_t left = (uint64_t)run->nr_pages * LPD_PAGE_SIZE - at->done;
	uint64_t len = lpd_min(lpd_min(at->offset + at->len - offset, left),
			       CLAIM_SIZE);

	if (!advance(job, LPD_JOB_READING, LPD_JOB_FILLING))
		return false;
	int64_t filled = lpd_uffd_copy(job->fd, run->start + at->done,
				       bytes + offset - at->offset, len);

	if (filled > 0)
		job->nr_filled += filled / LPD_PAGE_SIZE;
	__atomic_store_n(&job->state, LPD_JOB_READING, __ATOMIC_RELEASE);
	if (filled != (int64_t)len)
		return false;
	at->since_yield += len;
	at->done += len;
	if (len == left) {
		at->run++;
		at->done = 0;
	}
	return at->run < job->nr_runs;
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

			if (!advance(job, LPD_JOB_OFFERED, LPD_JOB_READING)) {
				nr_idle++;
				continue;
			}
			/* It has just been woken: perhaps in somebody's place.
			 */
			struct progress at = {.since_yield = CLAIM_SIZE};
			while (fill_piece(job, &at, helper->bytes))
				;
			nr_idle = 0;
			__atomic_store_n(&job->state, LPD_JOB_ENDED,
					 __ATOMIC_RELEASE);
			lpd_worker_wake(worker);
		}
	}
	return 0;
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
