/*
 * session.c: one round of a session: read every message that is there, let
 * the events take effect, answer the faults.
 *
 * Some facts about the order of messages: the kernel hands out faults before
 * other events, so a fault can be read before the REMOVE that caused it, in
 * the same read or the one before.  Whoever causes an event sleeps until the
 * event has been read, and until then every fill answers EAGAIN.  So once a
 * read has brought an event, no fill may happen before that event has taken
 * effect; and a fill that got EAGAIN is tried again only after a further
 * read.  See docs/explanation/architecture.md.
 */
#include <errno.h>

#include "fill.h"
#include "helper.h"

/*
 * Moments in which a fill gets no EAGAIN can be few, so that one that was
 * waited for is used to fill so much at once.  Also before the restore has
 * finished: it is all of one region, and so of a mapping that is in place.
 */
#define MAX_RETRY_PAGES 256

/* Of a turn, spent on attempts that get EAGAIN. */
#define INSIST_NS 20000

static uint8_t *message_at(const struct lpd_session *session, unsigned int i)
{
	return session->state->messages +
	       (size_t)i * session->protocol->message_size;
}

struct lpd_message lpd_session_message(const struct lpd_session *session,
				       unsigned int i)
{
	return session->protocol->decode(message_at(session, i));
}

static void set_cursor(struct lpd_state *state, unsigned int cursor)
{
	struct lpd_commit commit = lpd_state_commit(state);

	commit.cursor = cursor;
	lpd_state_set_commit(state, commit);
}

/* For how many messages is there room, here and for what becomes of them? */
static unsigned int nr_readable(const struct lpd_session *session)
{
	unsigned int nr_free = LPD_MAX_MESSAGES - session->nr_messages;

	/* Where a fault that cannot be kept cannot be given back for sure. */
	return session->protocol->in_order
		       ? lpd_min(nr_free, LPD_MAX_PENDING - session->nr_pending)
		       : nr_free;
}

/* Add to the round what can be read; 0, or -errno. */
static int read_more(struct lpd_session *session)
{
	unsigned int first = session->nr_messages;
	unsigned int nr_max = nr_readable(session);

	if (!nr_max)
		return 0;
	session->state->read_starts[first / 64] |= 1ull << first % 64;
	int n = session->protocol->read(session->fd, message_at(session, first),
					nr_max, &session->state->last_event);
	if (n < 0)
		return n == -EAGAIN ? 0 : n;
	lpd_crash_point("read");
	if (!first)
		session->read_ns = lpd_now_ns();
	session->nr_messages += n;
	session->nr_spins = 0;
	return 0;
}

/* List the events among the messages that have not been looked at. */
static void list_events(struct lpd_session *session)
{
	for (; session->nr_listed < session->nr_messages;
	     session->nr_listed++) {
		enum lpd_message_kind kind =
			lpd_session_message(session, session->nr_listed).kind;

		if (kind == LPD_MESSAGE_FAULT || kind == LPD_MESSAGE_PART)
			continue;
		session->state->order[session->nr_events++] =
			session->nr_listed;
		/* What else is under way bears on where these lead to. */
		if (kind != LPD_MESSAGE_REMOVE)
			session->wants_quiet = !session->protocol->in_order;
	}
}

/* Read on, and list the events: once there is one, no helper fills. */
static int read_messages(struct lpd_session *session)
{
	struct lpd_worker *worker = session->worker;

	lpd_helpers_suspend(worker, session);
	int rc = read_more(session);
	list_events(session);
	/* Of what an event says, helpers know nothing: see jobs.c. */
	if (rc < 0 || session->nr_events)
		lpd_helpers_revoke(worker, session, 0, UINT64_MAX);
	else
		lpd_helpers_resume(worker, session);
	return rc;
}

/* Ready for the next round: no message, and none of them counted. */
static void drop_messages(struct lpd_session *session)
{
	lpd_state_clear_messages(session->state, session->nr_messages,
				 session->protocol->message_size);
	session->nr_messages = 0;
	session->nr_listed = 0;
	session->nr_events = 0;
	session->wants_quiet = 0;
	session->nr_questions = 0;
}

static void begin_fork(struct lpd_session *session, int child_fd)
{
	LPD_COUNT(session->state->counters.events_fork, 1);
	session->paused = 1;
	__atomic_store_n(&session->child_fd, child_fd, __ATOMIC_RELAXED);
	lpd_crash_point("forked");
	lpd_session_report(session, LPD_STATUS_FORKED);
}

