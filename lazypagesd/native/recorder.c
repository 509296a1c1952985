/*
 * recorder.c: what is counted of a fault once it is answered, and the flight
 * recorder, which has the last ones.
 *
 * All of it is stores into memory that is mapped: no system call, but for the
 * clock, which is none (man 7 vdso).
 */
#include <errno.h>

#include "internal.h"

/* "lpd-flight", cut to eight bytes and read as a little-endian number. */
#define RECORDER_MAGIC 0x67696c662d64706cull

/* Places of a tid in the table of threads, before it goes to the last one. */
#define NR_PLACES 4

void lpd_recorder_init(struct lpd_recorder *recorder)
{
	recorder->version = LPD_RECORDER_VERSION;
	__atomic_store_n(&recorder->magic, RECORDER_MAGIC, __ATOMIC_RELEASE);
}

int lpd_recorder_check(const struct lpd_recorder *recorder)
{
	return recorder->magic == RECORDER_MAGIC &&
			       recorder->version == LPD_RECORDER_VERSION
		       ? 0
		       : -EPROTO;
}

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

	uint64_t n = recorder->nr_faults;
	recorder->faults[n % LPD_RECORDER_FAULTS] = (struct lpd_fault){
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
	/* Whoever sees it counted sees it whole. */
	__atomic_store_n(&recorder->nr_faults, n + 1, __ATOMIC_RELEASE);
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

	uint64_t n = recorder->nr_steps;
	recorder->steps[n % LPD_RECORDER_STEPS] = step;
	/* As above. */
	__atomic_store_n(&recorder->nr_steps, n + 1, __ATOMIC_RELEASE);
}

void lpd_account_run(struct lpd_session *session, uint64_t addr, uint64_t len,
		     enum lpd_step_kind kind)
{
	struct lpd_counters *counters = &session->state->counters;
	struct lpd_step step = {.kind = kind, .addr = addr, .len = len};

	LPD_COUNT(counters->fills, 1);
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
