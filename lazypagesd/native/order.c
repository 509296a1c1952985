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
#include "round.h"

/*
 * An echo comes as soon as its thread gets to run; 98 of 100 within so many
 * reads, with three threads a processor that do nothing but move.
 */
#define MAX_ECHO_READS 16

bool lpd_round_frees(const struct lpd_message *event, uint64_t *ret_start,
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

unsigned int lpd_round_reads_between(const struct round *round,
				     unsigned int first, unsigned int second)
{
	return second > first ? round->reads[second] - round->reads[first] : 0;
}

void lpd_round_insert(uint16_t *order, unsigned int to, unsigned int from)
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

		if (j != i && lpd_round_frees(&other, &start, &end) &&
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
			lpd_round_insert(session->state->order, first, next);
			return;
		}
		next = blocker;
	}
	/* They wait for each other: as they were read, then. */
}

/* ---- a fork among other events ---- */

/*
 * Did an event that was read next to the FORK, before it or after it, take
 * place on the other side of it?  Only of its neighbours can that be asked:
 * what is further off may have been followed by something else at its place.
 */
static bool before_fork(const struct lpd_message *event, int child_fd)
{
	uint64_t start, end;

	if (!lpd_round_frees(event, &start, &end) ||
	    lpd_uffd_registered(child_fd, start, LPD_PAGE_SIZE) != 0)
		return false;
	return event->kind == LPD_MESSAGE_UNMAP ||
	       lpd_uffd_registered(child_fd, event->remap.to, LPD_PAGE_SIZE) ==
		       1;
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
	const struct lpd_message *event = lpd_round_at(round, i - 1);
	unsigned int number = round->order[i - 1];
	int child_fd = lpd_round_at(round, i)->child_fd;

	/* Where something was unmapped, something else may have grown. */
	return event->kind == LPD_MESSAGE_REMAP &&
	       (round->echoes[number] ||
		!lpd_round_reads_between(round, number, round->order[i])) &&
	       lpd_uffd_registered(child_fd, event->remap.from,
				   LPD_PAGE_SIZE) == 1 &&
	       lpd_uffd_registered(child_fd, event->remap.to, LPD_PAGE_SIZE) ==
		       0;
}

static void place_fork(struct round *round, unsigned int i)
{
	int child_fd = lpd_round_at(round, i)->child_fd;

	for (; i > 0 && after_fork(round, i); i--)
		lpd_round_insert(round->order, i - 1, i);
	for (; i + 1 < round->nr_events &&
	       before_fork(lpd_round_at(round, i + 1), child_fd);
	     i++)
		lpd_round_insert(round->order, i, i + 1);
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
	const struct lpd_message *event = lpd_round_at(round, n);

	for (unsigned int i = n; i-- > 0;) {
		const struct lpd_message *move = lpd_round_at(round, i);

		if (move->kind == LPD_MESSAGE_REMAP &&
		    is_unmap_from(event, move->remap.from) &&
		    event->range.end == move->remap.from + move->remap.len &&
		    !round->echoed[round->order[i]])
			return i;
	}
	return n;
}

/*
 * A move that stays has none, and its range may be unmapped later.  Nothing is
 * lost if that is left out; but it does not say when the call has returned.
 */
static void note_echo(struct round *round, unsigned int move, unsigned int echo)
{
	round->echoed[move] = true;
	if (lpd_round_reads_between(round, move, echo) > MAX_ECHO_READS)
		return;
	round->echoes[move] = echo;
	round->is_echo[echo] = true;
}

/* Leave out the echoes, which say nothing new, and note whose they are. */
static void drop_echoes(struct round *round)
{
	uint16_t *order = round->order;
	unsigned int nr_events = round->nr_events, nr_kept = 0;

	for (unsigned int i = 0; i < nr_events; i++) {
		order[nr_kept] = order[i];

		unsigned int move = find_echoing(round, nr_kept);
		if (move == nr_kept)
			nr_kept++;
		else
			note_echo(round, order[move], order[i]);
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
		const struct lpd_message *move = lpd_round_at(round, i);

		if (move->kind == LPD_MESSAGE_REMAP &&
		    is_unmap_from(lpd_round_at(round, n),
				  move->remap.from + move->remap.len) &&
		    order[n] < round->echoes[order[i]])
			return i;
	}
	return n;
}

/* Take each tail to before its move, by whose message it had been cut off. */
static void hoist_tails(struct round *round)
{
	for (unsigned int i = 0; i < round->nr_events; i++) {
		unsigned int move = find_shrinking(round, i);

		round->told[round->order[i]] = round->order[move];
		lpd_round_insert(round->order, move, i);
	}
}

bool lpd_order_arrange(struct lpd_session *session)
{
	const uint64_t *read_starts = session->state->read_starts;
	struct round round; /* 110 KiB: not to be cleared for nothing */
	unsigned int nr_reads = 0;

	round.session = session;
	round.order = session->state->order;
	round.nr_events = session->nr_events;
	round.wants_answer = false;
	for (unsigned int i = 0; i < session->nr_messages; i++) {
		round.messages[i] = lpd_session_message(session, i);
		nr_reads += read_starts[i / 64] >> i % 64 & 1;
		round.reads[i] = nr_reads;
		round.echoes[i] = 0;
		round.echoed[i] = false;
		round.is_echo[i] = false;
		round.told[i] = i;
		round.discarded[i] = i;
		round.guessed[i] = false;
	}
	drop_echoes(&round);
	hoist_tails(&round);
	lpd_room_make(&round);
	if (round.wants_answer && session->nr_messages < LPD_MAX_MESSAGES)
		return false;
	for (unsigned int i = 0; i < round.nr_events; i++)
		if (lpd_round_at(&round, i)->kind == LPD_MESSAGE_FORK)
			place_fork(&round, i);
	LPD_COUNT(session->state->counters.events_unmap,
		  session->nr_events - round.nr_events);
	for (unsigned int i = 0; i < session->nr_messages; i++)
		LPD_COUNT(session->state->counters.orders_guessed,
			  round.guessed[i]);
	session->nr_events = round.nr_events;
	return true;
}
