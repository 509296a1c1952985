/*
 * keeper.c: waiting for the daemon's end, and passing on what it had open.
 *
 * The keeper is a copy of the daemon's memory in which one thread is left, at
 * any point of whatever the others were doing.  So it calls nothing that may
 * take a lock or allocate: system calls, and what merely computes.
 */
#define _GNU_SOURCE
#include "keeper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TAKEN_OVER_NAME "taken-over"

enum {
	FIRST_FD = 3,
	MAX_FDS = 1 << 16,
	/* The kernel takes no longer variable (MAX_ARG_STRLEN). */
	MAX_VARIABLE = 128 << 10,
	BARRIER_TIMEOUT_MS = 30000,
	FIRST_DELAY_MS = 5,
	MAX_DOUBLINGS = 10,
	QUICK_S = 2,
};

/* Of the keeper alone: the daemon never touches them. */
static int kept[MAX_FDS];
static unsigned int nr_kept;
/* Daemons in a row that died within QUICK_S, the last one included. */
static unsigned int nr_quick;

/* ---- text, without a library ---- */

static char *put_text(char *at, const char *text)
{
	while (*text)
		*at++ = *text++;
	*at = 0;
	return at;
}

static char *put_number(char *at, unsigned int number)
{
	char digits[10];
	unsigned int n = 0;

	do {
		digits[n++] = '0' + number % 10;
	} while (number /= 10);
	while (n)
		*at++ = digits[--n];
	*at = 0;
	return at;
}

static bool begins(const char *text, const char *prefix)
{
	return !strncmp(text, prefix, strlen(prefix));
}

static void complain(const char *what)
{
	(void)!write(STDERR_FILENO, "lazypagesd: keeper: ", 20);
	(void)!write(STDERR_FILENO, what, strlen(what));
	(void)!write(STDERR_FILENO, "\n", 1);
}

/* ---- what is worth keeping ---- */

static bool is_worth_keeping(int fd)
{
	char path[32], target[64];

	put_number(put_text(path, "/proc/self/fd/"), fd);
	ssize_t n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return false;
	target[n] = 0;
	return begins(target, "anon_inode:[userfaultfd]") ||
	       begins(target, "anon_inode:[pidfd]") ||
	       begins(target, "pidfd:") || begins(target, "socket:") ||
	       (target[0] == '/' && !begins(target, "/dev/"));
}

static void add(const struct lpd_keeper *keeper, int fd)
{
	unsigned int i = nr_kept;

	if (fd < FIRST_FD || fd == keeper->daemon_pidfd || nr_kept == MAX_FDS ||
	    !is_worth_keeping(fd))
		return;
	/* In order, which a directory need not be. */
	for (; i > 0 && kept[i - 1] > fd; i--)
		kept[i] = kept[i - 1];
	kept[i] = fd;
	nr_kept++;
}

static int number_in(const char *text)
{
	int number = 0;

	for (; *text >= '0' && *text <= '9'; text++)
		number = number * 10 + *text - '0';
	return number;
}

static void find_kept(const struct lpd_keeper *keeper)
{
	char buffer[4096] __attribute__((aligned(8)));
	long n;
	int directory =
		open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	nr_kept = 0;
	while ((n = syscall(SYS_getdents64, directory, buffer,
			    sizeof(buffer))) > 0) {
		for (long at = 0; at < n;) {
			struct dirent64 *entry = (void *)(buffer + at);
			int fd = number_in(entry->d_name);

			if (entry->d_name[0] != '.' && fd != directory)
				add(keeper, fd);
			at += entry->d_reclen;
		}
	}
	close(directory);
}

/* ---- to the service manager ---- */

/* 0, or -errno. */
static int tell(int sock, const struct lpd_keeper *keeper, const char *text,
		int fd)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {.head = {.cmsg_level = SOL_SOCKET,
			      .cmsg_type = SCM_RIGHTS,
			      .cmsg_len = CMSG_LEN(sizeof(int))}};
	struct iovec iov = {.iov_base = (void *)text, .iov_len = strlen(text)};
	struct msghdr message = {.msg_name = (void *)keeper->notify_address,
				 .msg_namelen = keeper->notify_length,
				 .msg_iov = &iov,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof(control)};

	memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
	while (sendmsg(sock, &message, MSG_NOSIGNAL) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

/* Wait until the manager has handled all that it was told. */
static void wait_for_manager(int sock, const struct lpd_keeper *keeper)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC))
		return;
	struct pollfd poller = {.fd = ends[0]};
	int rc = tell(sock, keeper, "BARRIER=1", ends[1]);
	close(ends[1]);
	if (rc || poll(&poller, 1, BARRIER_TIMEOUT_MS) <= 0)
		complain("the service manager does not answer");
}

static void give_to_manager(const struct lpd_keeper *keeper)
{
	int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char text[64];

	for (unsigned int i = 0; i < nr_kept; i++) {
		char *end = put_text(text, "FDSTORE=1\nFDPOLL=0\nFDNAME=");

		put_number(end, kept[i]);
		if (tell(sock, keeper, text, kept[i]))
			complain("cannot reach the service manager");
	}
	wait_for_manager(sock, keeper);
}

