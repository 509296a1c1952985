/*
 * fill.c: pages put in place, and what each refusal means.
 *
 * Some facts about UFFDIO_COPY (man 2 ioctl_userfaultfd, and tried):
 *
 * - EAGAIN: a fork, mremap, madvise or munmap is under way, and its caller
 *   sleeps until we have read its event.  The cure is to read on, then to try
 *   again; the caller must get to run, too.
 * - ENOENT: the range does not lie in one registered mapping.  mprotect(),
 *   madvise() and mlock() split a mapping without a word, so a long range is
 *   halved until it fits.  A single page that gets ENOENT is not registered;
 *   unless an mremap() has just moved it away, whose event we have yet to
 *   read: the kernel looks for such before it looks for the mapping, not
 *   after.  So read first.  If that brings no event and the page gets ENOENT
 *   again, then no move was pending at the first attempt: had one been, the
 *   second would have got EAGAIN until its event was read.
 * - EEXIST: a page is there already.  Its waiters, if any, want a WAKE.
 * - ESRCH (and ENOSPC, before Linux 4.13): the address space is gone.
 * - ENOMEM: the memory cgroup of the process is full.
 */
#include <errno.h>

#include "internal.h"

/* Between attempts that wait for something that does not tell. */
#define LATER_NS 1000000

static int64_t copy(struct lpd_session *session, uint64_t addr,
		    const uint8_t *bytes, uint64_t len)
{
	int64_t rc;

	do {
		rc = session->protocol->copy(session->fd, addr, bytes, len);
	} while (rc == -EAGAIN && lpd_session_insists(session));
	if (rc > 0)
		lpd_crash_point("copied");
	return rc;
}

static int64_t zeropage(struct lpd_session *session, uint64_t addr)
{
	int64_t rc;

	do {
		rc = session->protocol->zeropage(session->fd, addr,
						 LPD_PAGE_SIZE);
	} while (rc == -EAGAIN && lpd_session_insists(session));
	if (rc > 0)
		lpd_crash_point("zeroed");
	return rc;
}

static enum lpd_outcome refused(struct lpd_session *session,
				struct lpd_trouble trouble, int64_t rc)
{
	switch (-rc) {
	case EAGAIN:
		LPD_COUNT(session->state->counters.retries, 1);
		return LPD_AGAIN;
	case ENOMEM:
		LPD_COUNT(session->state->counters.retries, 1);
		session->not_before_ns = lpd_now_ns() + LATER_NS;
		return LPD_LATER;
	case ESRCH:
	case ENOSPC:
		return LPD_GONE;
	default:
		trouble.err = -rc;
		lpd_session_hold(session, trouble);
		return LPD_HELD;
	}
}

static enum lpd_outcome unreadable(struct lpd_session *session,
				   struct lpd_trouble trouble, int64_t rc)
{
	switch (-rc) {
	case EINPROGRESS:
		return LPD_MISSED;
	case EAGAIN:
		session->not_before_ns = lpd_now_ns() + LATER_NS;
		return LPD_LATER;
	default:
		trouble.err = -rc;
		lpd_session_hold(session, trouble);
		return LPD_HELD;
	}
}

/* What is there is there: let whoever waits for it look again. */
static enum lpd_outcome wake(struct lpd_session *session,
			     struct lpd_pending *fault)
{
	LPD_COUNT(session->state->counters.wakes, 1);
	int rc = session->protocol->wake(session->fd, fault->addr,
					 LPD_PAGE_SIZE);

	fault->outcome = LPD_OUTCOME_WOKEN;
	return rc == -ESRCH ? LPD_GONE : LPD_FILLED;
}