/* Huge pages that an event is about are others now. */
static void forget_huge(struct lpd_session *session,
			const struct lpd_message *message)
{
	struct lpd_worker *worker = session->worker;

	if (message->kind == LPD_MESSAGE_REMAP) {
		uint64_t len = message->remap.len;

		lpd_hugetlb_forget(worker, session, message->remap.from,
				   message->remap.from + len);
		lpd_hugetlb_forget(worker, session, message->remap.to,
				   message->remap.to + len);
	} else if (message->kind == LPD_MESSAGE_UNKNOWN) {
		lpd_hugetlb_forget(worker, session, 0, UINT64_MAX);
	} else {
		lpd_hugetlb_forget(worker, session, message->range.start,
				   message->range.end);
	}
}

/* Let one event take effect, and count it as done with, at once. */
static void apply_event(struct lpd_session *session,
			const struct lpd_message *message, unsigned int cursor)
{
	struct lpd_state *state = session->state;
	struct lpd_counters *counters = &state->counters;
	uint64_t dropped = 0;

	switch (message->kind) {
	case LPD_MESSAGE_FAULT: /* no event */
	case LPD_MESSAGE_PART:
		return;
	case LPD_MESSAGE_FORK:
		/* Disowned by whoever served it before. */
		if (message->child_fd < 0)
			set_cursor(state, cursor);
		else
			begin_fork(session, message->child_fd);
		return;
	case LPD_MESSAGE_REMAP:
		dropped = lpd_state_remap(state, message->remap.from,
					  message->remap.to, message->remap.len,
					  cursor);
		LPD_COUNT(counters->events_remap, 1);
		break;
	case LPD_MESSAGE_REMOVE:
		dropped = lpd_state_mark(state, message->range.start,
					 message->range.end);
		lpd_crash_point("removed");
		LPD_COUNT(counters->events_remove, 1);
		set_cursor(state, cursor);
		break;
	case LPD_MESSAGE_UNMAP:
		dropped = lpd_state_unmap(state, message->range.start,
					  message->range.end);
		lpd_crash_point("unmapped");
		LPD_COUNT(counters->events_unmap, 1);
		set_cursor(state, cursor);
		break;
	case LPD_MESSAGE_UNKNOWN:
		LPD_COUNT(counters->events_unknown, 1);
		set_cursor(state, cursor);
		break;
	}
	LPD_COUNT(counters->pages_dropped, dropped);
	lpd_account_event(session, message);
	forget_huge(session, message);
	session->absent_addr = 0;
	session->stuck = 0;
}

/* False if a FORK has paused the session. */
static bool apply_events(struct lpd_session *session)
{
	for (unsigned int i = lpd_state_commit(session->state).cursor;
	     i < session->nr_events; i++) {
		if (!session->protocol->in_order)
			lpd_order_next(session, i);

		struct lpd_message message =
			lpd_session_message(session, session->state->order[i]);

		lpd_crash_point("event");
		apply_event(session, &message, i + 1);
		lpd_crash_point("counted");
		if (session->paused) {
			/* The FORK itself is not done with. */
			set_cursor(session->state, i);
			return false;
		}
	}
	return true;
}

/* Keep a fault to be tried again; one entry serves all threads at a page. */
static void pend(struct lpd_session *session, struct lpd_pending fault)
{
	for (unsigned int i = 0; i < session->nr_pending; i++)
		if (session->pending[i].addr == fault.addr)
			return;
	if (session->nr_pending < LPD_MAX_PENDING) {
		session->pending[session->nr_pending++] = fault;
		return;
	}
	/* The kernel keeps what we cannot: it will be read once more. */
	LPD_COUNT(session->state->counters.requeues, 1);
	session->protocol->wake(session->fd, fault.addr, LPD_PAGE_SIZE);
}

/* Is a fault that ended so to be tried again, with nobody to say when? */
static bool is_hot(enum lpd_outcome outcome)
{
	return outcome == LPD_AGAIN || outcome == LPD_LATER;
}

/* Is a fault that ended so to be kept? */
static bool to_be_kept(enum lpd_outcome outcome)
{
	return is_hot(outcome) || outcome == LPD_MISSED;
}

static enum lpd_outcome answer_faults(struct lpd_worker *worker,
				      struct lpd_session *session)
{
	struct lpd_counters *counters = &session->state->counters;

	for (unsigned int i = 0; i < session->nr_messages; i++) {
		struct lpd_message message = lpd_session_message(session, i);

		if (message.kind != LPD_MESSAGE_FAULT)
			continue;

		struct lpd_pending fault = {.addr = message.fault.addr,
					    .tid = message.fault.tid,
					    .read_ns = session->read_ns,
					    .source = UINT32_MAX};
		enum lpd_outcome outcome =
			lpd_fill_fault(worker, session, &fault, 1);
		LPD_COUNT(counters->faults, 1);
		if (outcome == LPD_GONE)
			return outcome;
		if (outcome == LPD_MISSED)
			LPD_COUNT(counters->misses, 1);
		if (to_be_kept(outcome))
			pend(session, fault);
		/* It may be too early for retry_pending() to count it. */
		session->nr_hot += is_hot(outcome);
	}
	return LPD_FILLED;
}

