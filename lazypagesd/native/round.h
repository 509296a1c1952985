/*
 * round.h: the events of a round while they are arranged, by order.c and
 * room.c.
 */
#ifndef LPD_ROUND_H
#define LPD_ROUND_H

#include "internal.h"

struct round {
	struct lpd_session *session;
	unsigned int nr_events;
	uint16_t *order;
	/* The kernel was asked something, and could not be. */
	bool wants_answer;
	/* By message: decoded, for there can be many looks at each, */
	struct lpd_message messages[LPD_MAX_MESSAGES];
	/* how many reads it took to bring it; */
	uint16_t reads[LPD_MAX_MESSAGES];
	/* the echo of a move; 0 if it seems to have left its range mapped; */
	uint16_t echoes[LPD_MAX_MESSAGES];
	/* whether it had one, or what may be one; and whether it is one; */
	bool echoed[LPD_MAX_MESSAGES];
	bool is_echo[LPD_MAX_MESSAGES];
	/* the message by which a tail had been cut off: its move's; */
	uint16_t told[LPD_MAX_MESSAGES];
	/* the one that may be of what a move has discarded: see room.c; */
	uint16_t discarded[LPD_MAX_MESSAGES];
	/* and whether its place in the order is the more likely one only. */
	bool guessed[LPD_MAX_MESSAGES];
};

static inline const struct lpd_message *lpd_round_at(const struct round *round,
						     unsigned int i)
{
	return &round->messages[round->order[i]];
}

/* The range that an event makes free; false if it makes none. */
bool lpd_round_frees(const struct lpd_message *event, uint64_t *ret_start,
		     uint64_t *ret_end);

/*
 * How many reads after the first message, by number, has the second come?  0 if
 * it has come before.
 */
unsigned int lpd_round_reads_between(const struct round *round,
				     unsigned int first, unsigned int second);

/* Take order[from] to place `to`, before those that were there. */
void lpd_round_insert(uint16_t *order, unsigned int to, unsigned int from);

/* Take what has made room for a move, and was read after it, before it. */
void lpd_room_make(struct round *round);

#endif
