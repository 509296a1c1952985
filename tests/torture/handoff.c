/*
 * handoff.c: a process hands itself over, with all of its arenas.
 */
#include "torture.h"

#include "../support/restored.h"

static void register_arena(int fd, const struct arena *arena)
{
	const struct range *range = &arena->ranges[0];

	demand(map_pages(range->addr, range->nr, PROT_READ | PROT_WRITE,
			 MAP_FIXED_NOREPLACE) == range->addr,
	       "mmap of an arena");
	register_missing(fd, range->addr, range->nr * PAGE_SIZE);
}

void hand_over(const char *dir, int pid)
{
	char go;

	demand(chdir(dir) == 0, dir);
	int socket = connect_here(), fd = open_userfaultfd();
	send_process(socket, pid, fd);
	for (unsigned int i = 0; i < options.nr_arenas; i++)
		register_arena(fd, &arenas[i]);
	close(fd);
	/* Once everybody is connected: the daemon leaves with the last. */
	printf("connected\n");
	fflush(stdout);
	demand(read(STDIN_FILENO, &go, 1) == 1, "read of the word to go");
	send_final_word(socket);
	close(socket);
}
