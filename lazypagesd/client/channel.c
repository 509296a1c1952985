/*
 * channel.c: opening a channel, its lock, and fork().  See channel.h.
 */
#define _GNU_SOURCE 1 /* like -D_GNU_SOURCE, which a program may have */
#include "channel_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

struct lpd_channel lpd_channel = {.fd = -1, .child_fd = -1};

/* ---- the lock, and waiting ---- */

void lpd_channel_futex(uint32_t *word, int operation, uint32_t value)
{
	syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL);
}

void lpd_channel_lock(sigset_t *ret_mask)
{
	uint32_t unlocked = 0;
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, ret_mask);
	if (__atomic_compare_exchange_n(&lpd_channel.lock, &unlocked, 1, false,
					__ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
		return;
	while (__atomic_exchange_n(&lpd_channel.lock, 2, __ATOMIC_ACQUIRE))
		lpd_channel_futex(&lpd_channel.lock, FUTEX_WAIT, 2);
}

void lpd_channel_unlock(const sigset_t *mask)
{
	if (__atomic_exchange_n(&lpd_channel.lock, 0, __ATOMIC_RELEASE) == 2)
		lpd_channel_futex(&lpd_channel.lock, FUTEX_WAKE, 1);
	pthread_sigmask(SIG_SETMASK, mask, NULL);
}

void lpd_channel_wake_all(void)
{
	__atomic_fetch_add(&lpd_channel.filled, 1, __ATOMIC_RELEASE);
	lpd_channel_futex(&lpd_channel.filled, FUTEX_WAKE, INT_MAX);
}

/* ---- fork ---- */

/*
 * If it cannot be told (ETOOMANYREFS; gVisor takes no descriptors to the host),
 * the child has no channel: it gets SIGSEGV where something is missing.
 */
static void before_fork(void)
{
	uint64_t number = 0; /* given at the other end */
	int fds[2];

	lpd_channel_lock(&lpd_channel.fork_mask);
	lpd_channel.child_fd = -1;
	if (lpd_channel.ended || lpd_channel.complete ||
	    !(lpd_channel.features & LPD_V2_FEATURE(LPD_V2_FORK)) ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return;
	lpd_channel.child_fd = fds[0];
	/* For who fills; the system allows less. */
	(void)setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &(int){1 << 22},
			 sizeof(int));
	if (lpd_channel_tell(LPD_V2_FORK, &number, 1, fds[1]) < 0) {
		close(fds[0]);
		lpd_channel.child_fd = -1;
	}
	close(fds[1]);
}

static void after_fork_in_parent(void)
{
	if (lpd_channel.child_fd >= 0)
		close(lpd_channel.child_fd);
	lpd_channel_unlock(&lpd_channel.fork_mask);
}

static void after_fork_in_child(void)
{
	close(lpd_channel.fd);
	lpd_channel.fd = lpd_channel.child_fd;
	lpd_channel.pid = getpid();
	lpd_channel.nr_told = 0;
	/* Whoever had asked was a thread of the parent. */
	lpd_channel_forget_asked(0, UINTPTR_MAX);
	if (lpd_channel.fd < 0 || lpd_channel_start_serving() < 0)
		lpd_channel.ended = true;
	lpd_channel_unlock(&lpd_channel.fork_mask);
}

/* ---- opening ---- */

/* The answer to a request: zeros alone if it is not understood. */
static struct lpd_wire_api grant(const struct lpd_wire_api *asked)
{
	struct lpd_wire_api ret = {.api = asked->api, .ioctls = LPD_OP_ALL};
	bool is_v2 = asked->api == LPD_API_V2;
	uint64_t known = is_v2 ? LPD_V2_ALL_FEATURES : 0;

	if ((!is_v2 && asked->api != LPD_API_V1) || asked->features & ~known ||
	    asked->bits || asked->ioctls)
		return (struct lpd_wire_api){0};
#ifdef __x86_64__
	ret.bits = LPD_UFFD_BIT_WRITE;
#endif
	if (is_v2) {
		ret.features =
			asked->features | LPD_V2_FEATURE(LPD_V2_PAGEFAULT);
		/* Nothing has arguments but for these. */
		if (!(asked->features & LPD_V2_FEATURE(LPD_V2_ARGUMENT)))
			ret.features &= LPD_V2_FEATURE(LPD_V2_PAGEFAULT) |
					LPD_V2_FEATURE(LPD_V2_FORK);
		ret.bits |= ret.features << LPD_V2_SHIFT;
	}
	return ret;
}

void lpd_channel_grant_again(const struct lpd_wire_api *asked)
{
	struct lpd_wire_api answer = grant(asked);

	if (answer.api != (lpd_channel.is_v2 ? LPD_API_V2 : LPD_API_V1) ||
	    answer.features != lpd_channel.features)
		answer = (struct lpd_wire_api){0};
	(void)lpd_channel_send_packet(&answer, sizeof(answer), -1);
}

/* The next request, or one that nobody grants; -errno, or 0 at the end. */
static ssize_t receive_request(int fd, struct lpd_wire_api *ret_asked)
{
	ssize_t n;

	do {
		n = recv(fd, ret_asked, sizeof(*ret_asked), MSG_TRUNC);
	} while (n < 0 && errno == EINTR);
	if (n != sizeof(*ret_asked))
		ret_asked->api = 0;
	return n < 0 ? -errno : n;
}

/* Who asks for more than is understood here may ask for less then. */
static int exchange(int fd)
{
	struct lpd_wire_api asked, answer = {0};
	int rc_at_end = -EPIPE;

	while (!answer.api) {
		ssize_t n = receive_request(fd, &asked);

		if (n <= 0)
			return n ? n : rc_at_end;
		answer = grant(&asked);
		if (send(fd, &answer, sizeof(answer), MSG_NOSIGNAL) < 0)
			return -errno;
		rc_at_end = -EINVAL;
	}
	lpd_channel.is_v2 = answer.api == LPD_API_V2;
	lpd_channel.features = answer.features;
	return 0;
}

/*
 * A program that is executed must not keep the channel from ending, and a
 * fault that is told of waits until there is room for it.
 */
static int set_flags(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0 ||
	    fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return -errno;
	return 0;
}

static int prepare(int fd)
{
	if (lpd_channel.fd >= 0)
		return -EBUSY;

	int rc = set_flags(fd);
	return rc ? rc : exchange(fd);
}

int lpd_channel_open(int fd)
{
	struct sigaction action = {
		.sa_sigaction = lpd_channel_on_segv,
		/* Who waits in it can be interrupted by what faults as well. */
		.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK | SA_RESTART,
	};
	int rc = prepare(fd);

	if (rc) {
		close(fd);
		return rc;
	}
	lpd_channel.fd = fd;
	lpd_channel.pid = getpid();
	sigemptyset(&action.sa_mask);
	if (sigaction(SIGSEGV, &action, &lpd_channel.previous) < 0)
		return -errno;
	rc = -pthread_atfork(before_fork, after_fork_in_parent,
			     after_fork_in_child);
	return rc ? rc : lpd_channel_start_serving();
}
