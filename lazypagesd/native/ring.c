/*
 * ring.c: the sessions of a worker that have work, which take turns.
 */
#include "roster.h"

void lpd_session_activate(struct lpd_worker *worker,
			  struct lpd_session *session)
{
	worker->nr_idle_steps = 0;
	if (session->next_active)
		return;
	worker->nr_active++;
	if (!worker->active) {
		worker->active = session;
		session->next_active = session;
		session->prev_active = session;
		return;
	}
	session->next_active = worker->active;
	session->prev_active = worker->active->prev_active;
	session->prev_active->next_active = session;
	worker->active->prev_active = session;
}

void lpd_session_deactivate(struct lpd_worker *worker,
			    struct lpd_session *session)
{
	if (!session->next_active)
		return;
	worker->nr_active--;
	session->next_active->prev_active = session->prev_active;
	session->prev_active->next_active = session->next_active;
	if (worker->active == session)
		worker->active = session->next_active == session
					 ? NULL
					 : session->next_active;
	session->next_active = NULL;
	session->prev_active = NULL;
}
