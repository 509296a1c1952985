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
#include <errno.h>

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

	for (unsigned int i = from; i > to; i--) {
		order[i] = order[i - 1];
		lpd_crash_point("reordered");
	}
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
	uint64_t to = event.remap.to, to_end = to + event.remap.len;

	if (event.kind != LPD_MESSAGE_REMAP ||
	    !lpd_state_occupied(session->state, to, to_end))
		return i;
	for (unsigned int j = first; j < session->nr_events; j++) {
		struct lpd_message other = event_at(session, j);
		uint64_t start, end;

		if (j != i && frees(&other, &start, &end) &&
		    lpd_state_occupied(session->state, lpd_max(start, to),
				       lpd_min(end, to_end)))
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

/* ---- arranging a round ---- */

/* The events of a round while they are arranged. */
struct round {
	int fd;
	unsigned int nr_events;
	uint16_t *order;
	const uint64_t *read_starts;
	/* By message: decoded, for there can be many looks at each, */
	struct lpd_message messages[LPD_MAX_MESSAGES];
	/* and the echo of a move; 0 if it has left its range mapped. */
	uint16_t echoes[LPD_MAX_MESSAGES];
};

static const struct lpd_message *at(const struct round *round, unsigned int i)
{
	return &round->messages[round->order[i]];
}

/* ---- a fork among other events ---- */

/*
 * 1, 0, or an error when the process is at work and cannot be asked.  The
 * kernel finds nothing either while an operation that has just begun takes it
 * away, so 0 is believed only if there is none afterwards.
 */
static int is_registered(int fd, uint64_t addr, uint64_t len)
{
	int rc = lpd_uffd_registered(fd, addr, len);

	return rc ? rc : lpd_uffd_probe(fd);
}

/*
 * Did an event that was read next to the FORK, before it or after it, take
 * place on the other side of it?  Only of its neighbours can that be asked:
 * what is further off may have been followed by something else at its place.
 */
static bool before_fork(const struct lpd_message *event, int child_fd)
{
	uint64_t start, end;

	if (!frees(event, &start, &end) ||
	    is_registered(child_fd, start, LPD_PAGE_SIZE) != 0)
		return false;
	return event->kind == LPD_MESSAGE_UNMAP ||
	       is_registered(child_fd, event->remap.to, LPD_PAGE_SIZE) == 1;
}

/* Were two messages, by their numbers, brought by one read? */
static bool read_together(const struct round *round, unsigned int first,
			  unsigned int second)
{
	for (unsigned int i = first + 1; i <= second; i++)
		if (round->read_starts[i / 64] >> i % 64 & 1)
			return false;
	return true;
}

/*
 * The same of the event order[i - 1], which was read before the FORK order[i].
 *
 * A move without an echo has left its range mapped, in the child as well, and
 * once it has been read its thread may keep from the child what it has moved.
 * So of such a one the child's mappings say something only if neither can have
 * gone on before the other was read.
 */
static bool after_fork(const struct round *round, unsigned int i)
{
	const struct lpd_message *event = at(round, i - 1);
	unsigned int number = round->order[i - 1];
	int child_fd = at(round, i)->child_fd;

	/* Where something was unmapped, something else may have grown. */
	return event->kind == LPD_MESSAGE_REMAP &&
	       (round->echoes[number] ||
		read_together(round, number, round->order[i])) &&
	       is_registered(child_fd, event->remap.from, LPD_PAGE_SIZE) == 1 &&
	       is_registered(child_fd, event->remap.to, LPD_PAGE_SIZE) == 0;
}

static void place_fork(struct round *round, unsigned int i)
{
	int child_fd = at(round, i)->child_fd;

	for (; i > 0 && after_fork(round, i); i--)
		insert(round->order, i - 1, i);
	for (; i + 1 < round->nr_events &&
	       before_fork(at(round, i + 1), child_fd);
	     i++)
		insert(round->order, i, i + 1);
}

/* ---- events that come late ---- */

static bool is_unmap_from(const struct lpd_message *event, uint64_t start)
{
	return event->kind == LPD_MESSAGE_UNMAP && event->range.start == start;
}

/*
 * The last move among order[0 ... n) that has left what the UNMAP order[n]
 * tells of, and has had no echo yet; or n.
 */
static unsigned int find_echoing(const struct round *round, unsigned int n)
{
	const struct lpd_message *event = at(round, n);

	for (unsigned int i = n; i-- > 0;) {
		const struct lpd_message *move = at(round, i);

		if (move->kind == LPD_MESSAGE_REMAP &&
		    is_unmap_from(event, move->remap.from) &&
		    event->range.end == move->remap.from + move->remap.len &&
		    !round->echoes[round->order[i]])
			return i;
	}
	return n;
}

/* Leave out the echoes, which say nothing new, and note whose they are. */
static void drop_echoes(struct round *round)
{
	uint16_t *order = round->order;
	unsigned int nr_events = round->nr_events, nr_kept = 0;

	for (unsigned int i = 0; i < nr_events; i++) {
		order[nr_kept] = order[i];

		unsigned int move = find_echoing(round, nr_kept);
		if (move < nr_kept)
			round->echoes[order[move]] = order[i];
		else
			nr_kept++;
	}
	round->nr_events = nr_kept;
}

/*
 * The last move among order[0 ... n) whose tail the UNMAP order[n] tells of;
 * or n.  A tail is told between the move and its echo.
 */
static unsigned int find_shrinking(const struct round *round, unsigned int n)
{
	const uint16_t *order = round->order;

	for (unsigned int i = n; i-- > 0;) {
		const struct lpd_message *move = at(round, i);

		if (move->kind == LPD_MESSAGE_REMAP &&
		    is_unmap_from(at(round, n),
				  move->remap.from + move->remap.len) &&
		    order[n] < round->echoes[order[i]])
			return i;
	}
	return n;
}

/* Take each tail to before its move. */
static void hoist_tails(struct round *round)
{
	for (unsigned int i = 0; i < round->nr_events; i++)
		insert(round->order, find_shrinking(round, i), i);
}

/* ---- a place that was made free, of which the state knows nothing ---- */

/* Does an event bring something to addr (1), find it there (-1), or neither? */
static int bears_on(const struct lpd_message *event, uint64_t addr)
{
	uint64_t start, end;

	if (event->kind == LPD_MESSAGE_REMAP && event->remap.to <= addr &&
	    addr < event->remap.to + event->remap.len)
		return 1;
	if (event->kind == LPD_MESSAGE_REMOVE) {
		start = event->range.start;
		end = event->range.end;
	} else if (!frees(event, &start, &end)) {
		return 0;
	}
	return start <= addr && addr < end ? -1 : 0;
}

/*
 * Is something registered at addr, now that the address space is quiet, that
 * has not grown there from below?
 */
static int is_settled(int fd, uint64_t addr)
{
	int rc = is_registered(fd, addr, LPD_PAGE_SIZE);

	if (rc != 1)
		return rc;
	rc = is_registered(fd, addr - LPD_PAGE_SIZE, 2 * LPD_PAGE_SIZE);
	return rc < 0 ? rc : !rc;
}

/*
 * The move order[i] goes to a place that order[j], read later, has made free:
 * before the move, or of what the move had brought?  1: before; 0; or -EAGAIN
 * when more is on its way.
 *
 * In the latter case who made it free knew of the move, whose call had
 * returned, so that its echo had been read.  And then nothing is left there:
 * no later event finds it, and nor does the kernel, unless another event has
 * brought it, or it has grown there, of which nobody tells.  What the move has
 * brought is one mapping, so behind its first page that cannot be told apart;
 * of a move without an echo, whose end nothing tells, that it is one still says
 * more than that part of it may have been unmapped, and grown again, since.
 */
static int was_freed_before(const struct round *round, unsigned int i,
			    unsigned int j, uint64_t addr)
{
	const struct lpd_message *move = at(round, i);
	const uint16_t *order = round->order;
	unsigned int echo = round->echoes[order[i]];
	bool certain = order[j] < echo;

	/* What MREMAP_DONTUNMAP has left is still mapped. */
	if (at(round, j)->kind == LPD_MESSAGE_REMAP && !round->echoes[order[j]])
		return 0;
	for (unsigned int k = i + 1; k < round->nr_events; k++) {
		int bearing = k == j ? 0 : bears_on(at(round, k), addr);

		if (bearing)
			return k > j && bearing < 0 && (certain || !echo);
	}
	/* Not even then if the "echo" was another UNMAP. */
	if (certain)
		return is_registered(round->fd, addr, LPD_PAGE_SIZE);
	if (addr == move->remap.to)
		return is_settled(round->fd, addr);
	/* No echo tells when the call of MREMAP_DONTUNMAP has returned. */
	return echo ? 0
		    : is_registered(round->fd, move->remap.to, move->remap.len);
}

/*
 * Find room for the move order[i]: take what has made it before the move, and
 * return 1; or 0 if there is nothing of the kind, or -EAGAIN when more is on
 * its way.
 */
static int find_room(struct round *round, unsigned int i)
{
	const uint16_t *order = round->order;
	uint64_t to = at(round, i)->remap.to;
	uint64_t to_end = to + at(round, i)->remap.len;
	bool is_left = true;

	for (unsigned int j = i + 1; is_left && j < round->nr_events; j++) {
		uint64_t start, end;

		if (!frees(at(round, j), &start, &end) || start >= to_end ||
		    end <= to || order[j] < order[i])
			continue;

		int rc = was_freed_before(round, i, j, lpd_max(start, to));
		if (rc == 1)
			insert(round->order, i, j);
		if (rc == 1 || rc == -EAGAIN)
			return rc;
		/* It takes all away, so nothing behind it bears on this move.
		 */
		is_left = start > to || end < to_end;
	}
	return 0;
}

/* 0, or -EAGAIN when more is on its way. */
static int place_freed(struct round *round)
{
	for (unsigned int i = 0; i < round->nr_events; i++) {
		int rc;

		/* What is now in this place may in turn need room. */
		while (at(round, i)->kind == LPD_MESSAGE_REMAP &&
		       (rc = find_room(round, i)))
			if (rc < 0)
				return rc;
	}
	return 0;
}

bool lpd_order_arrange(struct lpd_session *session)
{
	struct round round; /* 17 KiB: not to be cleared for nothing */

	round.fd = session->fd;
	round.order = session->state->order;
	round.read_starts = session->read_starts;
	round.nr_events = session->nr_events;
	for (unsigned int i = 0; i < round.nr_events; i++) {
		round.messages[round.order[i]] = event_at(session, i);
		round.echoes[round.order[i]] = 0;
	}
	drop_echoes(&round);
	hoist_tails(&round);
	if (place_freed(&round) == -EAGAIN &&
	    session->nr_messages < LPD_MAX_MESSAGES)
		return false;
	for (unsigned int i = 0; i < round.nr_events; i++)
		if (at(&round, i)->kind == LPD_MESSAGE_FORK)
			place_fork(&round, i);
	LPD_COUNT(session->state->counters.events_unmap,
		  session->nr_events - round.nr_events);
	session->nr_events = round.nr_events;
	return true;
}
