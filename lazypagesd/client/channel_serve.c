/*
 * channel_serve.c: packets, and how they are applied.
 */
#define _GNU_SOURCE 1 /* like -D_GNU_SOURCE, which a program may have */
#include "channel_internal.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#define NAP_NS 1000000

/* ---- pages ---- */

static bool is_awaited(uint8_t state)
{
	return state == MISSING || state == ASKED;
}

bool lpd_range_intersect(const struct range *range, uintptr_t addr, size_t len,
			 size_t *ret_first, size_t *ret_end)
{
	uintptr_t start = (uintptr_t)range->start;
	uintptr_t stop = start + range->nr_pages * PAGE_SIZE;
	uintptr_t from = addr > start ? addr : start;
	uintptr_t to = addr + len < stop ? addr + len : stop;

	if (from >= to)
		return false;
	*ret_first = (from - start) / PAGE_SIZE;
	*ret_end = (to - start) / PAGE_SIZE;
	return true;
}

size_t lpd_range_run_end(const struct range *range, size_t first, size_t end)
{
	size_t i = first;

	while (i < end && range->states[i] == range->states[first])
		i++;
	return i;
}

/* Put pages in place that are complete in the shadow. */
static void move_in(struct range *range, size_t first, size_t end)
{
	size_t len = (end - first) * PAGE_SIZE;

	/* Fails only for want of memory, which somebody may give back. */
	while (mremap(range->shadow + first * PAGE_SIZE, len, len,
		      MREMAP_MAYMOVE | MREMAP_FIXED,
		      range->start + first * PAGE_SIZE) == MAP_FAILED)
		nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
	memset(range->states + first, THERE, end - first);
}

static void publish_chunk(struct range *range, size_t first, size_t end)
{
	for (size_t i = first; i < end; i++)
		if (is_awaited(range->states[i]))
			return;
	for (size_t next; first < end; first = next) {
		next = lpd_range_run_end(range, first, end);
		if (range->states[first] == ASIDE)
			move_in(range, first, next);
	}
}

void lpd_range_publish(struct range *range, size_t first, size_t end)
{
	size_t chunk = range->chunk_pages;

	for (first -= first % chunk; first < end; first += chunk)
		publish_chunk(range, first,
			      min_size(first + chunk, range->nr_pages));
	lpd_channel_wake_all();
}

/* ---- what comes ---- */

static void end(void)
{
	lpd_channel.ended = true;
	lpd_channel_wake_all();
}

static void fill(uintptr_t addr, size_t len, const uint8_t *bytes)
{
	size_t first, end;

	for (unsigned int i = 0; i < lpd_channel.nr_ranges; i++) {
		struct range *range = &lpd_channel.ranges[i];

		if (!lpd_range_intersect(range, addr, len, &first, &end))
			continue;
		for (size_t page = first; page < end; page++) {
			size_t offset = page * PAGE_SIZE;

			if (!is_awaited(range->states[page]))
				continue;
			if (bytes)
				memcpy(range->shadow + offset,
				       bytes + ((uintptr_t)range->start +
						offset - addr),
				       PAGE_SIZE);
			range->states[page] = ASIDE;
		}
		lpd_range_publish(range, first, end);
	}
}

void lpd_channel_forget_asked(uintptr_t addr, size_t len)
{
	size_t first, end;

	for (unsigned int i = 0; i < lpd_channel.nr_ranges; i++) {
		struct range *range = &lpd_channel.ranges[i];

		if (!lpd_range_intersect(range, addr, len, &first, &end))
			continue;
		for (; first < end; first++)
			if (range->states[first] == ASKED)
				range->states[first] = MISSING;
	}
	lpd_channel_wake_all();
}

static bool is_sound(const struct lpd_op *op, size_t nr_bytes)
{
	if (op->kind == LPD_OP_READ) /* of an event, not of a range */
		return !nr_bytes;
	if ((op->addr | op->len) % PAGE_SIZE || op->addr + op->len < op->addr)
		return false;
	return nr_bytes == (op->kind == LPD_OP_COPY ? op->len : 0);
}

/*
 * No operation has the length of a request.  What was said to the daemon that
 * asked before is lost like what one has read that a WAKE comes from.
 */
static uint64_t take_request(void)
{
	struct lpd_wire_api asked;

	memcpy(&asked, &lpd_channel.packet, sizeof(asked));
	lpd_channel_grant_again(&asked);
	lpd_channel_forget_asked(0, UINTPTR_MAX);
	return LPD_OP_WAKE;
}

/*
 * Take a packet, if there is one; the lock is held.  Returns the kind of the
 * operation, or 0.  Of what is unsound, nothing can be believed any more.
 */
