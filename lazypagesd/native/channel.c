/*
 * channel.c: a socket in place of a userfaultfd (see ../client/wire.h).
 *
 * Some facts: who causes an event waits for our READ, as the kernel lets it
 * wait for our read(2), and has nothing filled in between READ and the end of
 * its call.  What was sent before READ it fills before its call.  So a fill
 * that has been sent counts as done: packets do not overtake each other, and
 * nothing that changes the mappings can come between.
 *
 * Who serves may die anywhere, and the next one goes on with the state.  An
 * event goes through the stack into the state's messages, then its number into
 * last_event, then READ with that number to the process.  Who dies with it on
 * the stack loses it: it is sent again upon the WAKE of the next one, as new.
 * From the messages on it is known; the next one notes it, sends READ before
 * it fills anything, and lets it take effect before that too.  Whatever comes
 * twice changes nothing: an event by its number, which is not above the last
 * one's, and READ by its number, which is not that of the event that waits.
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

#define UNKNOWN_TYPE UINT64_MAX

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

/* If this fails there is nobody to go on, or to go on too early. */
static void channel_confirm(int fd, uint64_t number)
{
	(void)send_op(fd, (struct lpd_op){.kind = LPD_OP_READ, .addr = number},
		      NULL);
}

/* Behind the arguments of an event, if it has a number. */
static uint64_t number_of(const struct lpd_v2_message *messages)
{
	static const uint8_t nr_args[] = {[LPD_V2_FORK] = 1,
					  [LPD_V2_REMAP] = 3,
					  [LPD_V2_REMOVE] = 2,
					  [LPD_V2_UNMAP] = 2};
	uint64_t type = messages[0].type;
	unsigned int i = type < sizeof(nr_args) ? nr_args[type] : 0;

	return i && messages[i].type == LPD_V2_ARGUMENT ? messages[i].arg : 0;
}

/* What came as numbers of descriptors is none; what came as one is its. */
static void settle(struct lpd_v2_message *messages, unsigned int n,
		   int *child_fd)
{
	for (unsigned int i = 1; i < n; i++)
		if (messages[i].type != LPD_V2_PAGEFAULT &&
		    messages[i].type != LPD_V2_ARGUMENT)
			messages[i].type = UNKNOWN_TYPE;
	if (!messages[0].type)
		messages[0].type = UNKNOWN_TYPE;
	if (messages[0].type == LPD_V2_FORK) {
		messages[0].arg = *child_fd;
		*child_fd = -1;
	}
}

/* Its first word last: a packet is among the messages as a whole, or not. */
static void keep(uint8_t *buffer, const void *packet, size_t size)
{
	uint64_t word;

	memcpy(&word, packet, sizeof(word));
	memcpy(buffer + sizeof(word), (const uint8_t *)packet + sizeof(word),
	       size - sizeof(word));
	__atomic_store_n((uint64_t *)buffer, word, __ATOMIC_RELEASE);
}

/* Keep what has been received, but for an event that comes again. */
static int keep_v2(int fd, uint8_t *buffer, struct lpd_v2_message *messages,
		   unsigned int n, uint64_t *last_event, int *child_fd)
{
	uint64_t number = number_of(messages);
	bool is_new = !number || number > *last_event;

	lpd_crash_point("received");
	if (is_new) {
		settle(messages, n, child_fd);
		keep(buffer, messages, n * sizeof(messages[0]));
		lpd_crash_point("kept");
	}
	if (messages[0].type == LPD_V2_PAGEFAULT)
		return n;
	if (number && is_new)
		__atomic_store_n(last_event, number, __ATOMIC_RELEASE);
	lpd_crash_point("noted");
	channel_confirm(fd, number);
	lpd_crash_point("told");
	return is_new ? n : 0;
}

/* The messages of one packet, at most LPD_PACKET_MESSAGES. */
static int read_packet(int fd, uint8_t *buffer, size_t message_size,
		       uint64_t *last_event)
{
	/* Behind the last there are arguments to look for. */
	struct lpd_v2_message messages[LPD_PACKET_MESSAGES + 3] = {0};
	size_t size = LPD_PACKET_MESSAGES * message_size;
	int child_fd;
	int64_t n = receive(fd, messages, size, &child_fd);

	if (n <= 0) {
		if (child_fd >= 0)
			close(child_fd);
		return n ? n : -ESRCH;
	}
	if ((size_t)n > size || n % message_size) {
		/* No message of ours: one that nobody knows. */
		memset(messages, 0, sizeof(messages));
		n = message_size;
	}
	int nr_messages = n / message_size;
	if (message_size == sizeof(messages[0]))
		nr_messages = keep_v2(fd, buffer, messages, nr_messages,
				      last_event, &child_fd);
	else
		keep(buffer, messages, n);
	if (child_fd >= 0)
		close(child_fd);
	return nr_messages;
}

/*
 * As many packets as there are and fit for sure; the others stay in the
 * socket.  -EINVAL if not even one message would fit.
 */
static int read_packets(int fd, uint8_t *buffer, unsigned int max_messages,
			size_t message_size, uint64_t *last_event)
{
	unsigned int nr_messages = 0;

	if (!max_messages)
		return -EINVAL;
	while (max_messages - nr_messages >= LPD_PACKET_MESSAGES) {
		int n = read_packet(fd, buffer + nr_messages * message_size,
				    message_size, last_event);

		if (n < 0)
			return nr_messages ? (int)nr_messages : n;
		nr_messages += n;
	}
	return nr_messages ? (int)nr_messages : -EAGAIN;
}

/* ---- v1: 8 bytes ---- */

static int v1_read(int fd, uint8_t *buffer, unsigned int max_messages,
		   uint64_t *last_event)
{
	return read_packets(fd, buffer, max_messages, sizeof(uint64_t),
			    last_event);
}

static struct lpd_message fault_of(uint64_t arg)
{
	if (arg & LPD_UFFD_BIT_WP)
		return (struct lpd_message){.kind = LPD_MESSAGE_UNKNOWN};
	return (struct lpd_message){.kind = LPD_MESSAGE_FAULT,
				    .fault.addr =
					    arg &
					    ~(uint64_t)(LPD_PAGE_SIZE - 1)};
}

static struct lpd_message v1_decode(const uint8_t *raw)
{
	uint64_t arg;

	memcpy(&arg, raw, sizeof(arg));
	return fault_of(arg);
}

/* ---- v2: 16 bytes ---- */

static int v2_read(int fd, uint8_t *buffer, unsigned int max_messages,
		   uint64_t *last_event)
{
	return read_packets(fd, buffer, max_messages,
			    sizeof(struct lpd_v2_message), last_event);
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
	struct lpd_v2_message msg[4];
	struct lpd_message ret = {.kind = LPD_MESSAGE_UNKNOWN};

	/* There is room for slots behind the last that a message can be in. */
	memcpy(msg, raw, sizeof(msg));
	bool has_arg = msg[1].type == LPD_V2_ARGUMENT;

	ret.number = number_of(msg);
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
	.confirm = channel_confirm,
	.decode = v2_decode,
	.disown = v2_disown,
	CHANNEL_CALLS,
};
