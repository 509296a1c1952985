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

/*
 * 0 or 1; 2 if what is there is of one mapping with the page below, which can
 * have grown; or -EAGAIN when the process is at work and cannot be asked.
 */
static int answer(int fd, const struct lpd_question *question)
{
	int rc = lpd_uffd_registered(fd, question->addr, question->len);

	if (rc != 1 || !question->alone)
		return rc;
	rc = lpd_uffd_registered(fd, question->addr - LPD_PAGE_SIZE,
				 LPD_PAGE_SIZE + question->len);
	return rc < 0 ? rc : 1 + rc;
}

static bool is_same(const struct lpd_question *a, const struct lpd_question *b)
{
	return a->addr == b->addr && a->len == b->len && a->event == b->event &&
	       a->alone == b->alone && a->is_sure == b->is_sure;
}

static unsigned int find_question(const struct lpd_session *session,
				  const struct lpd_question *question)
{
	unsigned int i = 0;

	while (i < session->nr_questions &&
	       !is_same(&session->questions[i], question))
		i++;
	return i;
}

/* Remember a question, if there is room. */
static void note(struct lpd_session *session, unsigned int i,
		 struct lpd_question question)
{
	if (i < session->nr_questions || i == LPD_MAX_QUESTIONS)
		return;
	session->questions[session->nr_questions++] = question;
}

/* As answer(), or what was answered before. */
static int ask(struct round *round, struct lpd_question question)
{
	struct lpd_session *session = round->session;
	unsigned int i = find_question(session, &question);

	question.answer = i < session->nr_questions
				  ? session->questions[i].answer
				  : answer(session->fd, &question);
	note(session, i, question);
	round->wants_answer |= question.answer == -EAGAIN;
	return question.answer;
}

/* Something is there that was not brought, as an event has said already. */
static void note_guess(struct lpd_session *session,
		       struct lpd_question question)
{
	question.answer = 1;
	note(session, find_question(session, &question), question);
}

void lpd_room_ask(struct lpd_session *session)
{
	for (unsigned int i = 0; i < session->nr_questions; i++) {
		struct lpd_question *question = &session->questions[i];

		if (question->answer == -EAGAIN)
			question->answer = answer(session->fd, question);
	}
}

unsigned int lpd_room_guesses(const struct lpd_session *session)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < session->nr_questions; i++)
		n += !session->questions[i].is_sure &&
		     session->questions[i].answer;
	return n;
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

/*
 * The move order[i] goes to a place that order[j], read later, has made free:
 * before the move, or of what the move had brought?
 *
 * In the latter case who made it free knew of the move, whose call had
 * returned, so that its echo had been read.  And then nothing is left there:
 * no later event finds it, and nor does the kernel, unless another event has
 * brought it, or it has grown there, of which nobody tells.  What the move has
 * brought is one mapping, so behind its first page that cannot be told apart;
 * of a move without an echo, whose end nothing tells, that it is one still says
 * more than that part of it may have been unmapped, and grown again, since.
 */
static bool was_freed_before(struct round *round, unsigned int i,
			     unsigned int j, uint64_t addr)
{
	const struct lpd_message *move = lpd_round_at(round, i);
	const struct lpd_message *other = lpd_round_at(round, j);
	const uint16_t *order = round->order;
	unsigned int echo = round->echoes[order[i]];
	/* Had the move's call not returned yet? */
	bool certain = !lpd_round_reads_between(round, echo ? echo : order[i],
						order[j]);
	bool may_have_grown = addr == move->remap.to;
	struct lpd_question question = {.addr = addr,
					.len = LPD_PAGE_SIZE,
					.event = order[j],
					.is_sure = certain,
					.alone = !certain && may_have_grown};

	/* What MREMAP_DONTUNMAP has left is still mapped. */
	if (other->kind == LPD_MESSAGE_REMAP && !round->echoes[order[j]])
		return false;
	/* It goes to what the move, which was read before it, has left. */
	if (brings(other, move->remap.from, move->remap.from + move->remap.len))
		return false;
	for (unsigned int k = i + 1; k < round->nr_events; k++) {
		const struct lpd_message *later = lpd_round_at(round, k);

		if (k == j || !concerns(later, addr, addr + 1))
			continue;
		/* What it finds has been left there, or has grown. */
		if (!certain && k > j && !brings(later, addr, addr + 1))
			note_guess(round->session, question);
		return certain;
	}
	/* Not even then if the "echo" was another UNMAP. */
	if (certain)
		return ask(round, question) != 0;
	/* No echo tells when a call of MREMAP_DONTUNMAP has returned. */
	if (!echo && !may_have_grown) {
		question.addr = move->remap.to;
		question.len = move->remap.len;
	}
	return ask(round, question) == 1 && (may_have_grown || !echo);
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

void lpd_room_make(struct round *round)
{
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
		}
	}
}
