/*
 * keeper.h: a process that has whatever the daemon has open, and outlives it.
 *
 * When the last descriptor of a userfaultfd is closed, the kernel gives the
 * process zeros for what is missing, and nobody hears of it.  So a daemon that
 * is killed must not be the only one that has it.  The keeper is made by
 * clone(2) with CLONE_FILES: it shares the daemon's table of descriptors,
 * those that read(2) of a FORK brings included, and nothing else.  It waits
 * for the daemon's end.  Then it gives what is worth keeping either to the
 * service manager, which passes it to the daemon that it starts next; or to a
 * daemon that it starts itself, in just the same way (man 3 sd_listen_fds):
 * each descriptor under its number as its name, and one called "taken-over"
that wants a byte when all of it is in the hands of the new daemon, and of a
keeper of its own.
 *
 * Worth keeping are userfaultfds, pidfds, our memfds, sockets, and files that
 * are not devices.
 *
 * Declarations only: cffi reads this file, without its preprocessor lines.
 */
#ifndef LAZYPAGESD_KEEPER_H
#define LAZYPAGESD_KEEPER_H

#include <stdint.h>

/* What the daemon tells its keeper, in memory that both share. */
struct lpd_keeper_shared {
	uint32_t over; /* 1 while the daemon has nothing to lose */
	/*
	 * Where an earlier keeper, which has started this daemon, still waits
	 * to hear that it has taken over; or -1.  If it dies before it has
	 * said so, its own keeper does, and it is that one's turn: always one
	 * keeper is to act, and never two.
	 */
	int32_t taken_over_fd;
};

/* Prepared by the daemon.  The keeper has a copy, but of *shared. */
struct lpd_keeper {
	struct lpd_keeper_shared *shared;
	/* Where the service manager listens (a sockaddr_un); or, with length
	 * 0, how to start the next daemon. */
	const void *notify_address;
	uint32_t notify_length;
	/* Readable once the daemon is dead. */
	int32_t daemon_pidfd;
	/* NULL-terminated; five places at the end of environment are free. */
	char **command;
	char **environment;
	uint32_t nr_environment; /* of variables that are set */
	/* Daemons in a row, before this one, that died within two seconds. */
	uint32_t nr_quick;
};

/*
 * Start the keeper: its pid, or -errno.  The daemon goes on, and keeps what
 * *keeper points to.  Other threads of the daemon do not matter.
 */
int lpd_keeper_start(const struct lpd_keeper *keeper);

#endif /* LAZYPAGESD_KEEPER_H */
