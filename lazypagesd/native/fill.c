/*
 * fill.c: what a fault gets, and how the rest is filled.
 */
#include <errno.h>

#include "fill.h"
#include "helper.h"

/* Is a fault about a huge page that has been filled since it was read? */
static bool came_since(const struct lpd_session *session,
		       const struct lpd_pending *fault)
{
	return lpd_hugetlb_ends_at(session->huge_filled_end, fault->addr) &&
	       fault->read_ns < session->huge_filled_ns;
}

/* The image does not, or no longer, speak for this page: it is zero. */
static enum lpd_outcome fill_zero(struct lpd_worker *worker,
				  struct lpd_session *session,
				  struct lpd_pending *fault)
{
	struct lpd_counters *counters = &session->state->counters;
	int64_t rc = lpd_attempt(session, fault->addr, NULL, LPD_PAGE_SIZE);

	if (rc == -EINVAL)
		return lpd_fill_huge(worker, session, fault->addr, fault,
				     LPD_STEP_NEIGHBOUR);
	if (fault->kind == LPD_FAULT_IMAGE)
		fault->kind = LPD_FAULT_ZERO;
	if (rc > 0) {
		LPD_COUNT(counters->fills, 1);
		LPD_COUNT(counters->pages_zero, 1);
		fault->outcome = LPD_OUTCOME_FILLED;
		return LPD_FILLED;
	}
	/* Filled since it was faulted at, or unmapped: see for yourself. */
	if (rc == -EEXIST || rc == -ENOENT)
		return lpd_attempt_wake(session, fault);
	return lpd_attempt_refused(session,
				   (struct lpd_trouble){.addr = fault->addr,
							.source = UINT32_MAX,
							.waiting = 1},
				   rc);
}

/* COPY has filled the page of a fault, and perhaps some behind it. */
static enum lpd_outcome filled(struct lpd_session *session, uint64_t bit,
			       struct lpd_pending *fault, int64_t len)
{
	struct lpd_counters *counters = &session->state->counters;
	uint64_t nr_pages = len / LPD_PAGE_SIZE;

	lpd_bits_set(session->state, bit, nr_pages);
	LPD_COUNT(counters->fills, 1);
	LPD_COUNT(counters->pages_fault, 1);
	LPD_COUNT(counters->bytes, LPD_PAGE_SIZE);
	if (nr_pages > 1)
		lpd_account_run(session, fault->addr + LPD_PAGE_SIZE,
				len - LPD_PAGE_SIZE, LPD_STEP_NEIGHBOUR);
	fault->outcome = LPD_OUTCOME_FILLED;
	lpd_background_wish(session, fault->addr);
	return LPD_FILLED;
}

/* The page of a fault, which run begins with, and nr_pages of it in all. */
static enum lpd_outcome fill_image(struct lpd_worker *worker,
				   struct lpd_session *session,
				   const struct lpd_region *run,
				   uint32_t nr_pages, struct lpd_pending *fault)
{
	struct lpd_trouble trouble = {
		.addr = fault->addr,
		.source = run->source,
		.offset = run->offset,
		.waiting = 1,
	};
	const uint8_t *bytes;
	uint64_t len = (uint64_t)nr_pages * LPD_PAGE_SIZE;

	fault->source = run->source;
	fault->offset = run->offset;
	int64_t rc = lpd_source_read(worker, session, run->source, run->offset,
				     len, &bytes);
	if (rc == -EINPROGRESS || rc == -EAGAIN)
		fault->kind = LPD_FAULT_COLD;
	if (rc < 0)
		return lpd_attempt_unreadable(session, trouble, rc);
	len = lpd_min(rc, len);
	rc = lpd_attempt(session, fault->addr, bytes, len);
	if (rc > 0)
		return filled(session, run->first_bit, fault, rc);
	switch (-rc) {
	case EEXIST:
		lpd_bits_set(session->state, run->first_bit, 1);
		LPD_COUNT(session->state->counters.pages_present, 1);
		return lpd_attempt_wake(session, fault);
	case ENOENT:
		if (len > LPD_PAGE_SIZE)
			return fill_image(worker, session, run, 1, fault);
		/* It faults again, if it is still there to be faulted at. */
		return lpd_attempt_wake(session, fault);
	case EINVAL:
		return lpd_fill_huge(worker, session, fault->addr, fault,
				     LPD_STEP_NEIGHBOUR);
	default:
		return lpd_attempt_refused(session, trouble, rc);
	}
}

static enum lpd_outcome fill_fault(struct lpd_worker *worker,
				   struct lpd_session *session,
				   struct lpd_pending *fault,
				   uint32_t max_pages)
{
	struct lpd_region run;

	/* Its bytes have been read in part, and not that of this page alone. */
	if (lpd_hugetlb_begun(worker, session, fault->addr))
		return lpd_fill_huge(worker, session, fault->addr, fault,
				     LPD_STEP_NEIGHBOUR);
	if (lpd_state_missing_at(session->state, fault->addr, max_pages,
				 &run)) {
		fault->of_image = 1;
		return fill_image(worker, session, &run, run.nr_pages, fault);
	}
	/* Filled in the meantime, as a rule, so that a WAKE is enough. */
	return fault->of_image || came_since(session, fault)
		       ? lpd_attempt_wake(session, fault)
		       : fill_zero(worker, session, fault);
}

