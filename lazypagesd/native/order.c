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
 *   It says nothing new, and is left out.  One that shrinks as well queues
 *   then, too, UNMAP of the tail that it had cut off first of all.
 * - From before an operation until after its event was read, the kernel
 *   answers EAGAIN (and so to every fill).  Once it does not, no event is
 *   still to come of anything that was begun before.
 *
 * So events are gathered until the address space is quiet.  Then a move to
 * where something still is has to wait for the event that made room there.
 * The mappings of a forked child, which has run no step yet, tell what came
 * before the fork and what after, where the order of reading is deceptive.
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

/* Take order[from] to place `to`, before those that were there. */
static void insert(uint16_t *order, unsigned int to, unsigned int from)
{
	uint16_t event = order[from];

	for (unsigned int i = from; i > to; i--)
		order[i] = order[i - 1];
	order[to] = event;
}

static struct lpd_message event_at(const struct lpd_session *session,
				   unsigned int i)
{
	return lpd_session_message(session, session->state->order[i]);
}

/* ---- a move to where something still is waits for room ---- */

/* The first event from `first` on that order[i] has to wait for, or i. */
static unsigned int find_blocker(const struct lpd_session *session,
				 unsigned int i, unsigned int first)
{
	struct lpd_message event = event_at(session, i);

	for (unsigned int j = first;
	     event.kind == LPD_MESSAGE_REMAP && j < session->nr_events; j++) {
		struct lpd_message other = event_at(session, j);
		uint64_t start, end;

		if (j != i && frees(&other, &start, &end) &&
		    lpd_state_occupied(session->state,
				       lpd_max(start, event.remap.to),
				       lpd_min(end, event.remap.to +
							    event.remap.len)))
			return j;
	}
	return i;
}

void lpd_order_next(struct lpd_session *session, unsigned int first)
{
	unsigned int next = first;

	for (unsigned int i = first; i < session->nr_events; i++) {
		unsigned int blocker = find_blocker(session, next, first);

		if (blocker == next) {
			insert(session->state->order, first, next);
			return;
		}
		next = blocker;
	}
	/* They wait for each other: as they were read, then. */
}

/* ---- a fork among other events ---- */

/* 1, 0, or an error when the child is already at work and cannot be asked. */
static int is_registered(int child_fd, uint64_t addr)
{
	return lpd_uffd_registered(child_fd, addr, LPD_PAGE_SIZE);
}

/*
 * Did an event that was read next to the FORK, before it or after it, take
 * place on the other side of it?  Only of its neighbours can that be asked:
 * what is further off may have been followed by something else at its place.
 */
static bool before_fork(const struct lpd_message *event, int child_fd)
{
	uint64_t start, end;

	if (!frees(event, &start, &end) || is_registered(child_fd, start) != 0)
		return false;
	return event->kind == LPD_MESSAGE_UNMAP ||
	       is_registered(child_fd, event->remap.to) == 1;
}

static bool after_fork(const struct lpd_message *event, int child_fd)
{
	/* Where something was unmapped, something else may have grown. */
	return event->kind == LPD_MESSAGE_REMAP &&
	       is_registered(child_fd, event->remap.from) == 1 &&
	       is_registered(child_fd, event->remap.to) == 0;
}

static void place_fork(struct lpd_session *session, unsigned int i)
{
	uint16_t *order = session->state->order;
	int child_fd = event_at(session, i).child_fd;

	for (; i > 0; i--) {
		struct lpd_message before = event_at(session, i - 1);

		if (!after_fork(&before, child_fd))
			break;
		insert(order, i - 1, i);
	}
	for (; i + 1 < session->nr_events; i++) {
		struct lpd_message after = event_at(session, i + 1);

		if (!before_fork(&after, child_fd))
			break;
		insert(order, i, i + 1);
	}
}

/* ---- events that come late ---- */

/* What an UNMAP is to a REMAP that was read before it. */
enum relation {
	STRANGER,
	ECHO, /* the range that the move has left */
	TAIL, /* what a move that shrinks has cut off, before it moved */
};

static enum relation relation_to(const struct lpd_message *unmap,
				 const struct lpd_message *remap)
{
	if (unmap->kind != LPD_MESSAGE_UNMAP ||
	    remap->kind != LPD_MESSAGE_REMAP)
		return STRANGER;

	uint64_t from = remap->remap.from, from_end = from + remap->remap.len;
	if (unmap->range.start == from && unmap->range.end == from_end)
		return ECHO;
	return unmap->range.start == from_end ? TAIL : STRANGER;
}

/* The last REMAP among order[0 ... n) that the event belongs to, and how. */
static enum relation find_remap(const struct lpd_session *session,
				const struct lpd_message *event, unsigned int n,
				const bool *echoed, unsigned int *ret_i)
{
	for (unsigned int i = n; i-- > 0;) {
		struct lpd_message other = event_at(session, i);
		enum relation relation = relation_to(event, &other);

		if (relation == STRANGER ||
		    (relation == ECHO && echoed[session->state->order[i]]))
			continue;
		*ret_i = i;
		return relation;
	}
	return STRANGER;
}

unsigned int lpd_order_arrange(struct lpd_session *session)
{
	bool echoed[LPD_MAX_MESSAGES] = {false};
	uint16_t *order = session->state->order;
	unsigned int nr_events = session->nr_events, nr_kept = 0;

	for (unsigned int i = 0, j; i < nr_events; i++) {
		struct lpd_message event = event_at(session, i);

		switch (find_remap(session, &event, nr_kept, echoed, &j)) {
		case ECHO: /* says nothing new, and is left out */
			echoed[order[j]] = true;
			break;
		case TAIL:
			order[nr_kept] = order[i];
			insert(order, j, nr_kept++);
			break;
		case STRANGER:
			order[nr_kept++] = order[i];
			break;
		}
	}
	session->nr_events = nr_kept;
	for (unsigned int i = 0; i < nr_kept; i++)
		if (event_at(session, i).kind == LPD_MESSAGE_FORK)
			place_fork(session, i);
	return nr_events - nr_kept;
}
