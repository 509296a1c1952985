/*
 * wait.c: how a worker waits for messages: after a fault it asks for them for
 * a little, in case the next comes at once, and sleeps then.
 *
 * Some facts about waiting: to wake a processor that sleeps takes longer than
 * all else that a fault costs, in a virtual machine some 50 us.  Who keeps
 * asking is there at once, but uses a processor: that pays for faults that
 * come close behind each other, and where nobody else wants the processor.
 * How long to ask is learnt from how long it took, as KVM does for a virtual
 * processor that halts (halt_poll_ns).
 *
 * KVM stops asking when the scheduler has somebody else to run.  So do we:
 * sched_yield() is over at once if nobody else can run here.  If it is not, and
 * the kernel has switched (ru_nivcsw counts that, and not what a hypervisor
 * takes away), then somebody shares this processor with us.
 * If that is who faults, then there was no wake-up to be saved, and to ask on
 * would keep him away: the kernel moves whom it wakes to a processor that
 * nobody uses, which has to be woken.
 * If it is somebody who is busy here, then a message that is there now may have
 * waited for milliseconds: whoever yields does not come before the others, as
 * one who is woken does.
 * So we sleep next time, too, and more often in a row the more often this is
 * found.  Since he can only come while we sleep, we do so now and then in any
 * case.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "internal.h"

#define MIN_POLL_NS 50000

/* To ask once takes longer if somebody else has run meanwhile. */
#define ROUND_NS 3000

/* So often at most do we ask before we sleep, or sleep before we ask. */
#define MAX_IN_A_ROW 127

/*
 * That may lose us a 64th of the time waited, and so much at once if it has
 * lost us nothing for long.
 */
#define WAITED_FOR_LOST 64
#define MAX_CREDIT_NS   2000000

static long nr_switches(void)
{
	struct rusage usage;

	/* Cannot fail: both arguments are valid. */
	(void)getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_nivcsw;
}

/* May have changed since something was learnt. */
static uint64_t max_poll_ns(const struct lpd_worker *worker)
{
	/* Of the control plane; nothing else depends on it. */
	return __atomic_load_n(&worker->max_poll_ns, __ATOMIC_RELAXED);
}

/* The more often in a row we have shared the processor, the longer we sleep. */
static void learn_place(struct lpd_worker *worker, bool shared)
{
	uint32_t more = lpd_min(2 * worker->max_sleeps + 1, MAX_IN_A_ROW);

	worker->max_sleeps = shared ? more : 0;
	worker->nr_sleeps = worker->max_sleeps;
}

/* Ask for messages until there are some, for as long as that may pay. */
static int poll_messages(struct lpd_worker *worker, struct epoll_event *ready,
			 int max_ready, uint64_t began_ns, uint64_t until_ns)
{
	uint64_t poll_ns = lpd_min(worker->poll_ns, max_poll_ns(worker));
	uint64_t end_ns = lpd_min(began_ns + poll_ns, until_ns);
	uint64_t last_ns = began_ns, now = began_ns;
	long before = nr_switches();
	bool shared = false;
	int n = 0;

	while (n == 0 && !shared && now < end_ns) {
		last_ns = now;
		sched_yield();
		n = epoll_wait(worker->epoll_fd, ready, max_ready, 0);
		now = lpd_now_ns();
		shared = now - last_ns > ROUND_NS && nr_switches() != before;
	}
	LPD_COUNT(worker->polled_ns, now - began_ns);
	worker->nr_polls++;
	if (shared)
		worker->poll_credit_ns -= now - last_ns;
	if (shared || n > 0)
		learn_place(worker, shared);
	return n;
}

/* A message came after so long, while we slept: would it have paid to ask? */
static void learn(struct lpd_worker *worker, uint64_t waited_ns)
{
	if (waited_ns <= max_poll_ns(worker)) {
		worker->poll_ns =
			lpd_min(max_poll_ns(worker),
				lpd_max(MIN_POLL_NS, 2 * worker->poll_ns));
	} else {
		worker->poll_ns /= 2;
		if (worker->poll_ns < MIN_POLL_NS)
			worker->poll_ns = 0;
	}
}

/* Only who has just been asked for something is asked again so soon. */
static bool may_poll(const struct lpd_worker *worker)
{
	return worker->has_served && worker->poll_ns && max_poll_ns(worker) &&
	       worker->poll_credit_ns >= 0 && worker->nr_polls < MAX_IN_A_ROW;
}

static void earn(struct lpd_worker *worker, uint64_t waited_ns)
{
	worker->poll_credit_ns +=
		lpd_min(waited_ns, max_poll_ns(worker)) / WAITED_FOR_LOST;
	if (worker->poll_credit_ns > MAX_CREDIT_NS)
		worker->poll_credit_ns = MAX_CREDIT_NS;
}

static int ms_until(uint64_t until_ns)
{
	if (until_ns == UINT64_MAX)
		return -1;

	uint64_t now = lpd_now_ns();

	return (lpd_max(until_ns, now) - now + LPD_NS_PER_MS - 1) /
	       LPD_NS_PER_MS;
}

int lpd_worker_wait(struct lpd_worker *worker, struct epoll_event *ready,
		    int max_ready, uint64_t until_ns)
{
	uint64_t began_ns = worker->now_ns;
	int n = 0;

	if (worker->nr_sleeps)
		worker->nr_sleeps--;
	else if (may_poll(worker))
		n = poll_messages(worker, ready, max_ready, began_ns, until_ns);
	if (n == 0) {
		worker->nr_polls = 0;
		n = epoll_wait(worker->epoll_fd, ready, max_ready,
			       ms_until(until_ns));
	}
	worker->now_ns = lpd_now_ns();
	if (n <= 0)
		return n;

	uint64_t waited_ns = worker->now_ns - began_ns;

	earn(worker, waited_ns);
	if (!worker->nr_polls) /* it has slept */
		learn(worker, waited_ns);
	return n;
}
