/*
 * fill.h: pages filled by a worker: where their bytes come from (source.c,
 * reader.c), one attempt (attempt.c), a fault or a run (fill.c), a huge page
 * (hugetlb.c), and what nobody waits for (background.c).
 */
#ifndef LAZYPAGESD_FILL_H
#define LAZYPAGESD_FILL_H

#include "internal.h"

/*
 * Bytes of a source, without waiting: at least one page of them, at most len.
 * Returns how many, and where (valid until the next call for this worker);
 * -EINPROGRESS when a reader fetches them, -EAGAIN when all readers are busy,
 * or another -errno: ENODATA where the source ends before the page does.
 */
int64_t lpd_source_read(struct lpd_worker *worker, struct lpd_session *session,
			uint32_t source, uint64_t offset, uint64_t len,
			const uint8_t **ret_bytes);

/*
 * The same, copied to where the caller wants them; with -EINPROGRESS and
 * -EAGAIN, what is read for that is one cold read at most.
 */
int64_t lpd_source_read_into(struct lpd_worker *worker,
			     struct lpd_session *session, uint32_t source,
			     uint64_t offset, uint64_t len, uint8_t *bytes);

/* Forget what is staged for a session. */
void lpd_source_forget(struct lpd_worker *worker, struct lpd_session *session);

/* Let the sessions whose cold reads are done go on. */
void lpd_reads_collect(struct lpd_worker *worker);

/* Free the reads that a session has been offered, used or not. */
void lpd_reads_release(struct lpd_worker *worker, struct lpd_session *session);

/*
 * A single attempt: COPY, or ZEROPAGE if bytes is NULL, which keeps at it while
 * it gets EAGAIN for as long as the session insists; and what becomes of a page
 * that is held, or refused, or whose bytes cannot be read, with what is to be
 * told.
 */
int64_t lpd_attempt(struct lpd_session *session, uint64_t addr,
		    const uint8_t *bytes, uint64_t len);
enum lpd_outcome lpd_attempt_held(struct lpd_session *session,
				  struct lpd_trouble trouble, uint32_t err);
enum lpd_outcome lpd_attempt_refused(struct lpd_session *session,
				     struct lpd_trouble trouble, int64_t rc);
enum lpd_outcome lpd_attempt_unreadable(struct lpd_session *session,
					struct lpd_trouble trouble, int64_t rc);

/* What is there is there: let whoever waits for it look again. */
enum lpd_outcome lpd_attempt_wake(struct lpd_session *session,
				  struct lpd_pending *fault);

/* Is a page that got ENOENT not registered, rather than being moved? */
bool lpd_attempt_absent(struct lpd_session *session, uint64_t addr);

/* Between attempts that wait for something that does not tell. */
#define LPD_LATER_NS LPD_NS_PER_MS

/*
 * Fill a page that was faulted at, with up to max_pages - 1 behind it if the
 * image speaks for it; counts, sets bits, and notes in *fault how it went.
 */
enum lpd_outcome lpd_fill_fault(struct lpd_worker *worker,
				struct lpd_session *session,
				struct lpd_pending *fault, uint32_t max_pages);

/*
 * Fill a run in as few calls as it takes; kind, NEIGHBOUR or DRAIN, is what
 * its pages are counted as.  Of its source, so many bytes from its first page
 * on will be wanted, of which some are those of runs that follow.
 */
enum lpd_outcome lpd_fill_run(struct lpd_worker *worker,
			      struct lpd_session *session,
			      const struct lpd_region *run, uint64_t wanted,
			      enum lpd_step_kind kind);

/*
 * Fill the huge page around addr: for a fault or, where that is NULL, unasked;
 * kind is what all but the page of the fault are counted as.  Once it is
 * filled, session->huge_end is its end.
 */
enum lpd_outcome lpd_fill_huge(struct lpd_worker *worker,
			       struct lpd_session *session, uint64_t addr,
			       struct lpd_pending *fault,
			       enum lpd_step_kind kind);

/*
 * Go on with what the session has begun with, whoever did: he need not come
 * again, as drain that goes back to what a helper could not fill.  Returns
 * LPD_FILLED also where nothing was begun or it has to wait; anything else is
 * about the session as a whole.
 */
enum lpd_outcome lpd_hugetlb_go_on(struct lpd_worker *worker,
				   struct lpd_session *session);

/* Is addr in a huge page of which something has been put together? */
bool lpd_hugetlb_begun(struct lpd_worker *worker,
		       const struct lpd_session *session, uint64_t addr);

/* Is addr in the huge page that ends at end?  0: there is none. */
static inline bool lpd_hugetlb_ends_at(uint64_t end, uint64_t addr)
{
	return addr < end && addr >= end - LPD_HUGE_SIZE;
}

/* What was put together of [start, end), or known of it, is not right any more.
 */
void lpd_hugetlb_forget(struct lpd_worker *worker, struct lpd_session *session,
			uint64_t start, uint64_t end);

/*
 * How many pages may be filled now that nobody waits for, by the session's
 * rate; not counting on its release.
 */
uint64_t lpd_background_budget(struct lpd_session *session);

/*
 * How many bytes of its source are wanted from the first of these runs on, to
 * where more than a page of it is not: that of a fault is in the middle of its
 * neighbourhood.
 */
uint64_t lpd_bytes_wanted(const struct lpd_region *runs, uint32_t nr_runs);

/* One bounded piece of work that nobody waits for. */
enum lpd_outcome lpd_background_step(struct lpd_worker *worker,
				     struct lpd_session *session);

/* Is there anything for lpd_background_step() to do? */
bool lpd_background_wanted(const struct lpd_session *session);

/* Remember that the neighbourhood of a page is wanted. */
void lpd_background_wish(struct lpd_session *session, uint64_t addr);

#endif /* LAZYPAGESD_FILL_H */
