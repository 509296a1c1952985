/*
 * touch.c: touch pages, look at them, and say how long that took.
 *
 * What this needs of memory is mapped after the restore, and belongs to no
 * image: the handler has no part in it.
 */
#define _GNU_SOURCE
#include "toucher.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "order.h"

#define MAX_THREADS 16

/* A touch that took longer has been a fault: present memory takes 0.1 us. */
#define FAULT_NS 1500

#define WAIT_NS 200000

struct thread {
	pthread_t id;
	const struct layout *layout;
	const struct touching *touching;
	uint64_t number;
	uint32_t *latencies_ns; /* one a touch, in any order */
	uint64_t nr_touched;
	uint64_t nr_wrong;
};

static pthread_barrier_t start;

/* Where each thread has a session, the first one ends the others. */
static atomic_bool first_is_done;

void read_touching(char **words, struct touching *touching)
{
	*touching = (struct touching){
		.order = words[0][0] == 'r'   ? RANDOM
			 : words[0][0] == 's' ? SEQUENTIAL
					      : WAIT,
		.nr_threads = strtoull(words[1], NULL, 0),
		.nr_touches = strtoull(words[2], NULL, 0),
		.pause_ns = strtoull(words[3], NULL, 0),
		.asleep = words[4][0] == 's',
		.own = words[5][0] == 'o',
		.linger = words[5][0] == 'l',
	};
	demand(touching->nr_threads <= MAX_THREADS, "so many threads");
}

static void *map_fresh(size_t size)
{
	void *fresh = mmap(NULL, size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	demand(fresh != MAP_FAILED, "mmap of what a touch is noted in");
	return fresh;
}

/* ---- one thread ---- */

static void touch(struct thread *thread, uint64_t number)
{
	uint64_t addr = page_addr(thread->layout, number);
	const void *page = (const void *)addr;
	uint64_t start_ns = now_ns(CLOCK_MONOTONIC);

	(void)*(const volatile uint64_t *)page;
	uint64_t took_ns = now_ns(CLOCK_MONOTONIC) - start_ns;
	thread->latencies_ns[thread->nr_touched++] =
		took_ns < UINT32_MAX ? took_ns : UINT32_MAX;
	thread->nr_wrong += !is_page(page, addr);
}

static uint64_t page_at(const struct thread *thread, uint64_t place)
{
	const struct layout *layout = thread->layout;
	uint64_t first = 0, nr = layout->nr_pages;

	if (thread->touching->own) {
		nr = pages_of_session(layout);
		first = thread->number * nr;
	}
	if (thread->touching->order == SEQUENTIAL)
		return first + place;
	return first + permute(place, nr);
}

/* What a program does that does not touch what is missing. */
static void pause_as(const struct touching *how)
{
	struct timespec pause = {.tv_sec = how->pause_ns / 1000000000,
				 .tv_nsec = how->pause_ns % 1000000000};
	uint64_t end_ns = now_ns(CLOCK_MONOTONIC) + how->pause_ns;

	if (how->asleep)
		nanosleep(&pause, NULL);
	else
		while (now_ns(CLOCK_MONOTONIC) < end_ns)
			;
}

static void *touch_all(void *arg)
{
	struct thread *thread = arg;
	const struct touching *how = thread->touching;
	uint64_t place = how->own ? 0 : thread->number;
	uint64_t step = how->own ? 1 : how->nr_threads;

	pthread_barrier_wait(&start);
	for (; place < how->nr_touches && !first_is_done; place += step) {
		touch(thread, page_at(thread, place));
		if (how->pause_ns)
			pause_as(how);
	}
	if (how->own && thread->number == 0)
		first_is_done = true;
	return NULL;
}

static void run_threads(struct thread *threads, const struct layout *layout,
			const struct touching *how)
{
	uint64_t most = how->own ? how->nr_touches
				 : how->nr_touches / how->nr_threads + 1;
	uint32_t *notes =
		map_fresh(how->nr_threads * most * sizeof(*notes) + PAGE_SIZE);

	for (uint64_t i = 0; i < how->nr_threads; i++)
		threads[i] = (struct thread){
			.layout = layout,
			.touching = how,
			.number = i,
			.latencies_ns = notes + i * most,
		};
	pthread_barrier_init(&start, NULL, how->nr_threads);
	for (uint64_t i = 1; i < how->nr_threads; i++)
		demand(pthread_create(&threads[i].id, NULL, touch_all,
				      &threads[i]) == 0,
		       "pthread_create");
	touch_all(&threads[0]);
	for (uint64_t i = 1; i < how->nr_threads; i++)
		pthread_join(threads[i].id, NULL);
}

/* ---- no touch at all ---- */

/* Is everything there from *addr on, which goes as far as it is? */
static bool is_present(const struct layout *layout, uint64_t *addr,
		       uint64_t end)
{
	static unsigned char present[1 << 13];

	while (*addr < end) {
		uint64_t size = end - *addr < sizeof(present) * PAGE_SIZE
					? end - *addr
					: sizeof(present) * PAGE_SIZE;
		uint64_t nr_present = 0, nr = size / PAGE_SIZE;

		demand(mincore((void *)*addr, size, present) == 0, "mincore");
		for (uint64_t i = 0; i < nr; i++)
			nr_present += present[i] & 1;
		/* Less the page behind each run. */
		if (nr_present < nr - nr / (layout->run + 1) - 1)
			return false;
		*addr += size;
	}
	return true;
}

static uint64_t nr_resident(void)
{
	uint64_t size = 0, resident = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	demand(file && fscanf(file, "%lu %lu", &size, &resident) == 2, "statm");
	fclose(file);
	return resident;
}

/* Ask what costs little first; it may be some pages out of date. */
static void wait_filled(const struct layout *layout)
{
	const struct timespec pause = {.tv_nsec = WAIT_NS};
	uint64_t nr_sessions = layout->nr_sessions;

	while (nr_resident() + 256 < layout->nr_pages)
		nanosleep(&pause, NULL);
	for (uint64_t i = 0; i < nr_sessions; i++) {
		uint64_t addr = session_addr(layout, i);
		uint64_t end = addr + session_size(layout);

		while (!is_present(layout, &addr, end))
			nanosleep(&pause, NULL);
	}
}

/* Every page, and be it a late one. */
static void check_all(struct thread *thread)
{
	for (uint64_t i = 0; i < thread->layout->nr_pages; i++) {
		uint64_t addr = page_addr(thread->layout, i);

		thread->nr_touched++;
		thread->nr_wrong += !is_page((const void *)addr, addr);
	}
}

/* ---- the report ---- */

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void say(FILE *out, const char *what, const uint32_t *sorted,
		uint64_t nr)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < nr; i++)
		sum += sorted[i];
	fprintf(out, ", \"nr_%s\": %lu", what, nr);
	if (!nr)
		return;
	fprintf(out,
		", \"%s_mean_ns\": %lu, \"%s_p50_ns\": %u, \"%s_p99_ns\": %u"
		", \"%s_p99.9_ns\": %u, \"%s_max_ns\": %u",
		what, sum / nr, what, sorted[nr / 2], what,
		sorted[nr * 99 / 100], what, sorted[nr * 999 / 1000], what,
		sorted[nr - 1]);
}

