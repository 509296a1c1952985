/*
 * churn DIR MIB SECONDS OPERATIONS: a process that rearranges its memory while
 * it is being filled.
 *
 * Each thread owns an arena and mremaps, munmaps, drops, rewrites and reads
 * pages of it, keeping the key that each page must have.  One thread more
 * forks: the child looks at every arena as it was at the fork, while the
 * parent's threads go on changing theirs.
 */
#include "victim.h"

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>

#define NR_ARENAS  4
#define MAX_RANGES 256

/* Pages [0, nr_pages) at @addr, page i with keys[i]; odd once it was dropped.
 */
struct range {
	char *addr;
	size_t nr_pages;
	uint64_t *keys;
};

struct arena {
	pthread_mutex_t lock;
	pthread_t thread;
	struct range ranges[MAX_RANGES];
	size_t nr_ranges;
	uint64_t random;
	uint64_t nr_versions;
	struct tally tally;
};

static struct arena arenas[NR_ARENAS];
static const char *dir;
static const char *operations;
static double seconds;
static struct timespec began;
static pthread_barrier_t start;

static bool time_is_up(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec - began.tv_sec + (now.tv_nsec - began.tv_nsec) / 1e9 >
	       seconds;
}

static size_t choose(struct arena *arena, size_t nr)
{
	arena->random = mix(arena->random + 0x9e3779b97f4a7c15);
	return arena->random % nr;
}

static void check_arena(const struct arena *arena, struct tally *tally)
{
	for (size_t i = 0; i < arena->nr_ranges; i++) {
		const struct range *range = &arena->ranges[i];

		for (size_t page = 0; page < range->nr_pages; page++)
			check_page(range->addr + page * PAGE_SIZE,
				   range->keys[page], tally);
	}
}

/* Replace @range by its pages from @start on, and return those before. */
static struct range cut_front(struct range *range, size_t start)
{
	struct range front = {.addr = range->addr, .nr_pages = start};
	size_t rest = range->nr_pages - start;

	front.keys = malloc(start * sizeof(*front.keys));
	must(front.keys, "malloc");
	memcpy(front.keys, range->keys, start * sizeof(*front.keys));
	memmove(range->keys, range->keys + start, rest * sizeof(*range->keys));
	range->addr += start * PAGE_SIZE;
	range->nr_pages = rest;
	return front;
}

/* A daemon may give up a dropped page for ever, which makes it another VMA. */
static bool was_dropped(uint64_t key)
{
	return key == 0 || (key & 1) != 0;
}

/* As many pages at once as are sure to be of one VMA: else mremap refuses. */
static void move_pages(const struct range *range, char *target)
{
	size_t step = range->nr_pages;

	for (size_t i = 0; i < range->nr_pages; i++) {
		if (was_dropped(range->keys[i]))
			step = 1;
	}
	for (size_t i = 0; i < range->nr_pages; i += step) {
		char *to = target + i * PAGE_SIZE;

		must(mremap(range->addr + i * PAGE_SIZE, step * PAGE_SIZE,
			    step * PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED,
			    to) == to,
		     "mremap to a new place");
	}
}

static void move_front(struct arena *arena, struct range *range, size_t nr)
{
	if (arena->nr_ranges == MAX_RANGES)
		return;
	struct range front = cut_front(range, nr);
	char *target = map_pages(nr);

	move_pages(&front, target);
	front.addr = target;
	arena->ranges[arena->nr_ranges++] = front;
}

static void grow(struct range *range, size_t nr)
{
	size_t nr_pages = range->nr_pages + nr;
	void *addr = mremap(range->addr, range->nr_pages * PAGE_SIZE,
			    nr_pages * PAGE_SIZE, MREMAP_MAYMOVE);

	/* EFAULT: the range is of two VMAs by now, which cannot grow. */
	if (addr == MAP_FAILED)
		return;
	range->keys = realloc(range->keys, nr_pages * sizeof(*range->keys));
	must(range->keys, "realloc");
	memset(range->keys + range->nr_pages, 0, nr * sizeof(*range->keys));
	range->addr = addr;
	range->nr_pages = nr_pages;
}

static void unmap_front(struct range *range, size_t nr)
{
	struct range front = cut_front(range, nr);

	free(front.keys);
	must(munmap(front.addr, nr * PAGE_SIZE) == 0, "munmap");
}

static void drop(struct range *range, size_t start, size_t nr)
{
	must(madvise(range->addr + start * PAGE_SIZE, nr * PAGE_SIZE,
		     MADV_DONTNEED) == 0,
	     "madvise");
	memset(range->keys + start, 0, nr * sizeof(*range->keys));
}

