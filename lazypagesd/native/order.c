/*
 * order.c: the order in which events that were pending together took place.
 *
 * Some facts (fs/userfaultfd.c, and tried): events are read in the order in
 * which they were queued, but that is not quite the order in which they took
 * place.
 *
 * - An operation changes the mappings, and only then queues its event (REMOVE:
 *   the other way round).  In between another thread may be given the place
 *   that was made free, move something there, and be the first to queue.
 * - An mremap() that moves queues REMAP, and once that has been read, UNMAP of
 *   the very range that it has left, where by now something else may live.
 *   It says nothing new, and is left out.
 * - From before an operation until after its event was read, the kernel
 *   answers EAGAIN (and so to every fill).  Once it does not, no event is
 *   still to come of anything that was begun before.
 *
 * So events are gathered until the address space is quiet.  Then a move to
 * where something still is has to wait for the event that made room there.
 * The mappings of a forked child, which has run no step yet, tell what came
 * before the fork and what after.
 */
#include "internal.h"

/* The range that an event makes free; false if it makes none. */
static bool frees(const struct lpd_message *event, uint64_t *ret_start,
		  uint64_t *ret_end)
{
	switch (event->kind) {
	case LPD_MESSAGE_UNMAP:
		*ret_start = event->range.start;
		*ret_end = event->range.end;
		return true;
	case LPD_MESSAGE_REMAP:
		*ret_start = event->remap.from;
		*ret_end = event->remap.from + event->remap.len;
		return true;
	default:
		return false;
	}
}

/* Must `other`, not yet done with, take effect before `event` can? */
static bool waits_for(const struct lpd_session *session,
		      const struct lpd_message *event,
		      const struct lpd_message *other)
{
	uint64_t start, end;

	switch (event->kind) {
	case LPD_MESSAGE_REMAP:
		if (frees(other, &start, &end) &&
		    lpd_state_occupied(session->state,
				       lpd_max(start, event->remap.to),
				       lpd_min(end, event->remap.to +
							    event->remap.len)))
			return true;
		break;
	case LPD_MESSAGE_FORK:
		/* What the child has not got was gone before. */
		return frees(other, &start, &end) &&
		       lpd_uffd_registered(event->child_fd, start) == 0;
	default:
		break;
	}
	/* What the child has was there after the fork. */
	return other->kind == LPD_MESSAGE_FORK && frees(event, &start, &end) &&
	       lpd_uffd_registered(other->child_fd, start) == 1;
}

static bool may_be_next(const struct lpd_session *session, unsigned int i,
			unsigned int first)
{
	struct lpd_message event =
		lpd_session_message(session, session->state->order[i]);

	for (unsigned int j = first; j < session->nr_events; j++) {
		struct lpd_message other =
			lpd_session_message(session, session->state->order[j]);

		if (j != i && waits_for(session, &event, &other))
			return false;
	}
	return true;
}

void lpd_order_next(struct lpd_session *session, unsigned int first)
{
	uint16_t *order = session->state->order;
	unsigned int next = first;

	while (next < session->nr_events && !may_be_next(session, next, first))
		next++;
	/* They wait for each other: as they were read, then. */
	if (next == session->nr_events)
		return;

	uint16_t event = order[next];
	for (unsigned int i = next; i > first; i--)
		order[i] = order[i - 1];
	order[first] = event;
}

static bool echoes(const struct lpd_message *unmap,
		   const struct lpd_message *remap)
{
	return unmap->kind == LPD_MESSAGE_UNMAP &&
	       remap->kind == LPD_MESSAGE_REMAP &&
	       unmap->range.start == remap->remap.from &&
	       unmap->range.end == remap->remap.from + remap->remap.len;
}

unsigned int lpd_order_drop_echoes(struct lpd_session *session)
{
	bool echoed[LPD_MAX_MESSAGES] = {false};
	uint16_t *order = session->state->order;
	unsigned int nr_kept = 0, nr_events = session->nr_events;

	for (unsigned int i = 0; i < nr_events; i++) {
		struct lpd_message event =
			lpd_session_message(session, order[i]);
		bool echo = false;

		for (unsigned int j = 0; j < nr_kept && !echo; j++) {
			struct lpd_message other =
				lpd_session_message(session, order[j]);

			echo = !echoed[j] && echoes(&event, &other);
			echoed[j] |= echo;
		}
		if (!echo)
			order[nr_kept++] = order[i];
	}
	session->nr_events = nr_kept;
	return nr_events - nr_kept;
}