bool lpd_session_insists(struct lpd_session *session)
{
	uint64_t now = lpd_now_ns();

	if (!session->insist_until_ns)
		session->insist_until_ns = now + INSIST_NS;
	return now < session->insist_until_ns;
}

bool lpd_session_too_early(struct lpd_session *session)
{
	if (session->not_before_ns && lpd_now_ns() < session->not_before_ns)
		return true;
	session->not_before_ns = 0;
	return false;
}

/* Try the pending faults again, keep those that still cannot be answered. */
static enum lpd_outcome retry_pending(struct lpd_worker *worker,
				      struct lpd_session *session)
{
	unsigned int nr_tried = session->nr_pending, nr_hot = 0;

	if (lpd_session_too_early(session))
		return LPD_FILLED;
	session->nr_pending = 0;
	for (unsigned int i = 0; i < nr_tried; i++) {
		struct lpd_pending fault = session->pending[i];
		/* The page itself in any case: faults are never paced. */
		uint64_t max_pages = lpd_max(lpd_background_budget(session), 1);
		enum lpd_outcome outcome =
			lpd_fill_fault(worker, session, &fault,
				       lpd_min(max_pages, MAX_RETRY_PAGES));

		if (outcome == LPD_GONE)
			return outcome;
		if (to_be_kept(outcome))
			session->pending[session->nr_pending++] = fault;
		nr_hot += is_hot(outcome);
		/*
		 * What holds up one fill holds up all, and ends for a moment:
		 * then the bytes are to be at hand, those of the same fault.
		 */
		if (outcome == LPD_AGAIN)
			while (++i < nr_tried)
				session->pending[session->nr_pending++] =
					session->pending[i];
	}
	session->nr_hot = nr_hot;
	return LPD_FILLED;
}

/* The descriptor answered what no userfaultfd does: nothing can be done. */
static enum lpd_outcome unreadable(struct lpd_session *session, int rc)
{
	lpd_session_hold(session, (struct lpd_trouble){.source = UINT32_MAX,
						       .err = -rc,
						       .waiting = 1});
	return LPD_HELD;
}

/* Is the round to wait for events that are on their way? */
static bool is_changing(const struct lpd_session *session)
{
	/*
	 * One that is gone (ESRCH) may have forked before that.  A full buffer
	 * cannot wait for more: that is as good as it gets.
	 */
	return session->wants_quiet &&
	       session->nr_messages < LPD_MAX_MESSAGES &&
	       session->protocol->probe(session->fd) == -EAGAIN;
}

/*
 * Read on until no further event can be on its way, and put those that came
 * into order: LPD_FILLED when all is ready, LPD_AGAIN when it is not yet.
 */
static enum lpd_outcome gather(struct lpd_session *session)
{
	bool changing;

	do {
		int rc = read_messages(session);

		if (rc == -ESRCH)
			return LPD_GONE;
		if (rc < 0)
			return unreadable(session, rc);
		changing = is_changing(session);
	} while (changing && lpd_session_insists(session));
	if (changing)
		return LPD_AGAIN;
	lpd_room_ask(session);
	if (session->wants_quiet && !lpd_order_arrange(session)) {
		/* What it has done to the list is to be done anew. */
		session->nr_listed = 0;
		session->nr_events = 0;
		return LPD_AGAIN;
	}
	if (session->nr_events) {
		lpd_state_keep_arrangement(session->state, session->nr_events);
		lpd_crash_point("arranged");
	}
	return LPD_FILLED;
}

enum lpd_outcome lpd_session_serve(struct lpd_worker *worker,
				   struct lpd_session *session)
{
	/* Events may have taken effect before a FORK, or an end, made us pause.
	 */
	bool resumed = session->state->nr_arranged > 0;
	enum lpd_outcome outcome = resumed ? LPD_FILLED : gather(session);

	session->must_read = outcome == LPD_AGAIN || resumed ||
			     session->nr_messages == LPD_MAX_MESSAGES;
	if (outcome != LPD_FILLED || !apply_events(session))
		return outcome;
	/* No event has come since that page got ENOENT: see attempt.c. */
	if (!session->nr_events && session->absent_addr)
		session->absent_confirmed = 1;
	if (answer_faults(worker, session) == LPD_GONE)
		return LPD_GONE;
	drop_messages(session);
	return retry_pending(worker, session);
}

bool lpd_session_conclude(struct lpd_session *session)
{
	return !session->paused && apply_events(session);
}

void lpd_session_resume(struct lpd_session *session)
{
	struct lpd_commit commit = lpd_state_commit(session->state);

	lpd_crash_point("resumed");
	lpd_account_fork(session);
	session->paused = 0;
	set_cursor(session->state, commit.cursor + 1);
	session->must_read = 1;
}
