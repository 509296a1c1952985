/*
 * helper.h: a worker's helpers, helper.c, and their jobs, jobs.c.
 */
#ifndef LAZYPAGESD_HELPER_H
#define LAZYPAGESD_HELPER_H

#include "internal.h"

static inline uint32_t lpd_job_state(const struct lpd_job *job)
{
	/* Pairs with the release of whoever changed it. */
	return __atomic_load_n(&job->state, __ATOMIC_ACQUIRE);
}

/* False if it is in another state. */
static inline bool lpd_job_change(struct lpd_job *job, uint32_t from,
				  uint32_t to)
{
	return __atomic_compare_exchange_n(&job->state, &from, to, false,
					   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* Let helpers begin in the middle of what is missing below end; 0: of all. */
void lpd_helpers_restart(struct lpd_session *session, uint64_t end);

/* Offer pages that are missing to the worker's helpers. */
void lpd_helpers_offer(struct lpd_worker *worker, struct lpd_session *session);

/*
 * Let no helper fill anything of a session, as long as it takes to see whether
 * an event has come / let them go on.
 */
void lpd_helpers_suspend(struct lpd_worker *worker,
			 struct lpd_session *session);
void lpd_helpers_resume(struct lpd_worker *worker, struct lpd_session *session);

/*
 * Let no helper fill anything of a session between start and end from now on,
 * and count what they have; return whether one might have.
 */
bool lpd_helpers_revoke(struct lpd_worker *worker, struct lpd_session *session,
			uint64_t start, uint64_t end);

/* Count what helpers are done with, and let the sessions go on. */
void lpd_helpers_collect(struct lpd_worker *worker);

/* Open a helper's descriptor / close it / let it look at its jobs. */
int lpd_helper_init(struct lpd_helper *helper);
void lpd_helper_deinit(struct lpd_helper *helper);
void lpd_helper_wake(struct lpd_helper *helper);

#endif /* LAZYPAGESD_HELPER_H */
