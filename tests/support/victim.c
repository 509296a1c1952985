/*
 * victim.c: a process whose memory is filled by userfaultfd, and which does to
 * that memory what it is told to.
 *
 * It connects to the unix socket named by argv[1] and obeys: a line is a name
 * and up to five numbers, an answer two 64-bit words (a result or -errno; the
 * length of what follows) and the bytes that follow.  The first word that it
 * sends, unasked, is its pid.  A process that it forks connects by itself.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "victim.h"

const char *socket_path;

int sock = -1;

int64_t result_of(int64_t returned)
{
	return returned < 0 ? -errno : returned;
}

void send_all(const void *bytes, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = write(sock, (const char *)bytes + done, len - done);

		if (n <= 0)
			_exit(3);
		done += n;
	}
}

void answer_begin(int64_t result, size_t len)
{
	struct {
		int64_t result;
		uint64_t len;
	} head = {.result = result, .len = len};

	send_all(&head, sizeof(head));
}

static void answer(int64_t result)
{
	answer_begin(result, 0);
}

void introduce_oneself(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int64_t pid = getpid();

	strncpy(addr.sun_path, socket_path, sizeof(addr.sun_path) - 1);
	if (sock >= 0)
		close(sock);
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		_exit(4);
	send_all(&pid, sizeof(pid));
}

static int64_t run_command(const char *name, const uint64_t *args)
{
	static const struct command *const tables[] = {
		handover_commands, channel_commands, reading_commands,
		mapping_commands,  hammer_commands,  process_commands,
	};

	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
		for (const struct command *c = tables[i]; c->name; c++)
			if (!strcmp(name, c->name))
				return c->run(args);
	return -ENOSYS;
}

/* ---- one command beside others, in a thread ---- */

static struct {
	pthread_t thread;
	char name[16];
	uint64_t args[NR_ARGS];
	int64_t result;
} aside;

static void *run_aside(void *arg)
{
	aside.result = run_command(aside.name, aside.args);
	return arg;
}

static int64_t begin_aside(const char *name, const uint64_t *args)
{
	snprintf(aside.name, sizeof(aside.name), "%s", name);
	memcpy(aside.args, args, sizeof(aside.args));
	return -pthread_create(&aside.thread, NULL, run_aside, NULL);
}

static int64_t end_aside(void)
{
	pthread_join(aside.thread, NULL);
	return aside.result;
}

static void run(const char *name, const uint64_t *args)
{
	if (!strcmp(name, "read"))
		read_now(args);
	else if (!strcmp(name, "end"))
		end_reading();
	else if (!strncmp(name, "aside:", strlen("aside:")))
		answer(begin_aside(name + strlen("aside:"), args));
	else if (!strcmp(name, "rejoin"))
		answer(end_aside());
	else
		answer(run_command(name, args));
}

/* Until the socket is closed. */
void obey(void)
{
	char line[256], *rest;
	size_t len = 0;

	while (read(sock, line + len, 1) == 1) {
		if (line[len] != '\n') {
			len = len < sizeof(line) - 2 ? len + 1 : len;
			continue;
		}
		line[len] = '\0';
		len = 0;

		uint64_t args[NR_ARGS] = {0};
		const char *name = strtok_r(line, " ", &rest), *word;
		for (unsigned int i = 0;
		     i < NR_ARGS && (word = strtok_r(NULL, " ", &rest)); i++)
			args[i] = strtoull(word, NULL, 0);
		run(name ? name : "", args);
	}
	_exit(0);
}

int main(int argc, char **argv)
{
	/* After an exec: be there, with other memory. */
	if (argc < 2)
		for (;;)
			pause();
	socket_path = argv[1];
	signal(SIGCHLD, SIG_IGN);
	introduce_oneself();
	obey();
}
