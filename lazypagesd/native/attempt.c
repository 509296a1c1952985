/*
 * attempt.c: one attempt to fill, and what each refusal means.
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
 * - EINVAL: the page is part of a huge one, which is filled as a whole.  Of
 *   that, EEXIST may also mean that there is no free one to be had (tried, up
 *   to Linux 6.18): it is not taken for a page that is there.
 * - ESRCH (and ENOSPC, before Linux 4.13): the address space is gone.
 * - ENOMEM: the memory cgroup of the process is full.
 */
#include <errno.h>

#include "fill.h"

int64_t lpd_attempt(struct lpd_session *session, uint64_t addr,
		    const uint8_t *bytes, uint64_t len)
{
	const struct lpd_protocol *protocol = session->protocol;
	int64_t rc;

	do {
		rc = bytes ? protocol->copy(session->fd, addr, bytes, len)
			   : protocol->zeropage(session->fd, addr, len);
	} while (rc == -EAGAIN && lpd_session_insists(session));
	if (rc > 0)
		lpd_crash_point(bytes ? "copied" : "zeroed");
	return rc;
}

enum lpd_outcome lpd_attempt_held(struct lpd_session *session,
				  struct lpd_trouble trouble, uint32_t err)
{
	trouble.err = err;
	lpd_session_hold(session, trouble);
	return LPD_HELD;
}

enum lpd_outcome lpd_attempt_refused(struct lpd_session *session,
				     struct lpd_trouble trouble, int64_t rc)
{
	switch (-rc) {
	case EAGAIN:
		LPD_COUNT(session->state->counters.retries, 1);
		return LPD_AGAIN;
	case ENOMEM:
		LPD_COUNT(session->state->counters.retries, 1);
		session->not_before_ns = lpd_now_ns() + LPD_LATER_NS;
		return LPD_LATER;
	case ESRCH:
	case ENOSPC:
		return LPD_GONE;
	default:
		return lpd_attempt_held(session, trouble, -rc);
	}
}

enum lpd_outcome lpd_attempt_unreadable(struct lpd_session *session,
					struct lpd_trouble trouble, int64_t rc)
{
	switch (-rc) {
	case EINPROGRESS:
		return LPD_MISSED;
	case EAGAIN:
		session->not_before_ns = lpd_now_ns() + LPD_LATER_NS;
		return LPD_LATER;
	default:
		return lpd_attempt_held(session, trouble, -rc);
	}
}

enum lpd_outcome lpd_attempt_wake(struct lpd_session *session,
				  struct lpd_pending *fault)
{
	LPD_COUNT(session->state->counters.wakes, 1);
	int rc = session->protocol->wake(session->fd, fault->addr,
					 LPD_PAGE_SIZE);

	fault->outcome = LPD_OUTCOME_WOKEN;
	return rc == -ESRCH ? LPD_GONE : LPD_FILLED;
}

bool lpd_attempt_absent(struct lpd_session *session, uint64_t addr)
{
	if (session->absent_addr == addr && session->absent_confirmed)
		return true;
	session->absent_addr = addr;
	session->absent_confirmed = 0;
	return false;
}
