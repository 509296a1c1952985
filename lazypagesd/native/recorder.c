/*
 * recorder.c: what is counted of a fault once it is answered, and the flight
 * recorder, which has the last ones.
 *
 * All of it is stores into memory that is mapped: no system call, but for the
 * clock, which is none (man 7 vdso).
 */
#include <errno.h>
#include <string.h>

#include "internal.h"

/* "lpd-flight", cut to eight bytes and read as a little-endian number. */
#define RECORDER_MAGIC 0x67696c662d64706cull

/* Places of a tid in the table of threads, before it goes to the last one. */
#define NR_PLACES 4

void lpd_recorder_init(struct lpd_recorder *recorder, uint32_t worker)
{
	recorder->version = LPD_RECORDER_VERSION;
	recorder->worker = worker;
	__atomic_store_n(&recorder->magic, RECORDER_MAGIC, __ATOMIC_RELEASE);
}

int lpd_recorder_check(const struct lpd_recorder *recorder)
{
	return recorder->magic == RECORDER_MAGIC &&
			       recorder->version == LPD_RECORDER_VERSION
		       ? 0
		       : -EPROTO;
}

/* ---- rings ---- */

#define ENTRY_WORDS (sizeof(struct lpd_fault) / 8)

_Static_assert(sizeof(struct lpd_fault) == ENTRY_WORDS * 8 &&
		       sizeof(struct lpd_step) == ENTRY_WORDS * 8,
	       "entries are made of words, and of as many");

/* Write an entry into its place, and then count it. */
static void ring_put(void *place, const void *entry, uint64_t *count)
{
	uint64_t words[ENTRY_WORDS], *to = place;

	memcpy(words, entry, sizeof(words));
	/*
	 * Pairs with the acquire in ring_read(): who sees a word of this entry
	 * sees all before it counted, and so that what was here is no more.
	 */
	for (size_t i = 0; i < ENTRY_WORDS; i++)
		__atomic_store_n(&to[i], words[i], __ATOMIC_RELEASE);
	/* As above: who sees it counted sees it whole. */
	__atomic_store_n(count, *count + 1, __ATOMIC_RELEASE);
}

static uint64_t ring_read(const void *ring, uint64_t capacity,
			  const uint64_t *count, uint64_t first, uint64_t end,
			  void *ret_entries)
{
	const uint64_t *from = ring;
	uint64_t *to = ret_entries;

	(void)__atomic_load_n(count, __ATOMIC_ACQUIRE);
	for (uint64_t i = first; i < end; i++)
		for (size_t word = 0; word < ENTRY_WORDS; word++)
			*to++ = __atomic_load_n(
				&from[i % capacity * ENTRY_WORDS + word],
				__ATOMIC_ACQUIRE);

	uint64_t n = __atomic_load_n(count, __ATOMIC_RELAXED);
	return n < capacity ? first
			    : lpd_min(end, lpd_max(first, n + 1 - capacity));
}

uint64_t lpd_recorder_read_faults(const struct lpd_recorder *recorder,
				  uint64_t first, uint64_t end,
				  struct lpd_fault *ret_faults)
{
	return ring_read(recorder->faults, LPD_RECORDER_FAULTS,
			 &recorder->nr_faults, first, end, ret_faults);
}

uint64_t lpd_recorder_read_steps(const struct lpd_recorder *recorder,
				 uint64_t first, uint64_t end,
				 struct lpd_step *ret_steps)
{
	return ring_read(recorder->steps, LPD_RECORDER_STEPS,
			 &recorder->nr_steps, first, end, ret_steps);
}

/* ---- accounts ---- */

static void count_latency(struct lpd_latency *latency, uint64_t ns)
{
	unsigned int bucket = 63 - __builtin_clzll(ns);

	LPD_COUNT(latency->count, 1);
	LPD_COUNT(latency->sum_ns, ns);
	if (ns > latency->max_ns)
		LPD_COUNT(latency->max_ns, ns - latency->max_ns);
	LPD_COUNT(latency->buckets[lpd_min(bucket, LPD_NR_LATENCY_BUCKETS - 1)],
		  1);
}