static uint64_t take_packet(void)
{
	struct lpd_op *op = &lpd_channel.packet.op;
	ssize_t n = recv(lpd_channel.fd, &lpd_channel.packet,
			 sizeof(lpd_channel.packet), MSG_DONTWAIT | MSG_TRUNC);

	if (n < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNRESET))
		return 0;
	if (n == sizeof(struct lpd_wire_api))
		return take_request();
	if (n < (ssize_t)sizeof(*op) || !is_sound(op, n - sizeof(*op))) {
		end();
		return 0;
	}
	switch (op->kind) {
	case LPD_OP_COPY:
		fill(op->addr, op->len, lpd_channel.packet.bytes);
		break;
	case LPD_OP_ZEROPAGE:
		fill(op->addr, op->len, NULL);
		break;
	case LPD_OP_END:
		lpd_channel.complete = true;
		fill(0, UINTPTR_MAX, NULL);
		break;
	case LPD_OP_WAKE:
		lpd_channel_forget_asked(op->addr, op->len);
		break;
	case LPD_OP_READ:
		break;
	default:
		end();
	}
	return op->kind;
}

static void wait_readable(void)
{
	struct pollfd poller = {.fd = lpd_channel.fd, .events = POLLIN};

	poll(&poller, 1, -1);
}

/* After the last word nobody reads, and nothing is filled. */
static bool is_over(void)
{
	return lpd_channel.ended || lpd_channel.complete;
}

/* The thread that takes what comes while nobody tells anything. */
static void *serve(void *arg)
{
	bool over = false;

	while (!over) {
		sigset_t mask;

		wait_readable();
		lpd_channel_lock(&mask);
		take_packet();
		over = is_over();
		lpd_channel_unlock(&mask);
	}
	return arg;
}

int lpd_channel_start_serving(void)
{
	pthread_t thread;
	sigset_t all, mask;

	/* The program's signals are not for this thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &mask);
	int rc = pthread_create(&thread, NULL, serve, NULL);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	if (!rc)
		pthread_detach(thread);
	return -rc;
}

/* ---- what is told ---- */

/*
 * If nobody is there to read it: what was sent to us before may be still to be
 * taken, the page and the last word among it.  Whether it is the end turns out
 * then.
 */
static int result_of_sending(ssize_t n)
{
	if (n >= 0 || errno == EPIPE || errno == ECONNRESET)
		return 0;
	return -errno;
}

int lpd_channel_send_packet(const void *bytes, size_t len, int fd)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {.head = {.cmsg_level = SOL_SOCKET,
			      .cmsg_type = SCM_RIGHTS,
			      .cmsg_len = CMSG_LEN(sizeof(int))}};
	struct iovec iov = {.iov_base = (void *)bytes, .iov_len = len};
	struct msghdr packet = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (fd >= 0) {
		memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
		packet.msg_control = &control;
		packet.msg_controllen = sizeof(control);
	}
	do {
		n = sendmsg(lpd_channel.fd, &packet, MSG_NOSIGNAL);
	} while (n < 0 &&
		 (errno == EINTR || errno == ENOBUFS || errno == ENOMEM));
	return result_of_sending(n);
}

/*
 * Whoever was to read the event may have died with it, and the next one wakes
 * us.  Told it was, so that this must not fail for want of memory.
 */
static void tell_again(const struct lpd_v2_message *messages, size_t len,
		       int fd)
{
	while (lpd_channel_send_packet(messages, len, fd) < 0)
		nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
}

int lpd_channel_tell(unsigned int type, const uint64_t *args,
		     unsigned int nr_args, int fd)
{
	struct lpd_v2_message messages[4];
	uint64_t number = 0, kind;

	if (!(lpd_channel.features & LPD_V2_FEATURE(type)) || is_over())
		return 0;
	for (unsigned int i = 0; i < nr_args; i++) {
		messages[i].type = i ? LPD_V2_ARGUMENT : type;
		messages[i].arg = args[i];
	}
	if (lpd_channel.features & LPD_V2_FEATURE(LPD_V2_ARGUMENT)) {
		number = ++lpd_channel.nr_told;
		messages[nr_args].type = LPD_V2_ARGUMENT;
		messages[nr_args++].arg = number;
	}

	size_t len = nr_args * sizeof(messages[0]);
	int rc = lpd_channel_send_packet(messages, len, fd);
	if (rc)
		return rc;
	while (!is_over()) {
		kind = take_packet();
		/* That of an earlier event may come twice. */
		if (kind == LPD_OP_READ && lpd_channel.packet.op.addr == number)
			break;
		/* Without a number it would be another event. */
		if (kind == LPD_OP_WAKE && number)
			tell_again(messages, len, fd);
		wait_readable();
	}
	return 0;
}
