/*
 * crash.c: a daemon that dies where a test wants it to, as by SIGKILL.
 *
 * LAZYPAGESD_CRASH=POINT:N names the point, and how often it is reached first;
 * LAZYPAGESD_CRASH_ONCE= a file that is made then.  Where it is there, nobody
 * dies: so the next daemon, which has the same environment, goes on.
 */
#include "internal.h"

#ifdef LPD_CRASH_POINTS

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_chosen(const char *name)
{
	static uint64_t nr_reached; /* by all workers */
	const char *chosen = getenv("LAZYPAGESD_CRASH");
	size_t length = strlen(name);

	if (!chosen || strncmp(chosen, name, length) || chosen[length] != ':')
		return false;
	return __atomic_add_fetch(&nr_reached, 1, __ATOMIC_RELAXED) ==
	       strtoull(chosen + length + 1, NULL, 10);
}

void lpd_crash_point(const char *name)
{
	const char *once = getenv("LAZYPAGESD_CRASH_ONCE");

	if (!once || !is_chosen(name))
		return;
	int fd = open(once, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	/* The keeper has what we have open. */
	close(fd);
	kill(getpid(), SIGKILL);
}

#endif
