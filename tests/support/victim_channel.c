/*
 * victim_channel.c: a channel in place of the userfaultfd.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "channel.h"
#include "victim.h"

static int channel_fd = -1;

/* The other end is handed over in its place; ours has no flag that helps. */
static int64_t do_chopen(const uint64_t *args)
{
	int fds[2];

	(void)args;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds) < 0 ||
	    fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0 ||
	    fcntl(fds[1], F_SETFD, FD_CLOEXEC) < 0)
		return -errno;
	channel_fd = fds[0];
	uffd = fds[1];
	return 0;
}

/* To who listens beside our own socket: nothing needs to be handed over. */
static int64_t do_chconnect(const uint64_t *args)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	(void)args;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s.channel",
		 socket_path);
	channel_fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	return result_of(
		connect(channel_fd, (struct sockaddr *)&addr, sizeof(addr)));
}

/* Answers the exchange. */
static int64_t do_chserve(const uint64_t *args)
{
	(void)args;
	return lpd_channel_open(channel_fd);
}

/* The same, as one that does not know v2: its request is answered with zeros.
 */
static int64_t do_chserve1(const uint64_t *args)
{
	uint64_t packet[4] = {0};
	struct pollfd poller = {.fd = channel_fd, .events = POLLIN};

	if (poll(&poller, 1, -1) < 0 ||
	    recv(channel_fd, packet, sizeof(packet), 0) < 0)
		return -errno;
	memset(packet, 0, sizeof(packet));
	if (send(channel_fd, packet, sizeof(packet), 0) < 0)
		return -errno;
	return do_chserve(args);
}

static int64_t do_chregister(const uint64_t *args)
{
	return lpd_channel_register((void *)args[0], args[1]);
}

static int64_t do_chmunmap(const uint64_t *args)
{
	return lpd_channel_munmap((void *)args[0], args[1]);
}

static int64_t do_chdiscard(const uint64_t *args)
{
	return lpd_channel_discard((void *)args[0], args[1]);
}

static int64_t do_chmremap(const uint64_t *args)
{
	return lpd_channel_mremap((void *)args[0], args[1], (void *)args[2]);
}

static int64_t do_chpopulate(const uint64_t *args)
{
	lpd_channel_populate((void *)args[0], args[1]);
	return 0;
}

const struct command channel_commands[] = {
	{"chopen", do_chopen},         {"chconnect", do_chconnect},
	{"chserve", do_chserve},       {"chserve1", do_chserve1},
	{"chregister", do_chregister}, {"chmunmap", do_chmunmap},
	{"chdiscard", do_chdiscard},   {"chmremap", do_chmremap},
	{"chpopulate", do_chpopulate}, {0},
};
