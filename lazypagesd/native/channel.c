/*
 * channel.c: a socket in place of a userfaultfd (see ../client/wire.h).
 *
 * Some facts: who causes an event waits for our READ, as the kernel lets it
 * wait for our read(2), and has nothing filled in between READ and the end of
 * its call.  What was sent before READ it fills before its call.  So a fill
 * that has been sent counts as done: packets do not overtake each other, and
 * nothing that changes the mappings can come between.
 *
 * The other end is a process that may be broken or hostile: whatever it sends
 * can harm nobody but itself.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../client/wire.h"
#include "internal.h"

/* ---- filling ---- */

static int64_t send_op(int fd, struct lpd_op op, const void *bytes)
{
	struct iovec iov[] = {
		{.iov_base = &op, .iov_len = sizeof(op)},
		{.iov_base = (void *)bytes, .iov_len = bytes ? op.len : 0},
	};
	struct msghdr packet = {.msg_iov = iov, .msg_iovlen = 2};
	ssize_t n;

	do {
		n = sendmsg(fd, &packet, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n >= 0)
		return op.len;
	switch (errno) {
	case EPIPE:
	case ECONNRESET:
	case ENOTCONN:
		return -ESRCH;
	case ENOBUFS:
		return -EAGAIN;
	default:
		return -errno;
	}
}

/*
 * Fills use a part of the socket's buffer only (POLLOUT: a quarter is in use
 * at most), so that there is always room for READ, which cannot wait.
 */
static int64_t fill(int fd, struct lpd_op op, const void *bytes)
{
	struct pollfd poller = {.fd = fd, .events = POLLOUT};

	return poll(&poller, 1, 0) ? send_op(fd, op, bytes) : -EAGAIN;
}

static int64_t channel_copy(int fd, uint64_t addr, const void *bytes,
			    uint64_t len)
{
	struct lpd_op op = {LPD_OP_COPY, addr, lpd_min(len, LPD_MAX_COPY)};

	return fill(fd, op, bytes);
}

static int64_t channel_zeropage(int fd, uint64_t addr, uint64_t len)
{
	return fill(fd, (struct lpd_op){LPD_OP_ZEROPAGE, addr, len}, NULL);
}

static int channel_wake(int fd, uint64_t addr, uint64_t len)
{
	int64_t rc = send_op(fd, (struct lpd_op){LPD_OP_WAKE, addr, len}, NULL);

	return rc < 0 ? rc : 0;
}

/* What nobody has asked for until now is zero, as when a userfaultfd closes. */
static void channel_conclude(int fd)
{
	(void)send_op(fd, (struct lpd_op){.kind = LPD_OP_END}, NULL);
}

static int channel_probe(int fd)
{
	char byte;

	return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) ? 0 : -ESRCH;
}

/* ---- reading ---- */

/* One packet: its length, 0 at the end of the process, or -errno. */
static int64_t receive(int fd, void *buffer, size_t size, int *ret_child_fd)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = buffer, .iov_len = size};
	struct msghdr packet = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	do {
		packet.msg_control = &control;
		packet.msg_controllen = CMSG_LEN(sizeof(int));
		n = recvmsg(fd, &packet,
			    MSG_DONTWAIT | MSG_CMSG_CLOEXEC | MSG_TRUNC);
		/* A reset is told once, before what can still be read. */
	} while (n < 0 && (errno == EINTR || errno == ECONNRESET));
	*ret_child_fd = -1;
	if (n >= 0 && packet.msg_controllen >= CMSG_LEN(sizeof(int)) &&
	    control.head.cmsg_type == SCM_RIGHTS)
		memcpy(ret_child_fd, CMSG_DATA(&control.head), sizeof(int));
	return n < 0 ? -errno : n;
}

/* What came as numbers of descriptors is none; what came as one is its. */
static void settle_v2(int fd, uint8_t *raw, unsigned int n, int *child_fd)
{
	struct lpd_v2_message *messages = (struct lpd_v2_message *)raw;

	for (unsigned int i = 1; i < n; i++)
		if (messages[i].type != LPD_V2_PAGEFAULT &&
		    messages[i].type != LPD_V2_ARGUMENT)
			messages[i].type = 0;
	if (messages[0].type == LPD_V2_PAGEFAULT)
		return;
	if (messages[0].type == LPD_V2_FORK) {
		messages[0].arg = *child_fd;
		*child_fd = -1;
	}
	/* If this fails there is nobody to go on, or to go on too early. */
	(void)send_op(fd, (struct lpd_op){.kind = LPD_OP_READ}, NULL);
}

/* The messages of one packet, at most LPD_PACKET_MESSAGES. */
static int read_packet(int fd, uint8_t *buffer, size_t message_size)
{
	size_t size = LPD_PACKET_MESSAGES * message_size;
	int child_fd;
	int64_t n = receive(fd, buffer, size, &child_fd);

	if (n <= 0) {
		if (child_fd >= 0)
			close(child_fd);
		return n ? n : -ESRCH;
	}
	if ((size_t)n > size || n % message_size) {
		/* No message of ours: one that nobody knows. */
		memset(buffer, 0, size);
		n = message_size;
	}
	if (message_size == sizeof(struct lpd_v2_message))
		settle_v2(fd, buffer, n / message_size, &child_fd);
	if (child_fd >= 0)
		close(child_fd);
	return n / message_size;
}