static void rewrite(struct arena *arena, struct range *range, size_t page)
{
	uint64_t key = (arena->random ^ ++arena->nr_versions) & ~1UL;

	if (was_dropped(range->keys[page]))
		key |= 1;

	range->keys[page] = key;
	fill_page(range->addr + page * PAGE_SIZE, key);
}

static void churn_once(struct arena *arena)
{
	struct range *range = &arena->ranges[choose(arena, arena->nr_ranges)];
	size_t page = choose(arena, range->nr_pages);
	size_t nr = 1 + choose(arena, 16);
	char *addr = range->addr + page * PAGE_SIZE;
	bool fits = page + nr <= range->nr_pages;
	bool spare = nr + 64 < range->nr_pages;

	switch (operations[choose(arena, strlen(operations))]) {
	case 'm':
		if (spare)
			move_front(arena, range, nr);
		break;
	case 'g':
		if (range->nr_pages < 4096)
			grow(range, nr);
		break;
	case 'u':
		if (spare)
			unmap_front(range, nr);
		break;
	case 'd':
		if (fits)
			drop(range, page, nr);
		break;
	case 'w':
		rewrite(arena, range, page);
		break;
	case 'l':
		check_page(addr, range->keys[page], &arena->tally);
		break;
	case 'p': /* splits the VMA and joins it again, without an event */
		must(mprotect(addr, PAGE_SIZE, PROT_READ) == 0, "mprotect");
		check_page(addr, range->keys[page], &arena->tally);
		must(mprotect(addr, PAGE_SIZE, PROT_READ | PROT_WRITE) == 0,
		     "mprotect");
		break;
	}
}

static void *run_arena(void *arg)
{
	struct arena *arena = arg;

	pthread_barrier_wait(&start);
	while (!time_is_up()) {
		pthread_mutex_lock(&arena->lock);
		for (int i = 0; i < 4; i++)
			churn_once(arena);
		pthread_mutex_unlock(&arena->lock);
	}
	return NULL;
}

/* Fork between two changes of each arena; the child looks at them all. */
static bool fork_and_check(void)
{
	struct tally tally = {0};
	int status;

	for (int i = 0; i < NR_ARENAS; i++)
		pthread_mutex_lock(&arenas[i].lock);
	pid_t pid = fork();
	must(pid >= 0, "fork");
	if (pid == 0) {
		for (int i = NR_ARENAS; i-- > 0;)
			check_arena(&arenas[i], &tally);
		_exit(tally.nr_wrong != 0);
	}
	for (int i = 0; i < NR_ARENAS; i++)
		pthread_mutex_unlock(&arenas[i].lock);
	must(waitpid(pid, &status, 0) == pid, "waitpid");
	return status == 0;
}

static void arena_init(struct arena *arena, size_t nr_pages, uint64_t seed)
{
	struct range *range = &arena->ranges[0];

	pthread_mutex_init(&arena->lock, NULL);
	arena->random = seed;
	arena->nr_ranges = 1;
	range->addr = map_pages(nr_pages);
	range->nr_pages = nr_pages;
	range->keys = malloc(nr_pages * sizeof(*range->keys));
	must(range->keys, "malloc");
	fill_range(range->addr, nr_pages, seed);
	for (size_t i = 0; i < nr_pages; i++)
		range->keys[i] = key_of(range->addr + i * PAGE_SIZE, seed);
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	dir = argv[1];
	size_t nr_pages = strtoul(argv[2], NULL, 0) * PAGES_PER_MIB;
	seconds = strtod(argv[3], NULL);
	operations = argv[4];
	struct tally tally = {0};
	size_t nr_forks = 0;
	char text[64];

	pthread_barrier_init(&start, NULL, NR_ARENAS + 1);
	for (int i = 0; i < NR_ARENAS; i++) {
		arena_init(&arenas[i], nr_pages / NR_ARENAS, 20 + i);
		must(pthread_create(&arenas[i].thread, NULL, run_arena,
				    &arenas[i]) == 0,
		     "pthread_create");
	}
	publish(dir, "ready", "");
	await(dir, "go");
	clock_gettime(CLOCK_MONOTONIC, &began);
	pthread_barrier_wait(&start);
	do {
		tally.nr_wrong += !fork_and_check();
		nr_forks++;
	} while (!time_is_up());
	for (int i = 0; i < NR_ARENAS; i++) {
		pthread_join(arenas[i].thread, NULL);
		check_arena(&arenas[i], &tally);
		add_tally(&tally, &arenas[i].tally);
	}
	snprintf(text, sizeof(text), "%zu\n", nr_forks);
	publish(dir, "forks", text);
	report(dir, "churn", &tally);
	return tally.nr_wrong != 0;
}
