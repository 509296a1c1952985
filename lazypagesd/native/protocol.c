/*
 * protocol.c: the kinds of descriptor that are served.
 *
 * A session's is chosen once, when it is handed over; the loop that serves it
 * knows struct lpd_message and struct lpd_protocol only.
 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

/* ---- uffd_msg: 32 bytes, since Linux 4.3 ---- */

_Static_assert(sizeof(struct uffd_msg) <= LPD_MAX_MESSAGE_SIZE,
	       "a message fits its slot");

static int uffd_msg_read(int fd, uint8_t *buffer, unsigned int max_messages,
			 uint64_t *last_event)
{
	ssize_t n;

	(void)last_event; /* each is read once */
	do {
		n = read(fd, buffer, max_messages * sizeof(struct uffd_msg));
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n / sizeof(struct uffd_msg);
}

static struct lpd_message uffd_msg_decode(const uint8_t *raw)
{
	struct uffd_msg msg;
	struct lpd_message ret = {.kind = LPD_MESSAGE_UNKNOWN};

	memcpy(&msg, raw, sizeof(msg));
	switch (msg.event) {
	case UFFD_EVENT_PAGEFAULT:
		ret.kind = LPD_MESSAGE_FAULT;
		/* Low bits are set with UFFD_FEATURE_EXACT_ADDRESS. */
		ret.fault.addr = msg.arg.pagefault.address &
				 ~(uint64_t)(LPD_PAGE_SIZE - 1);
		/* Zero without UFFD_FEATURE_THREAD_ID. */
		ret.fault.tid = msg.arg.pagefault.feat.ptid;
		break;
	case UFFD_EVENT_FORK:
		ret.kind = LPD_MESSAGE_FORK;
		ret.child_fd = msg.arg.fork.ufd;
		break;
	case UFFD_EVENT_REMAP:
		ret.kind = LPD_MESSAGE_REMAP;
		ret.remap.from = msg.arg.remap.from;
		ret.remap.to = msg.arg.remap.to;
		ret.remap.len = msg.arg.remap.len;
		break;
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		ret.kind = msg.event == UFFD_EVENT_REMOVE ? LPD_MESSAGE_REMOVE
							  : LPD_MESSAGE_UNMAP;
		ret.range.start = msg.arg.remove.start;
		ret.range.end = msg.arg.remove.end;
		break;
	}
	return ret;
}

static void uffd_msg_disown(uint8_t *raw)
{
	struct uffd_msg *msg = (struct uffd_msg *)raw;

	__atomic_store_n(&msg->arg.fork.ufd, UINT32_MAX, __ATOMIC_RELEASE);
}

static const struct lpd_protocol uffd_msg_protocol = {
	.message_size = sizeof(struct uffd_msg),
	.is_helped = true,
	.read = uffd_msg_read,
	.decode = uffd_msg_decode,
	.disown = uffd_msg_disown,
	.copy = lpd_uffd_copy,
	.zeropage = lpd_uffd_zeropage,
	.wake = lpd_uffd_wake,
	.probe = lpd_uffd_probe,
};

const struct lpd_protocol *lpd_protocol_get(uint32_t id)
{
	switch (id) {
	case LPD_PROTOCOL_UFFD_MSG:
		return &uffd_msg_protocol;
	case LPD_PROTOCOL_CHANNEL_V1:
		return &lpd_channel_v1;
	case LPD_PROTOCOL_CHANNEL_V2:
		return &lpd_channel_v2;
	default:
		return NULL;
	}
}
