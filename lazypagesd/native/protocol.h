/*
 * protocol.h: the seam at which a new kind of descriptor is added: its
 * messages, and how its pages are filled.
 */
#ifndef LAZYPAGESD_PROTOCOL_H
#define LAZYPAGESD_PROTOCOL_H

#include <stdbool.h>
#include <stdint.h>

enum lpd_message_kind {
	LPD_MESSAGE_FAULT = 1,
	LPD_MESSAGE_FORK,
	LPD_MESSAGE_REMAP,
	LPD_MESSAGE_REMOVE,
	LPD_MESSAGE_UNMAP,
	LPD_MESSAGE_UNKNOWN,
	LPD_MESSAGE_PART, /* of the message before it, which has been told */
};

/* A message, whatever its format was. */
struct lpd_message {
	enum lpd_message_kind kind;
	uint64_t number; /* of an event that can come twice; 0: it cannot */
	union {
		struct {
			uint64_t addr; /* of the page */
			uint32_t tid;  /* 0: not told */
		} fault;
		int32_t child_fd; /* FORK */
		struct {
			uint64_t start, end; /* REMOVE, UNMAP */
		} range;
		struct {
			uint64_t from, to, len; /* REMAP */
		} remap;
	};
};

/*
 * How one kind of descriptor is read and filled through.  Chosen once, when
 * it is handed over, so that no message costs a branch.
 */
struct lpd_protocol {
	uint32_t message_size;
	/* Are events read in the order in which they take place, each once? */
	bool in_order;
	/* May helpers fill through the descriptor, beside the worker? */
	bool is_helped;
	/*
	 * Whole messages into buffer; how many, or -errno: -EAGAIN none, -ESRCH
	 * none ever again.  *last_event is the number of the last event that
	 * was read, where they have numbers; what comes again is left out.
	 */
	int (*read)(int fd, uint8_t *buffer, unsigned int max_messages,
		    uint64_t *last_event);
	/*
	 * Who served before us may have died before it let the process go on
	 * that had caused this event.  NULL if the kernel does.
	 */
	void (*confirm)(int fd, uint64_t last_event);
	struct lpd_message (*decode)(const uint8_t *raw);
	/* Make a FORK one without a child; a single store. */
	void (*disown)(uint8_t *raw);
	/*
	 * As lpd_uffd_copy(), lpd_uffd_zeropage() and so on in uffd.h.
	 */
	int64_t (*copy)(int fd, uint64_t addr, const void *bytes, uint64_t len);
	int64_t (*zeropage)(int fd, uint64_t addr, uint64_t len);
	int (*wake)(int fd, uint64_t addr, uint64_t len);
	int (*probe)(int fd);
	/* Every page that was to come is in.  NULL if close() tells enough. */
	void (*conclude)(int fd);
};

extern const struct lpd_protocol lpd_channel_v1, lpd_channel_v2;

/* NULL if there is no such protocol. */
const struct lpd_protocol *lpd_protocol_get(uint32_t id);

#endif /* LAZYPAGESD_PROTOCOL_H */
