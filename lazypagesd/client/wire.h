/*
 * wire.h: what goes over a channel.
 *
 * A channel is a SOCK_SEQPACKET socket that stands in for a userfaultfd in a
 * process that may not have one.  It behaves like the descriptor that was
 * discussed in 2015 ("uffd: Introduce the v2 API"): the process takes the
 * kernel's part, who serves it the reader's.  All numbers are in the byte
 * order of the machine, for both ends are on it.
 *
 * docs/explanation/protocols.md has the story, message by message.
 */
#ifndef LAZYPAGESD_WIRE_H
#define LAZYPAGESD_WIRE_H

#include <stdint.h>

/* ---- the exchange: who serves asks, the process answers ---- */

enum {
	LPD_API_V1 = 0xAA,
	LPD_API_V2 = 0xAB,
};

/*
 * Asked with api and the features wanted; answered with what there is, or
 * with zeros alone (EINVAL) if the api or a feature is unknown.  Asked again
 * when whoever had been answered has died, with the same answer; what was said
 * before that answer is said again behind it.
 */
struct lpd_wire_api {
	uint64_t api;
	uint64_t bits;   /* announced: low bits, and features << 12 */
	uint64_t ioctls; /* 1 << LPD_OP_... */
	uint64_t features;
};

/* Low bits of the address of a fault, if announced in bits. */
#define LPD_UFFD_BIT_WRITE 1ull /* it was a write */
#define LPD_UFFD_BIT_WP                                                        \
	2ull /* not missing, but write-protected: never here                   \
	      */

/* ---- from the process: v1 is a u64, an address with those low bits ---- */

/* v2 */
struct lpd_v2_message {
	uint64_t type;
	uint64_t arg;
};

enum lpd_v2_type {
	LPD_V2_PAGEFAULT = 1, /* the address, as in v1 */
	LPD_V2_FORK = 2,      /* the child's channel, which comes with it */
	/* Those that follow are ours, announced under the same rule. */
	LPD_V2_REMAP = 3,    /* from; then ARGUMENT to, ARGUMENT length */
	LPD_V2_REMOVE = 4,   /* start; then ARGUMENT end */
	LPD_V2_UNMAP = 5,    /* start; then ARGUMENT end */
	LPD_V2_ARGUMENT = 6, /* belongs to the message before it */
};

#define LPD_V2_FEATURE(type) (1ull << ((type) - 1))
#define LPD_V2_ALL_FEATURES  ((1ull << LPD_V2_ARGUMENT) - 1)
#define LPD_V2_SHIFT         12 /* of features in bits, as in the patch */

/*
 * A packet is one event, or faults; no more than so many messages.  Nothing
 * but the first message of a packet is an event.
 *
 * Where there is ARGUMENT, one more behind the event's own has its number: 1,
 * 2, and so on in each process.  An event may be sent again under its number,
 * which is done when a WAKE comes before it has been read: who serves may have
 * died with it.
 */
enum { LPD_PACKET_MESSAGES = 64 };

/* ---- to the process: a head, and for COPY the bytes ---- */

/* The first three have the numbers of the ioctls. */
enum lpd_op_kind {
	LPD_OP_WAKE = 2,     /* who waits in the range is to ask anew */
	LPD_OP_COPY = 3,     /* the range is what follows */
	LPD_OP_ZEROPAGE = 4, /* the range is zero, where it is missing */
	LPD_OP_READ = 16,    /* the event of number addr has been read: go on */
	LPD_OP_END = 17,     /* the last word: what is missing is zero */
};

#define LPD_OP_ALL                                                             \
	(1ull << LPD_OP_WAKE | 1ull << LPD_OP_COPY | 1ull << LPD_OP_ZEROPAGE | \
	 1ull << LPD_OP_READ | 1ull << LPD_OP_END)

struct lpd_op {
	uint64_t kind;
	uint64_t addr;
	uint64_t len;
};

enum { LPD_MAX_COPY = 65536 }; /* of one packet */

#endif /* LAZYPAGESD_WIRE_H */