static void say_latencies(FILE *out, const struct thread *threads, uint64_t nr,
			  const char *touches, const char *faults)
{
	uint64_t count = 0, nr_quick = 0;

	for (uint64_t i = 0; i < nr; i++)
		count += threads[i].nr_touched;
	uint32_t *sorted = map_fresh(count * sizeof(*sorted) + PAGE_SIZE);
	uint32_t *next = sorted;
	for (uint64_t i = 0; i < nr; i++) {
		memcpy(next, threads[i].latencies_ns,
		       threads[i].nr_touched * sizeof(*next));
		next += threads[i].nr_touched;
	}
	qsort(sorted, count, sizeof(*sorted), compare);
	while (nr_quick < count && sorted[nr_quick] < FAULT_NS)
		nr_quick++;
	say(out, touches, sorted, count);
	say(out, faults, sorted + nr_quick, count - nr_quick);
}

static void report(FILE *out, const struct thread *threads,
		   const struct touching *how)
{
	uint64_t nr_wrong = 0, nr = how->own ? 1 : how->nr_threads;

	for (uint64_t i = 0; i < how->nr_threads; i++)
		nr_wrong += threads[i].nr_wrong;
	fprintf(out, ", \"nr_wrong\": %lu", nr_wrong);
	if (how->order == WAIT) {
		fprintf(out, ", \"nr_touches\": %lu", threads[0].nr_touched);
	} else {
		say_latencies(out, threads, nr, "touches", "faults");
		if (how->own)
			say_latencies(out, threads + 1, how->nr_threads - 1,
				      "others", "other_faults");
	}
	fprintf(out, "}\n");
	fflush(out);
}

static FILE *open_report(const char *path, char *part, size_t size)
{
	if (!path)
		return stdout;
	snprintf(part, size, "%s.part", path);
	FILE *out = fopen(part, "w");
	demand(out, part);
	return out;
}

void touch_and_report(const struct layout *layout,
		      const struct touching *touching, uint64_t start_ns,
		      const char *path)
{
	static struct thread threads[MAX_THREADS];
	char part[520];

	if (touching->order == WAIT) {
		threads[0].layout = layout;
		wait_filled(layout);
	} else {
		run_threads(threads, layout, touching);
	}
	uint64_t total_ns = now_ns(CLOCK_MONOTONIC) - start_ns;
	FILE *out = open_report(path, part, sizeof(part));

	/* Who reads this looks at the handler now. */
	fprintf(out, "{\"total_ns\": %lu", total_ns);
	fflush(out);
	if (touching->order == WAIT)
		check_all(&threads[0]);
	report(out, threads, touching);
	if (path)
		demand(fclose(out) == 0 && rename(part, path) == 0, path);
	while (touching->linger)
		pause();
}
