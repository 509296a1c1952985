/*
 * hugetlb.c: huge pages, each put together from what the image has of its
 * pages, and filled as a whole.
 *
 * Some facts about hugetlbfs and userfaultfd (man 2 ioctl_userfaultfd, and
 * tried): a page of 2 MiB is there as a whole or not at all.  COPY of less
 * than that, or not from its beginning, says EINVAL, and so does ZEROPAGE,
 * whatever its length; neither says so of any other memory.  A fault tells the
 * address of the huge page, or with UFFD_FEATURE_EXACT_ADDRESS the one that was
 * touched.  Events are about whole huge pages, but for the REMOVE of
 * MADV_REMOVE, which names what it was given.
 *
 * So nobody has to tell us which memory is huge: a page that gets EINVAL is
 * part of some.  Regions and bits remain what they are, of 4 KiB each: those
 * pages of a huge one for which the image does not speak, or no longer, are
 * zeros in it.  That it is missing is known by any bit of it that is clear.
 */
#include <errno.h>
#include <string.h>

#include "fill.h"

/* What a session has begun with and waits for; NULL if there is nothing. */
static struct lpd_assembly *kept_for(struct lpd_worker *worker,
				     const struct lpd_session *session)
{
	for (unsigned int i = 1; i < LPD_NR_ASSEMBLIES; i++)
		if (worker->assemblies[i].session == session)
			return &worker->assemblies[i];
	return NULL;
}

bool lpd_hugetlb_begun(struct lpd_worker *worker,
		       const struct lpd_session *session, uint64_t addr)
{
	const struct lpd_assembly *assembly = kept_for(worker, session);

	return assembly && addr - assembly->start < LPD_HUGE_SIZE;
}

/*
 * Put a piece of what is missing in its place, or zeros up to there; how many
 * bytes, or -errno.
 */
static int64_t assemble_piece(struct lpd_worker *worker,
			      struct lpd_session *session,
			      struct lpd_assembly *assembly,
			      struct lpd_trouble *ret_trouble)
{
	uint64_t addr = assembly->start + assembly->have;
	uint64_t end = assembly->start + LPD_HUGE_SIZE;
	uint8_t *bytes = assembly->bytes + assembly->have;
	struct lpd_region run;

	if (!lpd_state_next_missing(session->state, addr,
				    (end - addr) / LPD_PAGE_SIZE, &run) ||
	    run.start >= end)
		run.start = end;
	if (run.start > addr) {
		memset(bytes, 0, run.start - addr);
		return run.start - addr;
	}

	uint64_t len = lpd_min(end, lpd_region_end(&run)) - addr;
	int64_t n = lpd_source_read_into(worker, session, run.source,
					 run.offset, len, bytes);
	if (n < 0) {
		ret_trouble->addr = addr;
		ret_trouble->source = run.source;
		ret_trouble->offset = run.offset;
	}
	return n;
}

/*
 * It cannot be read or filled now, and why is rc: go on with what there is once
 * it can.  The first assembly is kept free, for those who need not wait.
 */
static int keep(struct lpd_worker *worker, struct lpd_session *session,
		struct lpd_assembly *assembly, int rc)
{
	if (assembly != worker->assemblies) {
		assembly->session = session;
		return rc;
	}
	for (unsigned int i = 1; i < LPD_NR_ASSEMBLIES; i++) {
		struct lpd_assembly free = worker->assemblies[i];

		if (free.session)
			continue;
		worker->assemblies[i] = *assembly;
		worker->assemblies[i].session = session;
		*assembly = free;
		return rc;
	}
	/* All of them wait; one will be done some time. */
	return -EAGAIN;
}

/*
 * What a session had begun with has ended.  No read wakes it for those that
 * were held up by that alone.
 */
static void let_others_try(struct lpd_session *session)
{
	session->must_read = 1;
	session->waits_for_read = 0;
}

/*
 * What the huge page at start is to be: 0, and an assembly that is whole and
 * anybody's from the next call for this worker on, unless it is kept; or what
 * lpd_source_read() says of the page that *ret_trouble then names.
 */
static int assemble(struct lpd_worker *worker, struct lpd_session *session,
		    uint64_t start, struct lpd_assembly **ret_assembly,
		    struct lpd_trouble *ret_trouble)
{
	struct lpd_assembly *assembly = kept_for(worker, session);

	/* One at a time, after which the others are tried again. */
	if (assembly && assembly->start != start)
		return -EINPROGRESS;
	if (!assembly) {
		assembly = worker->assemblies;
		assembly->start = start;
		assembly->have = 0;
	}
	assembly->session = NULL;

	int64_t n = 0;
	while (n >= 0 && assembly->have < LPD_HUGE_SIZE) {
		n = assemble_piece(worker, session, assembly, ret_trouble);
		assembly->have += n < 0 ? 0 : n;
	}
	if (n == -EINPROGRESS || n == -EAGAIN)
		return keep(worker, session, assembly, n);
	if (assembly != worker->assemblies)
		let_others_try(session);
	*ret_assembly = assembly;
	return n < 0 ? n : 0;
}

static bool ends_within(uint64_t huge_end, uint64_t start, uint64_t end)
{
	return start < huge_end && huge_end - LPD_HUGE_SIZE < end;
}

