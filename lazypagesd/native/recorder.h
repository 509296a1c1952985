/*
 * recorder.h: what a worker did last, in a memfd that outlives it.
 *
 * Two rings, each with one writer, the worker.  An entry is written into the
 * place of the oldest one, and then counted.  So whoever reads copies entries
 * and looks at the count after that: with n entries counted, those before
 * n + 1 - capacity may have been overwritten meanwhile, and are left out; so
 * is what a worker has half written that died.  Once a ring has filled up it
 * therefore shows one entry less than it has room for.
 *
 * A recorder that nobody has written to for long is still read in this way:
 * the count alone tells what is whole.
 */
#ifndef LAZYPAGESD_RECORDER_H
#define LAZYPAGESD_RECORDER_H

#include "types.h"

enum {
	LPD_RECORDER_VERSION = 1,
	/* One of which is being written. */
	LPD_RECORDER_FAULTS = 65536 + 1,
	LPD_RECORDER_STEPS = 16384,
};

enum lpd_fault_outcome {
	LPD_OUTCOME_NONE = 0,
	LPD_OUTCOME_FILLED,
	LPD_OUTCOME_WOKEN, /* something was there: who waits looks again */
	LPD_OUTCOME_HELD,  /* cannot be filled, and waits for a retry */
	LPD_OUTCOME_GONE,  /* its process was no more */
};

/* Beside faults: pages filled unasked, and events. */
enum lpd_step_kind {
	LPD_STEP_NEIGHBOUR = 1,
	LPD_STEP_DRAIN,
	LPD_STEP_FORK,
	LPD_STEP_REMAP,
	LPD_STEP_REMOVE,
	LPD_STEP_UNMAP,
};

/* Times are of CLOCK_MONOTONIC.  session is that of struct lpd_session. */
struct lpd_fault {
	uint64_t time_ns; /* when it was answered */
	uint64_t addr;
	uint64_t offset; /* in the source */
	uint64_t latency_ns;
	uint32_t session;
	uint32_t tid;    /* 0: not known */
	uint32_t source; /* UINT32_MAX: of none */
	uint16_t tries;
	uint8_t kind;    /* enum lpd_fault_kind */
	uint8_t outcome; /* enum lpd_fault_outcome */
};

struct lpd_step {
	uint64_t time_ns;
	uint64_t addr;
	uint64_t len;
	uint64_t to; /* of a REMAP */
	uint32_t session;
	uint32_t child; /* of a FORK: its session; 0: none */
	uint32_t kind;  /* enum lpd_step_kind */
	uint32_t reserved;
};

struct lpd_recorder {
	uint64_t magic;
	uint32_t version;
	uint32_t worker; /* whose it is, by number: this daemon's, or the next's
			  */
	uint64_t nr_faults; /* so far; atomic, as nr_steps */
	uint64_t nr_steps;
	/* The control plane's own: the largest number of a session so far, and
	 * how many daemons have gone on in it. */
	uint64_t last_session;
	uint64_t nr_takeovers;
	struct lpd_fault faults[LPD_RECORDER_FAULTS];
	struct lpd_step steps[LPD_RECORDER_STEPS];
};

/* Begin that of a worker, in zero-filled memory. */
void lpd_recorder_init(struct lpd_recorder *recorder, uint32_t worker);

/* Check what another worker has left: 0, or -EPROTO. */
int lpd_recorder_check(const struct lpd_recorder *recorder);

/*
 * Copy the entries [first, end), numbered from 0 on as they were written, of
 * which end have been counted and first is not older than the ring is long.
 * Returns the first of them that is whole; end if none is.  Callable from any
 * thread, also while the worker writes.
 */
uint64_t lpd_recorder_read_faults(const struct lpd_recorder *recorder,
				  uint64_t first, uint64_t end,
				  struct lpd_fault *ret_faults);
uint64_t lpd_recorder_read_steps(const struct lpd_recorder *recorder,
				 uint64_t first, uint64_t end,
				 struct lpd_step *ret_steps);

#endif /* LAZYPAGESD_RECORDER_H */
