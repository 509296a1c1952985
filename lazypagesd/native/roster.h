/*
 * roster.h: the sessions of a worker, roster.c, and the ring of those that
 * have work, ring.c.
 */
#ifndef LAZYPAGESD_ROSTER_H
#define LAZYPAGESD_ROSTER_H

#include "internal.h"

/* Give a session its turns, behind everybody else / no more of them. */
void lpd_session_activate(struct lpd_worker *worker,
			  struct lpd_session *session);
void lpd_session_deactivate(struct lpd_worker *worker,
			    struct lpd_session *session);

/* Serve a session that may have messages, and settle what becomes of it. */
void lpd_roster_serve(struct lpd_worker *worker, struct lpd_session *session);

/*
 * A session has been looked at, with that outcome: is it finished, to be left
 * alone, or to be given turns?
 */
void lpd_roster_settle(struct lpd_worker *worker, struct lpd_session *session,
		       enum lpd_outcome outcome);

/*
 * The last that is done with a session, once no reader or helper is at it and
 * every child that it forked has been made.  It may be freed from then on; is
 * one of these still to come, this is to be called again.
 */
void lpd_roster_detach(struct lpd_worker *worker, struct lpd_session *session);

/* Do what was asked for by way of the inbox; collect reads and jobs. */
void lpd_roster_take_inbox(struct lpd_worker *worker);

#endif /* LAZYPAGESD_ROSTER_H */
