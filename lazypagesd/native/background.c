/*
 * background.c: what is filled though nobody waits for it: the neighbourhood
 * of a page that was faulted at, and then all the rest, in address order.
 */
#include "fill.h"
#include "helper.h"

#define MIN_WINDOW_PAGES 16  /* 64 KiB */
#define MAX_WINDOW_PAGES 256 /* 1 MiB */
#define MIN_PIECE_PAGES  16

/*
 * So long after a fault that went on nowhere drain is the helpers' alone: the
 * next one comes before a piece is filled, and has to wait for it; and who is
 * never asleep has to wait longer for a processor, once others want it.
 */
#define SCATTERED_NS 500000

uint64_t lpd_background_budget(struct lpd_session *session)
{
	const struct lpd_counters *counters = &session->state->counters;
	uint64_t pages = counters->pages_neighbour + counters->pages_drain;
	uint64_t rate = lpd_state_drain_rate(session->state);
	/* Whoever is eager is not held up by looking at the clock. */
	uint64_t now = rate == LPD_DRAIN_EAGER ? 0 : lpd_now_ns();

	return lpd_pace_allow(&session->pace, rate, now,
			      pages * LPD_PAGE_SIZE) /
	       LPD_PAGE_SIZE;
}

bool lpd_background_wanted(const struct lpd_session *session)
{
	/* Not before the restore has finished: mappings still move about. */
	if (!__atomic_load_n(&session->state->released, __ATOMIC_RELAXED) ||
	    session->paused || session->finished || session->detaching ||
	    lpd_state_drain_rate(session->state) == LPD_DRAIN_LAZY)
		return false;
	return session->nr_wishes ||
	       (session->state->nr_missing && !session->stuck &&
		!session->waits_for_read && !session->waits_for_help);
}

void lpd_background_wish(struct lpd_session *session, uint64_t addr)
{
	/* Somebody waits for pages: keep out of the way. */
	session->piece_pages = MIN_PIECE_PAGES;
	if (session->nr_wishes < LPD_MAX_WISHES)
		session->wishes[session->nr_wishes++] = addr;
}

/* Where the neighbourhood begins; the window has learnt from the fault. */
static uint64_t window_start(struct lpd_session *session, uint64_t addr,
			     uint64_t now_ns)
{
	bool goes_on = addr == session->window_end;

	session->scattered_ns = goes_on ? 0 : now_ns;
	if (goes_on)
		LPD_COUNT(session->state->counters.pages_followed,
			  session->window_filled);
	uint64_t pages =
		goes_on ? session->window_pages * 2 : session->window_pages / 2;

	session->window_pages =
		lpd_max(MIN_WINDOW_PAGES, lpd_min(MAX_WINDOW_PAGES, pages));
	/* Powers of two, all of them. */
	return goes_on ? addr
		       : addr & ~((uint64_t)session->window_pages *
					  LPD_PAGE_SIZE -
				  1);
}

uint64_t lpd_bytes_wanted(const struct lpd_region *runs, uint32_t nr_runs)
{
	uint64_t end = runs->offset;

	for (const struct lpd_region *run = runs;
	     run < runs + nr_runs && run->source == runs->source &&
	     run->offset >= end && run->offset <= end + LPD_PAGE_SIZE;
	     run++)
		end = run->offset + (uint64_t)run->nr_pages * LPD_PAGE_SIZE;
	return end - runs->offset;
}

/* Fill run i of those that have been gathered for the step. */
static enum lpd_outcome fill_gathered(struct lpd_worker *worker,
				      struct lpd_session *session, uint32_t i,
				      uint32_t nr_runs, enum lpd_step_kind kind)
{
	const struct lpd_region *run = &worker->runs[i];

	/* It was in the same huge page as the one before. */
	if (lpd_state_test(session->state, run->first_bit))
		return LPD_FILLED;
	return lpd_fill_run(worker, session, run,
			    lpd_bytes_wanted(run, nr_runs - i), kind);
}

