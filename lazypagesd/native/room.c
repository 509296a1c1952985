/*
 * room.c: a move to a place that was made free, of which the state knows
 * nothing, and of which we are told later than of the move.
 *
 * What tells whether that place had been made free before the move, or of what
 * the move had brought, is in docs/explanation/event-order.md.  The kernel has
 * a say in it, and says it only while the address space is quiet.  With
 * hundreds of events of threads that do nothing but change it such a moment is
 * over before a round is arranged, so what is to be asked is noted
 * (lpd_question), and asked at the beginning of the next one.  What it says is
 * good for the rest of the round: it is about what had been done by then.
 */
#include <errno.h>

#include "round.h"

/* Hardly ever are there more than two. */
#define MAX_PASSES 4

/* As lpd_uffd_registered(), or what was answered before. */
static int ask(struct round *round, uint64_t addr, unsigned int event)
{
	struct lpd_session *session = round->session;
	struct lpd_question *questions = session->questions;
	unsigned int i = 0;
	int answer;

	while (i < session->nr_questions &&
	       (questions[i].addr != addr || questions[i].event != event))
		i++;
	if (i < session->nr_questions) {
		answer = questions[i].answer;
	} else {
		answer = lpd_uffd_registered(session->fd, addr, LPD_PAGE_SIZE);
		if (i < LPD_MAX_QUESTIONS)
			questions[session->nr_questions++] =
				(struct lpd_question){.addr = addr,
						      .event = event,
						      .answer = answer};
	}
	round->wants_answer |= answer == -EAGAIN;
	return answer;
}

void lpd_room_ask(struct lpd_session *session)
{
	for (unsigned int i = 0; i < session->nr_questions; i++) {
		struct lpd_question *question = &session->questions[i];

		if (question->answer == -EAGAIN)
			question->answer =
				lpd_uffd_registered(session->fd, question->addr,
						    LPD_PAGE_SIZE);
	}
}

/* Does an event bring something to [start, end)? */
static bool brings(const struct lpd_message *event, uint64_t start,
		   uint64_t end)
{
	return event->kind == LPD_MESSAGE_REMAP &&
	       lpd_overlap(start, end, event->remap.to,
			   event->remap.to + event->remap.len);
}

/* Does it say anything about it? */
static bool concerns(const struct lpd_message *event, uint64_t start,
		     uint64_t end)
{
	uint64_t first, last;

	if (event->kind == LPD_MESSAGE_REMOVE)
		return lpd_overlap(start, end, event->range.start,
				   event->range.end);
	return brings(event, start, end) ||
	       (lpd_round_frees(event, &first, &last) &&
		lpd_overlap(start, end, first, last));
}

/* The first event behind order[i], but order[j], that says anything of addr. */
static unsigned int find_concerning(const struct round *round, unsigned int i,
				    unsigned int j, uint64_t addr)
{
	unsigned int k = i + 1;

	while (k < round->nr_events &&
	       (k == j || !concerns(lpd_round_at(round, k), addr, addr + 1)))
		k++;
	return k;
}

/*
 * Has a move told of what it discards at its destination (MREMAP_FIXED)?  The
 * UNMAP is queued once all has been done, and read before the REMAP is queued.
 */
static void find_discarded(struct round *round, unsigned int number)
{
	const struct lpd_message *move = &round->messages[number];
	uint64_t to = move->remap.to, to_end = to + move->remap.len;

	for (unsigned int i = number; i-- > 0;) {
		const struct lpd_message *event = &round->messages[i];

		if (!concerns(event, to, to_end))
			continue;
		if (event->kind == LPD_MESSAGE_UNMAP && !round->is_echo[i] &&
		    event->range.start >= to && event->range.end <= to_end)
			round->discarded[number] = i;
		return;
	}
}

/*
 * The move order[i] goes to a place that order[j], read later, has made free:
 * before the move, or of what the move had brought?
 *
 * In the latter case who made it free knew of the move, whose call had
 * returned, so that its echo had been read.  And then nothing is left there:
 * no later event finds it, and nor does the kernel.
 */
static bool was_freed_before(struct round *round, unsigned int i,
			     unsigned int j, uint64_t addr)
{
	const struct lpd_message *move = lpd_round_at(round, i);
	const struct lpd_message *other = lpd_round_at(round, j);
	const uint16_t *order = round->order;
	unsigned int returned = round->echoes[order[i]] ?: order[i];
	unsigned int told = round->told[order[j]];
	bool is_sure = !lpd_round_reads_between(round, returned, told);
	bool is_there;

	/* What MREMAP_DONTUNMAP has left is still mapped. */
	if (other->kind == LPD_MESSAGE_REMAP && !round->echoed[order[j]])
		return false;
	/* It goes to what the move, which was read before it, has left. */
	if (brings(other, move->remap.from, move->remap.from + move->remap.len))
		return false;
	/* What it has discarded may have been unmapped by somebody else. */
	if (lpd_round_reads_between(round, returned, round->discarded[told]))
		return false;

	unsigned int k = find_concerning(round, i, j, addr);

	if (k < round->nr_events) {
		is_there = k > j &&
			   !brings(lpd_round_at(round, k), addr, addr + 1);
	} else {
		int answer = ask(round, addr, order[j]);

		is_there = answer != 0;
		is_sure = is_sure && answer != -EAGAIN;
	}
	round->guessed[order[j]] |= is_there && !is_sure;
	return is_there;
}

/*
 * What has made room for the move order[i], of those after it; or i, if there
 * is nothing of the kind.
 */
static unsigned int find_room(struct round *round, unsigned int i)
{
	const struct lpd_message *move = lpd_round_at(round, i);
	const uint16_t *order = round->order;
	uint64_t to = move->remap.to, to_end = to + move->remap.len;

	if (move->kind != LPD_MESSAGE_REMAP)
		return i;
	for (unsigned int j = i + 1; j < round->nr_events; j++) {
		uint64_t start, end;

		if (!lpd_round_frees(lpd_round_at(round, j), &start, &end) ||
		    !lpd_overlap(start, end, to, to_end))
			continue;
		/* One that was read earlier was left behind by this move. */
		if (order[j] < order[i] ||
		    was_freed_before(round, i, j, lpd_max(start, to)))
			return j;
		/* It takes all away, so nothing behind it bears on this move.
		 */
		if (start <= to && end >= to_end)
			return i;
	}
	return i;
}

/* One pass; has it changed anything? */
static bool make_room(struct round *round)
{
	bool changed = false;

	for (unsigned int i = 0; i < round->nr_events; i++) {
		/*
		 * What is now in this place may in turn need room; but not for
		 * ever, should some need each other's.
		 */
		for (unsigned int n = 0; n < round->nr_events; n++) {
			unsigned int j = find_room(round, i);

			if (j == i)
				break;
			lpd_round_insert(round->order, i, j);
			changed = true;
		}
	}
	return changed;
}

void lpd_room_make(struct round *round)
{
	for (unsigned int i = 0; i < round->session->nr_messages; i++)
		if (round->messages[i].kind == LPD_MESSAGE_REMAP)
			find_discarded(round, i);
	/* What one pass has found out may be what another one wants to know. */
	for (unsigned int i = 0; i < MAX_PASSES && make_room(round); i++)
		;
}
