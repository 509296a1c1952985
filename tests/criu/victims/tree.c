/*
 * tree DIR MIB: a parent that shares memory copy-on-write with a child, a child
 * with threads, and a zombie.
 *
 * Each live process reports by its name: parent, sharer, threads.
 */
#include "victim.h"

#include <pthread.h>
#include <sys/wait.h>

#define NR_THREADS 4

struct arena {
	const char *dir;
	size_t nr_pages;
	uint64_t seed;
	char *addr;
	pthread_barrier_t *filled;
	struct tally tally;
};

static const char *dir;
static size_t nr_pages;

/* What parent and sharer both have, and every third page the sharer's own. */
static void check_shared(const char *addr, bool sharer, struct tally *tally)
{
	for (size_t i = nr_pages; i-- > 0;) {
		const char *page = addr + i * PAGE_SIZE;

		check_page(page, key_of(page, sharer && i % 3 == 0 ? 2 : 1),
			   tally);
	}
}

static void run_sharer(char *addr)
{
	struct tally tally = {0};

	for (size_t i = 0; i < nr_pages; i += 3)
		fill_page(addr + i * PAGE_SIZE,
			  key_of(addr + i * PAGE_SIZE, 2));
	publish(dir, "ready.sharer", "");
	await(dir, "go");
	check_shared(addr, true, &tally);
	report(dir, "sharer", &tally);
	_exit(tally.nr_wrong != 0);
}

static void *run_thread(void *arg)
{
	struct arena *arena = arg;

	arena->addr = map_pages(arena->nr_pages);
	fill_range(arena->addr, arena->nr_pages, arena->seed);
	pthread_barrier_wait(arena->filled);
	await(arena->dir, "go");
	check_range(arena->addr, arena->nr_pages, arena->seed, 5,
		    &arena->tally);
	return NULL;
}

static void run_threads(void)
{
	pthread_t threads[NR_THREADS];
	struct arena arenas[NR_THREADS];
	pthread_barrier_t filled;
	struct tally tally = {0};

	pthread_barrier_init(&filled, NULL, NR_THREADS + 1);
	for (int i = 0; i < NR_THREADS; i++) {
		arenas[i] = (struct arena){
			.dir = dir,
			.nr_pages = nr_pages / NR_THREADS,
			.seed = 10 + i,
			.filled = &filled,
		};
		must(pthread_create(&threads[i], NULL, run_thread,
				    &arenas[i]) == 0,
		     "pthread_create");
	}
	pthread_barrier_wait(&filled);
	publish(dir, "ready.threads", "");
	for (int i = 0; i < NR_THREADS; i++) {
		pthread_join(threads[i], NULL);
		add_tally(&tally, &arenas[i].tally);
	}
	report(dir, "threads", &tally);
	_exit(tally.nr_wrong != 0);
}

static pid_t start(void (*run)(char *), char *addr)
{
	pid_t pid = fork();

	must(pid >= 0, "fork");
	if (pid == 0) {
		run(addr);
		_exit(2);
	}
	return pid;
}

static void run_threads_child(char *addr)
{
	(void)addr;
	run_threads();
}

static void run_zombie(char *addr)
{
	(void)addr;
	_exit(7);
}

static int status_of(pid_t pid)
{
	int status;

	must(waitpid(pid, &status, 0) == pid, "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	dir = argv[1];
	nr_pages = strtoul(argv[2], NULL, 0) * PAGES_PER_MIB;
	struct tally tally = {0};
	siginfo_t info;

	char *addr = map_pages(nr_pages);
	fill_range(addr, nr_pages, 1);
	pid_t sharer = start(run_sharer, addr);
	pid_t threads = start(run_threads_child, addr);
	pid_t zombie = start(run_zombie, addr);
	must(waitid(P_PID, zombie, &info, WEXITED | WNOWAIT) == 0, "waitid");
	await(dir, "ready.sharer");
	await(dir, "ready.threads");
	publish(dir, "ready", "");

	await(dir, "go");
	check_shared(addr, false, &tally);
	tally.nr_wrong += status_of(sharer) != 0;
	tally.nr_wrong += status_of(threads) != 0;
	tally.nr_wrong += status_of(zombie) != 7;
	report(dir, "parent", &tally);
	return tally.nr_wrong != 0;
}
