/*
 * control.c: what the control plane and a session's worker say to each other:
 * requests by way of the worker's inbox, reports by way of its list.
 */
#include <errno.h>

#include "internal.h"

void lpd_session_request(struct lpd_session *session, uint32_t request)
{
	struct lpd_worker *worker = session->worker;

	/* Pairs with the acquire in roster.c, which takes the bits. */
	__atomic_fetch_or(&session->request, request, __ATOMIC_RELEASE);
	if (!__atomic_exchange_n(&session->in_inbox, 1, __ATOMIC_ACQ_REL))
		lpd_session_push(&worker->inbox, session,
				 &session->next_in_inbox);
	lpd_worker_wake(worker);
}

int lpd_session_is_gone(const struct lpd_session *session)
{
	const struct lpd_protocol *protocol =
		lpd_protocol_get(session->state->protocol);

	return protocol->probe(session->fd) == -ESRCH;
}

uint32_t lpd_session_take_status(struct lpd_session *session)
{
	return __atomic_exchange_n(&session->status, 0, __ATOMIC_ACQUIRE);
}

void lpd_session_hold(struct lpd_session *session, struct lpd_trouble trouble)
{
	uint32_t written = session->troubles_written;
	/* Pairs with the release in lpd_session_take_trouble(). */
	uint32_t taken =
		__atomic_load_n(&session->troubles_taken, __ATOMIC_ACQUIRE);

	if (trouble.waiting)
		LPD_COUNT(session->state->counters.held, 1);
	/* A page too many is still counted in held. */
	if (written - taken < LPD_MAX_TROUBLES) {
		session->troubles[written % LPD_MAX_TROUBLES] = trouble;
		__atomic_store_n(&session->troubles_written, written + 1,
				 __ATOMIC_RELEASE);
	}
	lpd_session_report(session, LPD_STATUS_TROUBLE);
}

int lpd_session_take_trouble(struct lpd_session *session,
			     struct lpd_trouble *ret_trouble)
{
	uint32_t taken = session->troubles_taken;

	/* Pairs with the release in lpd_session_hold(). */
	if (taken ==
	    __atomic_load_n(&session->troubles_written, __ATOMIC_ACQUIRE))
		return -ENOENT;
	*ret_trouble = session->troubles[taken % LPD_MAX_TROUBLES];
	__atomic_store_n(&session->troubles_taken, taken + 1, __ATOMIC_RELEASE);
	return 0;
}