void lpd_hugetlb_forget(struct lpd_worker *worker, struct lpd_session *session,
			uint64_t start, uint64_t end)
{
	struct lpd_assembly *assembly = kept_for(worker, session);

	if (ends_within(session->huge_end, start, end))
		session->huge_end = 0;
	if (ends_within(session->huge_filled_end, start, end))
		session->huge_filled_end = 0;
	if (assembly &&
	    ends_within(assembly->start + LPD_HUGE_SIZE, start, end)) {
		assembly->session = NULL;
		let_others_try(session);
	}
}

/* The image speaks for none of it any more; for how many pages it did. */
static uint64_t mark(struct lpd_session *session, uint64_t start)
{
	return lpd_state_mark(session->state, start, start + LPD_HUGE_SIZE);
}

/* A huge page has been filled; fault is NULL if nobody waits for it. */
static void count_huge(struct lpd_session *session, uint64_t start,
		       struct lpd_pending *fault, enum lpd_step_kind kind)
{
	struct lpd_counters *counters = &session->state->counters;
	uint64_t nr_pages = mark(session, start);

	LPD_COUNT(counters->fills, 1);
	LPD_COUNT(counters->pages_zero,
		  LPD_HUGE_SIZE / LPD_PAGE_SIZE - nr_pages);
	if (fault) {
		fault->outcome = LPD_OUTCOME_FILLED;
		if (!nr_pages && fault->kind == LPD_FAULT_IMAGE)
			fault->kind = LPD_FAULT_ZERO;
	}
	if (fault && nr_pages) {
		LPD_COUNT(counters->pages_fault, 1);
		LPD_COUNT(counters->bytes, LPD_PAGE_SIZE);
		nr_pages--;
	}
	if (nr_pages)
		lpd_account_run(session, start, nr_pages * LPD_PAGE_SIZE, kind);
}

/*
 * Somebody waits for a huge page that COPY says is there: let him look again,
 * but not all the time, for it may be that there is none to be had.
 */
static enum lpd_outcome wake_huge(struct lpd_session *session,
				  struct lpd_pending *fault)
{
	uint64_t now = lpd_now_ns();

	if (now < session->huge_woken_ns + LPD_LATER_NS) {
		LPD_COUNT(session->state->counters.retries, 1);
		session->not_before_ns = session->huge_woken_ns + LPD_LATER_NS;
		return LPD_LATER;
	}
	session->huge_woken_ns = now;
	return lpd_attempt_wake(session, fault);
}

/* The same where nobody waits: if it is not there for sure, none was free. */
static enum lpd_outcome skip_huge(struct lpd_session *session, uint64_t start)
{
	struct lpd_trouble trouble = {.addr = start, .source = UINT32_MAX};
	int rc = lpd_uffd_is_shared(session->fd, start, LPD_HUGE_SIZE);

	if (rc < 0)
		return lpd_attempt_refused(session, trouble, rc);
	if (!rc)
		return lpd_attempt_held(session, trouble, ENOMEM);
	LPD_COUNT(session->state->counters.pages_present, mark(session, start));
	return LPD_FILLED;
}

enum lpd_outcome lpd_fill_huge(struct lpd_worker *worker,
			       struct lpd_session *session, uint64_t addr,
			       struct lpd_pending *fault,
			       enum lpd_step_kind kind)
{
	uint64_t start = addr & ~(uint64_t)(LPD_HUGE_SIZE - 1);
	struct lpd_trouble trouble = {.addr = addr,
				      .source = UINT32_MAX,
				      .waiting = fault != NULL};
	struct lpd_assembly *assembly;
	int64_t rc = assemble(worker, session, start, &assembly, &trouble);

	session->huge_end = start + LPD_HUGE_SIZE;
	if (fault && (rc == -EINPROGRESS || rc == -EAGAIN))
		fault->kind = LPD_FAULT_COLD;
	if (rc < 0)
		return lpd_attempt_unreadable(session, trouble, rc);
	rc = lpd_attempt(session, start, assembly->bytes, LPD_HUGE_SIZE);
	switch (rc) {
	case -EAGAIN:
	case -ENOMEM:
		/* Or it would take too long the next time, too. */
		(void)keep(worker, session, assembly, rc);
		break;
	case -EEXIST:
		return fault ? wake_huge(session, fault)
			     : skip_huge(session, start);
	case -ENOENT:
		if (fault)
			return lpd_attempt_wake(session, fault);
		if (!lpd_attempt_absent(session, addr))
			return LPD_AGAIN;
		LPD_COUNT(session->state->counters.pages_dropped,
			  mark(session, start));
		return LPD_FILLED;
	}
	if (rc < 0)
		return lpd_attempt_refused(session, trouble, rc);
	count_huge(session, start, fault, kind);
	session->huge_filled_end = session->huge_end;
	session->huge_filled_ns = lpd_now_ns();
	return LPD_FILLED;
}

enum lpd_outcome lpd_hugetlb_go_on(struct lpd_worker *worker,
				   struct lpd_session *session)
{
	const struct lpd_assembly *begun = kept_for(worker, session);
	enum lpd_outcome outcome;

	/* What is filled now would be missing in a child that is being made. */
	if (!begun || session->paused)
		return LPD_FILLED;
	outcome = lpd_fill_huge(worker, session, begun->start, NULL,
				LPD_STEP_NEIGHBOUR);
	return outcome == LPD_MISSED || outcome == LPD_HELD ? LPD_FILLED
							    : outcome;
}
