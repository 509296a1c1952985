/*
 * worker.c: a thread that owns sessions: nobody else reads their descriptors
 * or fills their pages, so that fills and events cannot overtake each other.
 *
 * A turn of its loop: serve every session that has messages; then let the
 * next session in the ring of those that have work do one bounded piece of
 * it.  It sleeps only when that ring is empty.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fill.h"
#include "helper.h"
#include "roster.h"

#define MAX_READY 64

/*
 * Fills that get EAGAIN are tried again at once, so often after the last
 * message; then once a millisecond.
 */
#define MAX_SPINS 1000
#define NAP_NS    1000000

void lpd_worker_wake(struct lpd_worker *worker)
{
	uint64_t one = 1;

	/* Cannot fail: the count stays far below its limit. */
	(void)!write(worker->inbox_fd, &one, sizeof(one));
}

/* Until when is the session to be left alone?  0: it could do something. */
static uint64_t nap_until(struct lpd_session *session, enum lpd_outcome outcome)
{
	if (outcome == LPD_FILLED && !session->nr_hot) {
		session->nr_spins = 0;
		return 0;
	}
	if (session->not_before_ns)
		return session->not_before_ns;
	if (outcome == LPD_PACED && !session->nr_hot)
		return session->pace.due_ns;
	/* Who holds us up with an event may be waiting for this very CPU. */
	if (session->nr_spins++ < MAX_SPINS) {
		sched_yield();
		return 0;
	}
	return lpd_now_ns() + NAP_NS;
}

/* One turn of the session whose turn it is. */
static void step(struct lpd_worker *worker)
{
	struct lpd_session *session = worker->active;
	enum lpd_outcome outcome = LPD_FILLED;

	worker->active = session->next_active;
	session->insist_until_ns = 0;
	if (session->detaching) {
		lpd_roster_detach(worker, session);
		return;
	}
	if (session->paused || session->finished) {
		lpd_session_deactivate(worker, session);
		return;
	}
	if (session->must_read || session->nr_pending)
		outcome = lpd_session_serve(worker, session);
	if (outcome == LPD_FILLED)
		outcome = lpd_hugetlb_go_on(worker, session);
	if (outcome == LPD_FILLED && lpd_background_wanted(session)) {
		outcome = lpd_session_too_early(session)
				  ? LPD_LATER
				  : lpd_background_step(worker, session);
		/* What got EAGAIN is tried again after a read only. */
		session->must_read |= outcome == LPD_AGAIN;
	}
	/* Who comes again at once may not have had what was read for him. */
	if (outcome != LPD_AGAIN)
		lpd_reads_release(worker, session);

	uint64_t until_ns = nap_until(session, outcome);
	uint32_t nr_idle_steps = until_ns ? worker->nr_idle_steps + 1 : 0;

	worker->nap_until_ns = lpd_min(worker->nap_until_ns, until_ns);
	lpd_roster_settle(worker, session, outcome);
	/* That it stays in the ring is no news to those who wait there. */
	worker->nr_idle_steps = nr_idle_steps;
}

/* Until when is there nothing to do but to wait?  0: there is something. */
static uint64_t wait_until(struct lpd_worker *worker)
{
	if (!worker->active)
		return UINT64_MAX;
	if (worker->nr_idle_steps < worker->nr_active)
		return 0;

	uint64_t until_ns = worker->nap_until_ns;
	/* Whatever ends it, all are asked then. */
	worker->nr_idle_steps = 0;
	worker->nap_until_ns = UINT64_MAX;
	return until_ns;
}

/* Count a turn; it ends now. */
static void end_turn(struct lpd_worker *worker, uint64_t began_ns)
{
	worker->now_ns = lpd_now_ns();

	uint64_t ns = worker->now_ns - began_ns;

	LPD_COUNT(worker->busy_ns, ns);
	if (ns > worker->longest_turn_ns)
		LPD_COUNT(worker->longest_turn_ns,
			  ns - worker->longest_turn_ns);
}

int lpd_worker_run(struct lpd_worker *worker)
{
	struct epoll_event ready[MAX_READY];

	worker->now_ns = lpd_now_ns();
	__atomic_store_n(&worker->began_ns, worker->now_ns, __ATOMIC_RELAXED);
	while (!__atomic_load_n(&worker->stop, __ATOMIC_ACQUIRE)) {
		bool inbox = false;
		uint64_t until_ns = wait_until(worker);
		int n = until_ns ? lpd_worker_wait(worker, ready, MAX_READY,
						   until_ns)
				 : epoll_wait(worker->epoll_fd, ready,
					      MAX_READY, 0);

		/* Who has not waited has been at it since the last turn. */
		uint64_t began_ns = worker->now_ns;

		LPD_COUNT(worker->nr_turns, 1);
		if (n < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < n; i++) {
			if (ready[i].data.ptr)
				lpd_roster_serve(worker, ready[i].data.ptr);
			else
				inbox = true;
		}
		worker->has_served = n > inbox;
		/* Last: a session may be freed once it is detached. */
		if (inbox)
			lpd_roster_take_inbox(worker);
		if (worker->active)
			step(worker);
		end_turn(worker, began_ns);
	}
	return 0;
}

void lpd_worker_stop(struct lpd_worker *worker, uint32_t nr_readers)
{
	__atomic_store_n(&worker->stop, 1, __ATOMIC_RELEASE);
	lpd_worker_wake(worker);
	for (unsigned int i = 0; i < nr_readers; i++)
		lpd_reader_wake(worker);
	for (unsigned int i = 0; i < worker->nr_helpers; i++)
		lpd_helper_wake(&worker->helpers[i]);
}

int lpd_worker_init(struct lpd_worker *worker)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
	int helped = 0;

	for (unsigned int i = 0; i < worker->nr_helpers; i++)
		helped = lpd_helper_init(&worker->helpers[i]) ?: helped;
	worker->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	worker->inbox_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	worker->reads_fds[0] = worker->reads_fds[1] = -1;
	bool piped = pipe2(worker->reads_fds, O_CLOEXEC) == 0;
	worker->report_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (helped < 0 || worker->epoll_fd < 0 || worker->inbox_fd < 0 ||
	    !piped || worker->report_fd < 0 ||
	    epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, worker->inbox_fd,
		      &event) < 0) {
		int rc = -errno;

		lpd_worker_deinit(worker);
		return rc;
	}
	return 0;
}

void lpd_worker_deinit(struct lpd_worker *worker)
{
	int32_t *fds[] = {&worker->epoll_fd, &worker->inbox_fd,
			  &worker->reads_fds[0], &worker->reads_fds[1],
			  &worker->report_fd};

	for (unsigned int i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
	for (unsigned int i = 0; i < worker->nr_helpers; i++)
		lpd_helper_deinit(&worker->helpers[i]);
}
