/*
 * roster.c: the sessions of a worker: how they come, by its inbox, what
 * becomes of each after it was looked at, and how they go.
 */
#include <sys/epoll.h>
#include <unistd.h>

#include "fill.h"
#include "helper.h"
#include "roster.h"

/* All of user space that is ever mapped. */
#define WAKE_START 0x10000ull
#define WAKE_LEN   (0x7ffffffff000ull - WAKE_START)

static void watch(struct lpd_worker *worker, struct lpd_session *session,
		  int operation, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = session};

	/* Fails only for a descriptor that was vetted before: not at all. */
	(void)epoll_ctl(worker->epoll_fd, operation, session->fd, &event);
}

static void finish(struct lpd_worker *worker, struct lpd_session *session,
		   uint32_t status)
{
	session->finished = 1;
	lpd_session_deactivate(worker, session);
	watch(worker, session, EPOLL_CTL_DEL, 0);
	if (status == LPD_STATUS_DRAINED && session->protocol->conclude)
		session->protocol->conclude(session->fd);
	lpd_session_report(session, status);
}

static bool all_in(const struct lpd_session *session)
{
	return __atomic_load_n(&session->state->released, __ATOMIC_RELAXED) &&
	       !session->state->nr_missing && !session->nr_pending &&
	       !session->nr_messages;
}

void lpd_roster_settle(struct lpd_worker *worker, struct lpd_session *session,
		       enum lpd_outcome outcome)
{
	if (session->finished || session->detaching)
		return;
	if (outcome == LPD_GONE) {
		finish(worker, session, LPD_STATUS_GONE);
	} else if (session->paused || outcome == LPD_HELD) {
		/* Or its unread messages would keep us from sleeping. */
		watch(worker, session, EPOLL_CTL_MOD, 0);
		lpd_session_deactivate(worker, session);
	} else if (all_in(session)) {
		finish(worker, session, LPD_STATUS_DRAINED);
	} else if (session->must_read || session->nr_hot ||
		   lpd_background_wanted(session)) {
		lpd_session_activate(worker, session);
	} else {
		lpd_session_deactivate(worker, session);
	}
}

void lpd_roster_serve(struct lpd_worker *worker, struct lpd_session *session)
{
	session->insist_until_ns = 0;
	if (!session->paused && !session->finished && !session->detaching)
		lpd_roster_settle(worker, session,
				  lpd_session_serve(worker, session));
}

static void attach(struct lpd_worker *worker, struct lpd_session *session)
{
	session->protocol = lpd_protocol_get(session->state->protocol);
	lpd_session_find_messages(session);
	/* Before anything is filled: see channel.c. */
	if (session->protocol->confirm && session->state->last_event)
		session->protocol->confirm(session->fd,
					   session->state->last_event);
	watch(worker, session, EPOLL_CTL_ADD, EPOLLIN);
	lpd_roster_serve(worker, session);
}

/* Let everything that waits be faulted anew, and drain start over. */
static void retry(struct lpd_worker *worker, struct lpd_session *session)
{
	if (session->finished)
		return;
	session->stuck = 0;
	LPD_COUNT(session->state->counters.held,
		  -session->state->counters.held);
	session->protocol->wake(session->fd, WAKE_START, WAKE_LEN);
	lpd_roster_serve(worker, session);
}

void lpd_roster_detach(struct lpd_worker *worker, struct lpd_session *session)
{
	if (!session->finished)
		watch(worker, session, EPOLL_CTL_DEL, 0);
	session->finished = 1;
	session->detaching = 1;
	lpd_session_deactivate(worker, session);
	lpd_helpers_revoke(worker, session, 0, UINT64_MAX);
	if (!lpd_session_conclude(session))
		return;
	lpd_reads_release(worker, session);
	lpd_source_forget(worker, session);
	lpd_hugetlb_forget(worker, session, 0, UINT64_MAX);
	if (session->nr_reads || session->nr_jobs)
		return;

	lpd_session_detached(session);
}

static void resume(struct lpd_worker *worker, struct lpd_session *session)
{
	if (!session->paused)
		return;
	lpd_session_resume(session);
	if (session->detaching) {
		lpd_roster_detach(worker, session);
		return;
	}
	watch(worker, session, EPOLL_CTL_MOD, EPOLLIN);
	lpd_roster_serve(worker, session);
}

static void obey(struct lpd_worker *worker, struct lpd_session *session,
		 uint32_t request)
{
	if (request & LPD_REQUEST_ATTACH)
		attach(worker, session);
	if (request & LPD_REQUEST_RESUME)
		resume(worker, session);
	if (request & LPD_REQUEST_RETRY)
		retry(worker, session);
	if (request & LPD_REQUEST_DRAIN) {
		/* At the new rate, of which helpers know nothing. */
		lpd_helpers_revoke(worker, session, 0, UINT64_MAX);
		lpd_roster_serve(worker, session);
	}
	if (request & LPD_REQUEST_DETACH)
		lpd_roster_detach(worker, session);
}

void lpd_roster_take_inbox(struct lpd_worker *worker)
{
	struct lpd_session *session, *next;
	uint64_t count;

	/* Before the inbox, or a later request could go unseen. */
	(void)!read(worker->inbox_fd, &count, sizeof(count));
	session = __atomic_exchange_n(&worker->inbox, NULL, __ATOMIC_ACQUIRE);
	for (; session; session = next) {
		next = session->next_in_inbox;
		__atomic_store_n(&session->in_inbox, 0, __ATOMIC_RELEASE);
		obey(worker, session,
		     __atomic_exchange_n(&session->request, 0,
					 __ATOMIC_ACQUIRE));
	}
	lpd_reads_collect(worker);
	lpd_helpers_collect(worker);
}
