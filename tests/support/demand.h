/*
 * demand.h: for programs of tests that, if they cannot go on, have nothing to
 * clean up.
 */
#ifndef SUPPORT_DEMAND_H
#define SUPPORT_DEMAND_H

#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

/* End, with exit code 2, unless it @happened. */
static inline void demand(bool happened, const char *what)
{
	if (happened)
		return;
	perror(what);
	_exit(2);
}

#endif
