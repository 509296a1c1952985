/*
 * takeover.c: a state that another daemon has left behind, wherever it died.
 *
 * Some facts: who is killed stops between two instructions, and all stores
 * before that have happened.  So it is the order of our own stores, as the
 * compiler leaves it, that decides what is found here.  What is found is one
 * of these:
 *
 * - Messages, and no arrangement (nr_arranged is 0): read, perhaps looked at,
 *   and nothing has become of them.  The round begins anew, with further
 *   messages if there are any.
 * - An arrangement, of whose events as many as commit says have taken effect:
 *   they are the first in order; the others are still to do, and may have been
 *   under way.  Each but a REMAP only sets bits, which it may do twice; a
 *   REMAP has happened once commit says so.
 * - All of that, and the last messages are cleared already: all events have
 *   taken effect, and all faults have been answered.
 *
 * An event of a channel that is among the messages may not have been noted in
 * last_event, nor its process been let go on: both are made up for before
 * anything is filled (see channel.c).
 *
 * What lies in no memfd is lost: faults that were to be tried again, which a
 * WAKE brings back, and what is merely clever.
 */
#include <string.h>

#include "internal.h"

static unsigned int count_messages(const struct lpd_state *state, size_t size)
{
	unsigned int n = 0;
	uint64_t word;

	for (; n < LPD_MAX_MESSAGES; n++) {
		memcpy(&word, state->messages + n * size, sizeof(word));
		if (!word)
			break;
	}
	return n;
}

/* Those that have taken effect, then the others as they were arranged. */
static unsigned int mend_order(struct lpd_state *state, unsigned int cursor)
{
	bool listed[LPD_MAX_MESSAGES] = {false};
	unsigned int n = cursor;

	for (unsigned int i = 0; i < cursor; i++)
		listed[state->order[i]] = true;
	for (unsigned int i = 0; i < state->nr_arranged; i++) {
		uint16_t event = state->arranged[i];

		if (listed[event])
			continue;
		listed[event] = true;
		state->order[n++] = event;
	}
	return n;
}

static uint64_t count_missing(const struct lpd_state *state)
{
	uint64_t n = 0;

	for (uint64_t bit = 0; bit < state->nr_pages; bit++)
		n += !lpd_state_test(state, bit);
	return n;
}

/*
 * Leave whole messages alone, and note the number of the last event.  Of all
 * others only the next slot can have been written to, and the rest is sparse.
 */
static void mend_messages(struct lpd_state *state)
{
	const struct lpd_protocol *protocol = lpd_protocol_get(state->protocol);
	size_t size = protocol->message_size;
	unsigned int n = count_messages(state, size);

	if (n < LPD_MAX_MESSAGES)
		memset(state->messages + n * size, 0, size);
	for (unsigned int i = 0; i < n; i++)
		state->last_event = lpd_max(
			state->last_event,
			protocol->decode(state->messages + i * size).number);
}

void lpd_state_take_over(struct lpd_state *state)
{
	struct lpd_commit commit = lpd_state_commit(state);

	mend_messages(state);
	state->nr_missing = count_missing(state);
	lpd_crash_point("taking-over");
	if (state->nr_arranged) {
		state->nr_arranged = mend_order(state, commit.cursor);
		return;
	}
	commit.cursor = 0;
	lpd_state_set_commit(state, commit);
}

void lpd_session_find_messages(struct lpd_session *session)
{
	struct lpd_state *state = session->state;

	session->nr_messages =
		count_messages(state, session->protocol->message_size);
	session->nr_events = state->nr_arranged;
	session->nr_listed = state->nr_arranged ? session->nr_messages : 0;
	session->read_ns = lpd_now_ns();
}

void lpd_state_keep_arrangement(struct lpd_state *state, unsigned int nr_events)
{
	memcpy(state->arranged, state->order,
	       nr_events * sizeof(state->order[0]));
	/* Seen by who takes over only with what it counts. */
	__atomic_store_n(&state->nr_arranged, nr_events, __ATOMIC_RELEASE);
}

void lpd_state_clear_messages(struct lpd_state *state, unsigned int nr_messages,
			      size_t message_size)
{
	/* Of the next one as well: the last read may have brought none. */
	memset(state->read_starts, 0,
	       lpd_min(nr_messages / 64 + 1, LPD_MAX_MESSAGES / 64) *
		       sizeof(state->read_starts[0]));
	/* From the last one, so that what is left can still be counted. */
	for (unsigned int i = nr_messages; i-- > 0;) {
		memset(state->messages + i * message_size, 0, message_size);
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
		lpd_crash_point("clearing");
	}
	/* With no message left, a cursor without arrangement means nothing. */
	__atomic_store_n(&state->nr_arranged, 0, __ATOMIC_RELEASE);
	lpd_crash_point("cleared");

	struct lpd_commit commit = lpd_state_commit(state);
	commit.cursor = 0;
	lpd_state_set_commit(state, commit);
}

/* ---- forks ---- */

/* The messages that tell of a child, from *i on; NULL behind the last. */
static uint8_t *next_fork(const struct lpd_state *state, unsigned int *i,
			  struct lpd_message *ret_message)
{
	const struct lpd_protocol *protocol = lpd_protocol_get(state->protocol);
	size_t size = protocol->message_size;

	for (unsigned int n = count_messages(state, size); *i < n; ++*i) {
		uint8_t *raw = (uint8_t *)state->messages + *i * size;

		*ret_message = protocol->decode(raw);
		if (ret_message->kind == LPD_MESSAGE_FORK &&
		    ret_message->child_fd >= 0)
			return raw;
	}
	return NULL;
}

unsigned int lpd_state_forks(const struct lpd_state *state, int32_t *ret_fds)
{
	struct lpd_message message;
	unsigned int n = 0;

	for (unsigned int i = 0; next_fork(state, &i, &message); i++)
		ret_fds[n++] = message.child_fd;
	return n;
}

void lpd_state_disown(struct lpd_state *state, int child_fd)
{
	struct lpd_message message;
	uint8_t *raw;

	for (unsigned int i = 0; (raw = next_fork(state, &i, &message)); i++)
		if (message.child_fd == child_fd)
			lpd_protocol_get(state->protocol)->disown(raw);
}