/*
 * As many packets as there are and fit for sure; the others stay in the
 * socket.  -EINVAL if not even one message would fit.
 */
static int read_packets(int fd, uint8_t *buffer, unsigned int max_messages,
			size_t message_size)
{
	unsigned int nr_messages = 0;

	if (!max_messages)
		return -EINVAL;
	while (max_messages - nr_messages >= LPD_PACKET_MESSAGES) {
		int n = read_packet(fd, buffer + nr_messages * message_size,
				    message_size);

		if (n < 0)
			return nr_messages ? (int)nr_messages : n;
		nr_messages += n;
	}
	return nr_messages ? (int)nr_messages : -EAGAIN;
}

/* ---- v1: 8 bytes ---- */

static int v1_read(int fd, uint8_t *buffer, unsigned int max_messages)
{
	return read_packets(fd, buffer, max_messages, sizeof(uint64_t));
}

static struct lpd_message fault_of(uint64_t arg)
{
	if (arg & LPD_UFFD_BIT_WP)
		return (struct lpd_message){.kind = LPD_MESSAGE_UNKNOWN};
	return (struct lpd_message){.kind = LPD_MESSAGE_FAULT,
				    .addr = arg &
					    ~(uint64_t)(LPD_PAGE_SIZE - 1)};
}

static struct lpd_message v1_decode(const uint8_t *raw)
{
	uint64_t arg;

	memcpy(&arg, raw, sizeof(arg));
	return fault_of(arg);
}

/* ---- v2: 16 bytes ---- */

static int v2_read(int fd, uint8_t *buffer, unsigned int max_messages)
{
	return read_packets(fd, buffer, max_messages,
			    sizeof(struct lpd_v2_message));
}

static bool is_range(uint64_t start, uint64_t end)
{
	return start < end && end <= LPD_USER_SPACE_END &&
	       !((start | end) % LPD_PAGE_SIZE);
}

static bool is_move(uint64_t from, uint64_t to, uint64_t len)
{
	return len <= LPD_USER_SPACE_END && is_range(from, from + len) &&
	       is_range(to, to + len) && (from + len <= to || to + len <= from);
}

/* The messages behind this one have its arguments, if it has any. */
static struct lpd_message v2_decode(const uint8_t *raw)
{
	struct lpd_v2_message msg[3];
	struct lpd_message ret = {.kind = LPD_MESSAGE_UNKNOWN};

	/* There is room for slots behind the last that a message can be in. */
	memcpy(msg, raw, sizeof(msg));
	bool has_arg = msg[1].type == LPD_V2_ARGUMENT;

	switch (msg[0].type) {
	case LPD_V2_PAGEFAULT:
		return fault_of(msg[0].arg);
	case LPD_V2_FORK:
		if ((int32_t)msg[0].arg < 0)
			break;
		ret.kind = LPD_MESSAGE_FORK;
		ret.child_fd = msg[0].arg;
		break;
	case LPD_V2_REMAP:
		if (!has_arg || msg[2].type != LPD_V2_ARGUMENT ||
		    !is_move(msg[0].arg, msg[1].arg, msg[2].arg))
			break;
		ret.kind = LPD_MESSAGE_REMAP;
		ret.remap.from = msg[0].arg;
		ret.remap.to = msg[1].arg;
		ret.remap.len = msg[2].arg;
		break;
	case LPD_V2_REMOVE:
	case LPD_V2_UNMAP:
		if (!has_arg || !is_range(msg[0].arg, msg[1].arg))
			break;
		ret.kind = msg[0].type == LPD_V2_REMOVE ? LPD_MESSAGE_REMOVE
							: LPD_MESSAGE_UNMAP;
		ret.range.start = msg[0].arg;
		ret.range.end = msg[1].arg;
		break;
	case LPD_V2_ARGUMENT:
		ret.kind = LPD_MESSAGE_PART;
		break;
	}
	return ret;
}

static void v2_disown(uint8_t *raw)
{
	struct lpd_v2_message *msg = (struct lpd_v2_message *)raw;

	__atomic_store_n(&msg->arg, UINT64_MAX, __ATOMIC_RELEASE);
}

#define CHANNEL_CALLS                                                          \
	.in_order = true, .copy = channel_copy, .zeropage = channel_zeropage,  \
	.wake = channel_wake, .probe = channel_probe,                          \
	.conclude = channel_conclude

const struct lpd_protocol lpd_channel_v1 = {
	.message_size = sizeof(uint64_t),
	.read = v1_read,
	.decode = v1_decode,
	CHANNEL_CALLS,
};

const struct lpd_protocol lpd_channel_v2 = {
	.message_size = sizeof(struct lpd_v2_message),
	.read = v2_read,
	.decode = v2_decode,
	.disown = v2_disown,
	CHANNEL_CALLS,
};
