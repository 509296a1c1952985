/*
 * report.c: what a worker has to tell the control plane of its sessions: a
 * list that sessions are pushed to and taken from, and a descriptor that wakes
 * whoever takes them.
 */
#include <unistd.h>

#include "internal.h"

void lpd_session_push(struct lpd_session **list, struct lpd_session *session,
		      struct lpd_session **next)
{
	*next = __atomic_load_n(list, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(list, next, session, true,
					    __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
}

static void wake_control_plane(struct lpd_worker *worker)
{
	uint64_t one = 1;

	(void)!write(worker->report_fd, &one, sizeof(one));
}

void lpd_session_report(struct lpd_session *session, uint32_t status)
{
	struct lpd_worker *worker = session->worker;

	/* Pairs with the acquire in lpd_session_take_status(). */
	__atomic_fetch_or(&session->status, status, __ATOMIC_RELEASE);
	if (!__atomic_exchange_n(&session->in_reports, 1, __ATOMIC_ACQ_REL))
		lpd_session_push(&worker->reports, session,
				 &session->next_in_reports);
	wake_control_plane(worker);
}

void lpd_session_detached(struct lpd_session *session)
{
	struct lpd_worker *worker = session->worker;

	/* Once it is in the list it may be freed. */
	lpd_session_push(&worker->detached, session, &session->next_detached);
	wake_control_plane(worker);
}

struct lpd_session *lpd_worker_take_detached(struct lpd_worker *worker)
{
	return __atomic_exchange_n(&worker->detached, NULL, __ATOMIC_ACQUIRE);
}

struct lpd_session *lpd_worker_take_report(struct lpd_worker *worker)
{
	struct lpd_session *session =
		__atomic_load_n(&worker->reports, __ATOMIC_ACQUIRE);

	/* One taker only, so next_in_reports cannot change under us. */
	while (session &&
	       !__atomic_compare_exchange_n(&worker->reports, &session,
					    session->next_in_reports, true,
					    __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE))
		;
	if (session)
		__atomic_store_n(&session->in_reports, 0, __ATOMIC_RELEASE);
	return session;
}
