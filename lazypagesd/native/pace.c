/*
 * pace.c: how much a session may fill unasked, at so many bytes a second.
 *
 * The budget is time: since_ns moves towards now as bytes are filled, by what
 * they cost at the rate of the moment.  So a new rate counts at once, for all
 * the time that is still to be spent, and no rounding adds up.
 */
#include "internal.h"

/* Kept of unspent time: for who oversleeps, not for who has been idle. */
#define BURST_NS 100000000ull

/* What a turn waits for: this much to fill, or else this long. */
#define TURN_BYTES 65536
#define TURN_NS    10000000ull

/* Rounded up, so that time is never made. */
static uint64_t cost_ns(uint64_t bytes, uint64_t rate)
{
	return ((unsigned __int128)bytes * LPD_NS_PER_S + rate - 1) / rate;
}

uint64_t lpd_pace_allow(struct lpd_pace *pace, uint64_t rate, uint64_t now_ns,
			uint64_t filled)
{
	if (rate == LPD_DRAIN_LAZY || rate == LPD_DRAIN_EAGER) {
		pace->since_ns = 0;
		return rate;
	}

	/* Worth a page at least, however low the rate is. */
	uint64_t turn_ns =
		lpd_min(cost_ns(TURN_BYTES, rate),
			lpd_max(TURN_NS, cost_ns(LPD_PAGE_SIZE, rate)));
	uint64_t kept_ns = lpd_max(BURST_NS, turn_ns);

	if (!pace->since_ns) {
		/* What was filled at another pace is not to be paid for. */
		pace->since_ns = now_ns;
		pace->filled = filled;
	}
	pace->since_ns += cost_ns(filled - pace->filled, rate);
	pace->filled = filled;
	if (now_ns > pace->since_ns + kept_ns)
		pace->since_ns = now_ns - kept_ns;
	pace->due_ns = pace->since_ns + turn_ns;
	if (now_ns < pace->due_ns)
		return 0;
	return (unsigned __int128)(now_ns - pace->since_ns) * rate /
	       LPD_NS_PER_S;
}
