/*
 * previous_handler.c: a program that has a handler of SIGSEGV of its own, and
 * then a channel.  previous_handler CHANNEL ADDR BYTE HANDLER
 *
 * The page at ADDR, of which every byte is BYTE, comes over CHANNEL; HANDLER is
 * "siginfo" or "plain".
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <channel.h>

#define PAGE_SIZE 4096

static char *guarded;
static int nr_calls;

static void open_up(void)
{
	nr_calls++;
	if (mprotect(guarded, PAGE_SIZE, PROT_READ | PROT_WRITE) < 0)
		_exit(2);
}

static void on_segv_plain(int sig)
{
	if (sig != SIGSEGV)
		_exit(3);
	open_up();
}

static void on_segv(int sig, siginfo_t *info, void *context)
{
	if (sig != SIGSEGV || info->si_addr != guarded + 7 || !context)
		_exit(4);
	open_up();
}

static char *map(char *addr, int protection, int flags)
{
	char *memory = mmap(addr, PAGE_SIZE, protection,
			    MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
	return memory == MAP_FAILED ? NULL : memory;
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = on_segv_plain};

	if (argc != 5)
		return 5;
	if (!strcmp(argv[4], "siginfo"))
		action = (struct sigaction){.sa_sigaction = on_segv,
					    .sa_flags = SA_SIGINFO};
	guarded = map(NULL, PROT_NONE, 0);
	char *lazy = map((char *)strtoul(argv[2], NULL, 0),
			 PROT_READ | PROT_WRITE, MAP_FIXED_NOREPLACE);
	if (!guarded || !lazy || sigaction(SIGSEGV, &action, NULL) < 0 ||
	    lpd_channel_open(atoi(argv[1])) < 0 ||
	    lpd_channel_register(lazy, PAGE_SIZE) < 0)
		return 6;
	((volatile char *)guarded)[7] = 1;
	if (nr_calls != 1)
		return 7;
	for (int i = 0; i < PAGE_SIZE; i++)
		if (((volatile char *)lazy)[i] != atoi(argv[3]))
			return 8;
	return nr_calls == 1 ? 0 : 9;
}