/* Where a thread's losses are counted: a small hash table that never moves. */
static struct lpd_thread *thread_of(struct lpd_state *state, uint32_t tid)
{
	const unsigned int last = LPD_MAX_THREADS - 1;

	for (unsigned int i = 0; i < NR_PLACES; i++) {
		struct lpd_thread *thread = &state->threads[(tid + i) % last];

		if (!thread->tid)
			__atomic_store_n(&thread->tid, tid, __ATOMIC_RELAXED);
		if (thread->tid == tid)
			return thread;
	}
	return &state->threads[last];
}

static void record_fault(const struct lpd_session *session,
			 const struct lpd_pending *fault, uint64_t now,
			 uint64_t latency_ns)
{
	struct lpd_recorder *recorder = session->worker->recorder;

	if (!recorder)
		return;

	struct lpd_fault entry = {
		.time_ns = now,
		.addr = fault->addr,
		.offset = fault->offset,
		.latency_ns = latency_ns,
		.session = session->id,
		.tid = fault->tid,
		.source = fault->source,
		.tries = fault->tries,
		.kind = fault->kind,
		.outcome = fault->outcome,
	};
	ring_put(&recorder->faults[recorder->nr_faults % LPD_RECORDER_FAULTS],
		 &entry, &recorder->nr_faults);
}

void lpd_account_fault(struct lpd_session *session,
		       const struct lpd_pending *fault)
{
	struct lpd_state *state = session->state;
	uint64_t now = lpd_now_ns();
	uint64_t ns = lpd_max(now - fault->read_ns, 1);

	if (fault->outcome == LPD_OUTCOME_FILLED)
		count_latency(&state->counters.latencies[fault->kind], ns);
	if (fault->tid) {
		struct lpd_thread *thread = thread_of(state, fault->tid);

		LPD_COUNT(thread->faults, 1);
		LPD_COUNT(thread->lost_ns, ns);
	}
	record_fault(session, fault, now, ns);
}

static void record_step(const struct lpd_session *session, struct lpd_step step)
{
	struct lpd_recorder *recorder = session->worker->recorder;

	if (!recorder)
		return;
	step.time_ns = lpd_now_ns();
	step.session = session->id;
	ring_put(&recorder->steps[recorder->nr_steps % LPD_RECORDER_STEPS],
		 &step, &recorder->nr_steps);
}

void lpd_account_run(struct lpd_session *session, uint64_t addr, uint64_t len,
		     enum lpd_step_kind kind)
{
	struct lpd_counters *counters = &session->state->counters;
	struct lpd_step step = {.kind = kind, .addr = addr, .len = len};

	LPD_COUNT(counters->bytes, len);
	LPD_COUNT(*(kind == LPD_STEP_DRAIN ? &counters->pages_drain
					   : &counters->pages_neighbour),
		  len / LPD_PAGE_SIZE);
	record_step(session, step);
}

void lpd_account_event(const struct lpd_session *session,
		       const struct lpd_message *message)
{
	struct lpd_step step = {.addr = message->range.start,
				.len = message->range.end -
				       message->range.start};

	switch (message->kind) {
	case LPD_MESSAGE_REMAP:
		step.kind = LPD_STEP_REMAP;
		step.addr = message->remap.from;
		step.len = message->remap.len;
		step.to = message->remap.to;
		break;
	case LPD_MESSAGE_REMOVE:
		step.kind = LPD_STEP_REMOVE;
		break;
	case LPD_MESSAGE_UNMAP:
		step.kind = LPD_STEP_UNMAP;
		break;
	default:
		return;
	}
	record_step(session, step);
}

void lpd_account_fork(const struct lpd_session *session)
{
	struct lpd_step step = {.kind = LPD_STEP_FORK,
				.child = session->child_id};

	record_step(session, step);
}