/* ---- to a daemon of our own ---- */

/* Move what is kept to where a started daemon looks for it: from 3 on. */
static void line_up(void)
{
	for (unsigned int i = 0; i < nr_kept; i++) {
		/* They ascend, so none is where another one still is. */
		int to = FIRST_FD + i;

		if (kept[i] == to)
			fcntl(to, F_SETFD, 0);
		else
			dup2(kept[i], to);
	}
}

static bool put_names(char *variable)
{
	char *at = put_text(variable, "LISTEN_FDNAMES=");

	for (unsigned int i = 0; i < nr_kept; i++) {
		if (at - variable > MAX_VARIABLE - 32)
			return false;
		if (i)
			*at++ = ':';
		at = put_number(at, kept[i]);
	}
	/* Where the next daemon says that it has taken over. */
	put_text(at, nr_kept ? ":" TAKEN_OVER_NAME : TAKEN_OVER_NAME);
	return true;
}

/* The started daemon, until it is another program: never returns. */
static void start(const struct lpd_keeper *keeper, int taken_over_fd)
{
	static char names[MAX_VARIABLE], fds[32], pid[32], quick[48];
	char **free_places = keeper->environment + keeper->nr_environment;
	sigset_t none;

	if (!put_names(names)) {
		complain("too many descriptors for the next daemon");
		_exit(1);
	}
	put_number(put_text(fds, "LISTEN_FDS="), nr_kept + 1);
	put_number(put_text(pid, "LISTEN_PID="), getpid());
	put_number(put_text(quick, "LAZYPAGESD_QUICK_DEATHS="), nr_quick);
	free_places[0] = names;
	free_places[1] = fds;
	free_places[2] = pid;
	free_places[3] = quick;
	free_places[4] = NULL;

	/* Out of the way, and then behind all that is passed. */
	int last = nr_kept ? kept[nr_kept - 1] : FIRST_FD - 1;
	int aside = fcntl(taken_over_fd, F_DUPFD, last + 1);
	line_up();
	dup2(aside, FIRST_FD + nr_kept);
	syscall(SYS_close_range, FIRST_FD + nr_kept + 1, ~0u, 0);
	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(keeper->command[0], keeper->command, keeper->environment);
	complain("cannot start the next daemon");
	_exit(1);
}

/* Start a daemon, and wait: true once it says that it has taken over. */
static bool start_next(const struct lpd_keeper *keeper)
{
	char byte;
	int ends[2];

	if (pipe2(ends, O_CLOEXEC))
		return false;
	/* With a table of its own. */
	pid_t pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (!pid)
		start(keeper, ends[1]);
	close(ends[1]);
	bool taken_over = pid > 0 && read(ends[0], &byte, 1) == 1;
	close(ends[0]);
	if (!taken_over && pid > 0)
		waitpid(pid, NULL, 0);
	return taken_over;
}

/* The more of them have died at once, the longer before the next one. */
static void wait_for_turn(void)
{
	unsigned int doublings =
		nr_quick < MAX_DOUBLINGS ? nr_quick : MAX_DOUBLINGS;
	unsigned int delay_ms = nr_quick ? FIRST_DELAY_MS << doublings : 0;

	nanosleep(&(struct timespec){.tv_sec = delay_ms / 1000,
				     .tv_nsec = delay_ms % 1000 * 1000000l},
		  NULL);
}

static void give_to_next(const struct lpd_keeper *keeper)
{
	wait_for_turn();
	while (!start_next(keeper)) {
		nr_quick++;
		complain("the next daemon has not taken over; trying again");
		wait_for_turn();
	}
}

static time_t now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

/* ---- the keeper ---- */

static void keep(const struct lpd_keeper *keeper)
{
	struct pollfd poller = {.fd = keeper->daemon_pidfd, .events = POLLIN};
	time_t began_s = now_s();

	while (poll(&poller, 1, -1) < 1)
		;
	if (__atomic_load_n(&keeper->shared->over, __ATOMIC_ACQUIRE))
		_exit(0);
	if (keeper->shared->taken_over_fd >= 0)
		(void)!write(keeper->shared->taken_over_fd, "", 1);
	nr_quick = now_s() - began_s < QUICK_S ? keeper->nr_quick + 1 : 0;
	find_kept(keeper);
	if (keeper->notify_length)
		give_to_manager(keeper);
	else
		give_to_next(keeper);
	_exit(0);
}

int lpd_keeper_start(const struct lpd_keeper *keeper)
{
	char name[16];
	sigset_t all, before;

	/*
	 * It is born deaf, for whoever ends the daemon with all that is around
	 * it means us last, and with its name: it may have to wait long before
	 * it runs, and nobody is to take it for the daemon meanwhile.
	 */
	prctl(PR_GET_NAME, name);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	prctl(PR_SET_NAME, "lazypagesd-keep");
	long pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
	if (!pid)
		keep(keeper);
	int error = errno;
	prctl(PR_SET_NAME, name);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return pid < 0 ? -error : pid;
}