enum lpd_outcome lpd_fill_fault(struct lpd_worker *worker,
				struct lpd_session *session,
				struct lpd_pending *fault, uint32_t max_pages)
{
	/* It may be there by now, as a helper knows. */
	lpd_helpers_revoke(worker, session, fault->addr,
			   fault->addr + max_pages * LPD_PAGE_SIZE);

	enum lpd_outcome outcome =
		fill_fault(worker, session, fault, max_pages);

	fault->tries += fault->tries < UINT16_MAX;
	if (outcome == LPD_HELD)
		fault->outcome = LPD_OUTCOME_HELD;
	else if (outcome == LPD_GONE)
		fault->outcome = LPD_OUTCOME_GONE;
	else if (!fault->outcome && fault->kind != LPD_FAULT_COLD)
		fault->kind = LPD_FAULT_RETRY;
	if (fault->outcome)
		lpd_account_fault(session, fault);
	return outcome;
}

/* Fill the huge page that a run goes on in; *done is behind it then. */
static enum lpd_outcome run_huge(struct lpd_worker *worker,
				 struct lpd_session *session,
				 const struct lpd_region *run, uint64_t *done,
				 enum lpd_step_kind kind)
{
	enum lpd_outcome outcome =
		lpd_fill_huge(worker, session, run->start + *done, NULL, kind);

	if (outcome == LPD_FILLED)
		*done = session->huge_end - run->start;
	return outcome;
}

/*
 * COPY bytes to a run, from *done on, in as few calls as it takes, but none
 * behind a huge page; *done has come as far as that is filled.
 */
static enum lpd_outcome copy_run(struct lpd_worker *worker,
				 struct lpd_session *session,
				 const struct lpd_region *run, uint64_t *done,
				 const uint8_t *bytes, uint64_t len,
				 enum lpd_step_kind kind)
{
	struct lpd_state *state = session->state;
	uint64_t first = *done, piece = len;

	while (*done < first + len) {
		uint64_t addr = run->start + *done, nr_pages = 1;

		piece = lpd_min(piece, first + len - *done);
		int64_t rc = lpd_attempt(session, addr, bytes + *done - first,
					 piece);

		switch (rc) {
		case -EEXIST:
			LPD_COUNT(state->counters.pages_present, 1);
			break;
		case -ENOENT:
			if (piece > LPD_PAGE_SIZE) {
				piece = piece / 2 &
					~(uint64_t)(LPD_PAGE_SIZE - 1);
				continue;
			}
			if (!lpd_attempt_absent(session, addr))
				return LPD_AGAIN;
			LPD_COUNT(state->counters.pages_dropped, 1);
			break;
		case -EINVAL:
			return run_huge(worker, session, run, done, kind);
		default:
			if (rc < 0)
				return lpd_attempt_refused(
					session,
					(struct lpd_trouble){
						.addr = addr,
						.source = UINT32_MAX},
					rc);
			nr_pages = rc / LPD_PAGE_SIZE;
			LPD_COUNT(state->counters.fills, 1);
			lpd_account_run(session, addr, rc, kind);
			piece *= 2;
		}
		lpd_bits_set(state, run->first_bit + *done / LPD_PAGE_SIZE,
			     nr_pages);
		*done += nr_pages * LPD_PAGE_SIZE;
	}
	return LPD_FILLED;
}

enum lpd_outcome lpd_fill_run(struct lpd_worker *worker,
			      struct lpd_session *session,
			      const struct lpd_region *run, uint64_t wanted,
			      enum lpd_step_kind kind)
{
	uint64_t len = (uint64_t)run->nr_pages * LPD_PAGE_SIZE, done = 0;
	enum lpd_outcome outcome = LPD_FILLED;

	while (done < len && outcome == LPD_FILLED) {
		struct lpd_trouble trouble = {.addr = run->start + done,
					      .source = run->source,
					      .offset = run->offset + done};
		const uint8_t *bytes;

		if (lpd_hugetlb_begun(worker, session, trouble.addr)) {
			outcome = run_huge(worker, session, run, &done, kind);
			continue;
		}
		/* Behind a huge page may be another, which reads for itself. */
		bool alone = trouble.addr == session->huge_end;
		int64_t n =
			lpd_source_read(worker, session, run->source,
					trouble.offset,
					alone ? LPD_PAGE_SIZE : wanted - done,
					&bytes);

		outcome = n < 0 ? lpd_attempt_unreadable(session, trouble, n)
				: copy_run(worker, session, run, &done, bytes,
					   lpd_min(n, len - done), kind);
	}
	return outcome;
}