/* The image does not, or no longer, speak for this page: it is zero. */
static enum lpd_outcome fill_zero(struct lpd_session *session,
				  struct lpd_pending *fault)
{
	struct lpd_counters *counters = &session->state->counters;
	int64_t rc = zeropage(session, fault->addr);

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
		return wake(session, fault);
	return refused(session,
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
		return unreadable(session, trouble, rc);
	len = lpd_min(rc, len);
	rc = copy(session, fault->addr, bytes, len);
	if (rc > 0)
		return filled(session, run->first_bit, fault, rc);
	switch (-rc) {
	case EEXIST:
		lpd_bits_set(session->state, run->first_bit, 1);
		LPD_COUNT(session->state->counters.pages_present, 1);
		return wake(session, fault);
	case ENOENT:
		if (len > LPD_PAGE_SIZE)
			return fill_image(worker, session, run, 1, fault);
		/* It faults again, if it is still there to be faulted at. */
		return wake(session, fault);
	default:
		return refused(session, trouble, rc);
	}
}

static enum lpd_outcome fill_fault(struct lpd_worker *worker,
				   struct lpd_session *session,
				   struct lpd_pending *fault,
				   uint32_t max_pages)
{
	struct lpd_region run;

	if (lpd_state_missing_at(session->state, fault->addr, max_pages,
				 &run)) {
		fault->of_image = 1;
		return fill_image(worker, session, &run, run.nr_pages, fault);
	}
	/* Filled in the meantime, as a rule, so that a WAKE is enough. */
	return fault->of_image ? wake(session, fault)
			       : fill_zero(session, fault);
}

enum lpd_outcome lpd_fill_fault(struct lpd_worker *worker,
				struct lpd_session *session,
				struct lpd_pending *fault, uint32_t max_pages)
{
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

/* Is a page that got ENOENT not registered, rather than being moved? */
static bool absent_for_sure(struct lpd_session *session, uint64_t addr)
{
	if (session->absent_addr == addr && session->absent_confirmed)
		return true;
	session->absent_addr = addr;
	session->absent_confirmed = 0;
	return false;
}

/* COPY bytes to where they are missing, in as few calls as it takes. */
static enum lpd_outcome copy_run(struct lpd_session *session, uint64_t addr,
				 uint64_t bit, const uint8_t *bytes,
				 uint64_t len, enum lpd_step_kind kind)
{
	struct lpd_state *state = session->state;
	uint64_t done = 0, piece = len;

	while (done < len) {
		piece = lpd_min(piece, len - done);
		int64_t rc = copy(session, addr + done, bytes + done, piece);
		uint64_t nr_pages = 1;

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
			if (!absent_for_sure(session, addr + done))
				return LPD_AGAIN;
			LPD_COUNT(state->counters.pages_dropped, 1);
			break;
		default:
			if (rc < 0)
				return refused(session,
					       (struct lpd_trouble){
						       .addr = addr + done,
						       .source = UINT32_MAX},
					       rc);
			nr_pages = rc / LPD_PAGE_SIZE;
			LPD_COUNT(state->counters.fills, 1);
			lpd_account_run(session, addr + done, rc, kind);
			piece *= 2;
		}
		lpd_bits_set(state, bit + done / LPD_PAGE_SIZE, nr_pages);
		done += nr_pages * LPD_PAGE_SIZE;
	}
	return LPD_FILLED;
}

enum lpd_outcome lpd_fill_run(struct lpd_worker *worker,
			      struct lpd_session *session,
			      const struct lpd_region *run,
			      enum lpd_step_kind kind)
{
	uint64_t len = (uint64_t)run->nr_pages * LPD_PAGE_SIZE;

	for (uint64_t done = 0; done < len;) {
		const uint8_t *bytes;
		/* The bytes behind a short run are often the next run's. */
		int64_t n = lpd_source_read(worker, session, run->source,
					    run->offset + done,
					    lpd_max(len - done, LPD_READ_SIZE),
					    &bytes);

		if (n < 0)
			return unreadable(session,
					  (struct lpd_trouble){
						  .addr = run->start + done,
						  .source = run->source,
						  .offset = run->offset + done},
					  n);
		n = lpd_min(n, len - done);
		enum lpd_outcome outcome =
			copy_run(session, run->start + done,
				 run->first_bit + done / LPD_PAGE_SIZE, bytes,
				 n, kind);
		if (outcome != LPD_FILLED)
			return outcome;
		done += n;
	}
	return LPD_FILLED;
}