static enum lpd_outcome fill_neighbourhood(struct lpd_worker *worker,
					   struct lpd_session *session,
					   uint64_t addr, uint64_t budget)
{
	uint64_t start = window_start(session, addr, worker->now_ns);
	uint64_t end =
		start + lpd_min(session->window_pages, budget) * LPD_PAGE_SIZE;
	const uint64_t *filled = &session->state->counters.pages_neighbour;
	uint64_t before = *filled;

	session->window_end = end;
	session->window_filled = 0;
	/* They have little time, between one fault and the next. */
	lpd_helpers_offer(worker, session);
	lpd_helpers_revoke(worker, session, start, end);
	uint32_t nr_runs =
		lpd_state_gather(session->state, start, end, UINT64_MAX,
				 worker->runs, LPD_MAX_RUNS);
	for (uint32_t i = 0; i < nr_runs; i++) {
		enum lpd_outcome outcome =
			fill_gathered(worker, session, i, nr_runs,
				      LPD_STEP_NEIGHBOUR);

		session->window_filled = *filled - before;
		/* It was but a wish; the drain will come by. */
		if (outcome != LPD_FILLED)
			return outcome == LPD_HELD ? LPD_FILLED : outcome;
	}
	return LPD_FILLED;
}

/* All regions have been gone through: once more, if that led anywhere. */
static void end_pass(struct lpd_session *session)
{
	session->stuck = !session->pass_progressed;
	session->pass_progressed = 0;
	session->drain_addr = 0;
	lpd_helpers_restart(session, 0);
}

/* Leave the page at which a run was held behind: the next is another. */
static void skip_held(struct lpd_session *session, uint64_t addr)
{
	struct lpd_region held;

	if (!lpd_state_next_missing(session->state, addr, 1, &held))
		return;
	session->drain_addr = lpd_region_end(&held);
	/* All of a huge page is held, whichever of its pages is to blame. */
	if (lpd_hugetlb_ends_at(session->huge_end, held.start))
		session->drain_addr = session->huge_end;
}

/* The next runs of drain, none of which a helper is at; how many. */
static uint32_t gather_piece(struct lpd_worker *worker,
			     struct lpd_session *session, uint64_t max_pages)
{
	struct lpd_region *runs = worker->runs;
	uint32_t nr_runs;

	while ((nr_runs = lpd_state_gather(session->state, session->drain_addr,
					   LPD_USER_SPACE_END, max_pages, runs,
					   LPD_MAX_RUNS)) &&
	       lpd_helpers_revoke(worker, session, runs[0].start,
				  lpd_region_end(&runs[nr_runs - 1])))
		/* They get the upper half of what is left of their area. */
		lpd_helpers_restart(session, session->help_end);
	return nr_runs;
}

static enum lpd_outcome drain_piece(struct lpd_worker *worker,
				    struct lpd_session *session,
				    uint64_t budget)
{
	uint64_t piece = lpd_max(session->piece_pages, MIN_PIECE_PAGES);

	lpd_helpers_offer(worker, session);
	if (session->nr_jobs &&
	    worker->now_ns < session->scattered_ns + SCATTERED_NS) {
		session->pace.due_ns = session->scattered_ns + SCATTERED_NS;
		return LPD_PACED;
	}
	uint32_t nr_runs =
		gather_piece(worker, session, lpd_min(budget, piece));
	if (!nr_runs && session->nr_jobs) {
		session->waits_for_help = 1;
		return LPD_MISSED;
	}
	if (!nr_runs)
		end_pass(session);
	for (uint32_t i = 0; i < nr_runs; i++) {
		uint64_t before = session->state->nr_missing;
		enum lpd_outcome outcome =
			fill_gathered(worker, session, i, nr_runs,
				      LPD_STEP_DRAIN);

		if (session->state->nr_missing < before)
			session->pass_progressed = 1;
		switch (outcome) {
		case LPD_FILLED:
			session->drain_addr = lpd_region_end(&worker->runs[i]);
			break;
		case LPD_HELD:
			skip_held(session, worker->runs[i].start);
			return LPD_FILLED;
		case LPD_MISSED:
			session->waits_for_read = 1;
			return outcome;
		default:
			return outcome;
		}
	}
	session->piece_pages = lpd_min(2 * piece, LPD_MAX_PIECE_PAGES);
	return LPD_FILLED;
}

enum lpd_outcome lpd_background_step(struct lpd_worker *worker,
				     struct lpd_session *session)
{
	uint64_t budget = lpd_background_budget(session);

	if (!budget)
		return LPD_PACED;
	if (session->nr_wishes)
		return fill_neighbourhood(worker, session,
					  session->wishes[--session->nr_wishes],
					  budget);
	return drain_piece(worker, session, budget);
}
