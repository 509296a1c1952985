/*
 * handoff.c: a process that hands itself over, as many sessions.
 *
 * One process plays all sessions: each has a userfaultfd, and a range of
 * addresses of its own.  So a thousand sessions are touched as one is, and
 * what differs is the handler's part alone.
 */
#define _GNU_SOURCE
#include "../support/restored.h"
#include "toucher.h"

#define FIRST_PID 1000 /* as in layout.py */

uint64_t hand_over(const struct layout *layout)
{
	int socket = connect_here();

	for (uint64_t i = 0; i < layout->nr_sessions; i++) {
		void *addr = (void *)session_addr(layout, i);
		uint64_t size = session_size(layout);
		int fd = open_userfaultfd();

		send_process(socket, FIRST_PID + i, fd);
		map_memory(addr, size);
		register_missing(fd, addr, size);
		close(fd);
	}
	uint64_t start_ns = now_ns(CLOCK_MONOTONIC);
	send_final_word(socket);
	/* The connection lasts as long as we do: bare.c ends with it. */
	return start_ns;
}
