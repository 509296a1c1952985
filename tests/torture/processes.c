/*
 * processes.c: children, and what they see of us.
 *
 * Memory and record agree while all arenas are locked, so that is when we
 * fork.  A child that was forked is another thread's memory, too: it works on
 * all arenas alone.
 */
#include "torture.h"

#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define DEEPEST    2
#define STACK_SIZE 65536

unsigned int child_depth;

static pthread_mutex_t forking = PTHREAD_MUTEX_INITIALIZER;

/* In the child, all arenas are its own, with what it was not given left out. */
static void become_child(struct arena *arena)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	child_depth++;
	for (unsigned int i = options.nr_arenas; i-- > 0;) {
		pthread_mutex_unlock(&arenas[i].lock);
		drop_unforked(&arenas[i]);
		arenas[i].nr_children = 0;
		/* Another future than the parent's. */
		arenas[i].random ^= mix(arena->random + i + 1);
		/* Theirs are shared with the parent. */
		close(arenas[i].file);
		close(arenas[i].pipe[0]);
		close(arenas[i].pipe[1]);
		arenas[i].file = memfd_create("scratch", MFD_CLOEXEC);
		must(arena, arenas[i].file >= 0, "memfd_create");
		must(arena, pipe2(arenas[i].pipe, O_CLOEXEC) == 0, "pipe2");
	}
	pthread_mutex_unlock(&forking);
}

/* Fork while every record is right; the parent keeps its own lock if so. */
static pid_t fork_child(struct arena *arena, bool keep_lock)
{
	pthread_mutex_lock(&forking);
	for (unsigned int i = 0; i < options.nr_arenas; i++)
		pthread_mutex_lock(&arenas[i].lock);
	pid_t pid = fork();
	must(arena, pid >= 0, "fork");
	if (pid == 0) {
		become_child(arena);
		return 0;
	}
	arena->nr_forks++;
	for (unsigned int i = options.nr_arenas; i-- > 0;)
		if (!keep_lock || &arenas[i] != arena)
			pthread_mutex_unlock(&arenas[i].lock);
	pthread_mutex_unlock(&forking);
	return pid;
}

static void wait_child(struct arena *arena, pid_t pid)
{
	int status;

	must(arena, waitpid(pid, &status, 0) == pid, "waitpid");
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 1)
		finding(arena, "a child has a finding");
	errno = 0;
	if (WIFEXITED(status))
		finding(arena, "a child failed");
	char what[64];
	snprintf(what, sizeof(what), "a child was killed: SIG%s",
		 sigabbrev_np(WTERMSIG(status)));
	finding(arena, what);
}

void reap_children(struct arena *arena, size_t nr_left)
{
	while (arena->nr_children > nr_left)
		wait_child(arena, arena->children[--arena->nr_children]);
}

static void check_some(struct arena *arena)
{
	static const size_t strides[] = {1, 4, 16, 64, 256};
	size_t stride = strides[choose(arena, 5)];

	for (unsigned int i = 0; i < options.nr_arenas; i++)
		check_arena(&arenas[i], stride);
}

/* What a child does; some do what their parent does. */
static _Noreturn void live(struct arena *arena)
{
	if (choose(arena, 8) == 0)
		_exit(0);
	check_some(arena);
	if (choose(arena, 2) == 0) {
		for (size_t i = choose(arena, 400); i; i--) {
			struct arena *one =
				&arenas[choose(arena, options.nr_arenas)];

			/* All of it may have been kept from us. */
			if (one->nr_ranges)
				operate(one);
		}
		check_some(arena);
	}
	for (unsigned int i = 0; i < options.nr_arenas; i++)
		reap_children(&arenas[i], 0);
	_exit(0);
}

void fork_and_check(struct arena *arena)
{
	if (child_depth == DEEPEST)
		return;
	reap_children(arena, MAX_CHILDREN - 1);
	pid_t pid = fork_child(arena, false);
	if (pid == 0)
		live(arena);
	arena->children[arena->nr_children++] = pid;
}

/* A process that ends in the middle of a fault, or of its fill. */
void fork_and_kill(struct arena *arena)
{
	int status;

	if (child_depth == DEEPEST)
		return;
	struct timespec delay = {.tv_nsec = choose(arena, 3000000)};
	pid_t pid = fork_child(arena, false);
	if (pid == 0)
		for (;;)
			check_some(arena);
	nanosleep(&delay, NULL);
	kill(pid, SIGKILL);
	must(arena, waitpid(pid, &status, 0) == pid, "waitpid");
	if (WIFEXITED(status))
		finding(arena, "a child has a finding");
}

static void read_parent(struct arena *arena, pid_t parent)
{
	uint64_t bytes[WORDS_PER_PAGE];

	for (size_t i = 0; i < 200 && arena->nr_ranges; i++) {
		struct range *range = choose_range(arena);
		size_t page = choose(arena, range->nr);
		struct iovec here = {bytes, PAGE_SIZE};
		struct iovec there = {range->addr + page * PAGE_SIZE,
				      PAGE_SIZE};

		/* What was wiped for us is not what the parent has. */
		if (range->pages[page].flags &
		    (PAGE_NO_ACCESS | PAGE_WIPEONFORK))
			continue;
		must(arena,
		     process_vm_readv(parent, &here, 1, &there, 1, 0) ==
			     PAGE_SIZE,
		     "process_vm_readv");
		check_copy(arena, range, page, bytes, "process_vm_readv");
	}
}

void fork_and_read_parent(struct arena *arena)
{
	if (child_depth == DEEPEST)
		return;
	pid_t parent = getpid();
	pid_t pid = fork_child(arena, true);
	if (pid == 0) {
		read_parent(arena, parent);
		_exit(0);
	}
	wait_child(arena, pid);
	pthread_mutex_unlock(&arena->lock);
}

void vfork_and_exec(struct arena *arena)
{
	char *const argv[] = {"true", NULL};
	pid_t pid;

	must(arena,
	     posix_spawn(&pid, "/bin/true", NULL, NULL, argv, argv + 1) == 0,
	     "posix_spawn");
	wait_child(arena, pid);
}

static int touch_shared(void *arg)
{
	struct arena *arena = arg;

	for (size_t i = 0; i < 50; i++) {
		struct range *range = choose_range(arena);

		check_page(arena, range, choose(arena, range->nr));
	}
	return 0;
}

/* A process that is no thread, and yet has our memory. */
void share_memory(struct arena *arena)
{
	char *stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(arena, stack != MAP_FAILED, "mmap of a stack");
	pthread_mutex_lock(&arena->lock);
	pid_t pid = clone(touch_shared, stack + STACK_SIZE, CLONE_VM | SIGCHLD,
			  arena);
	must(arena, pid >= 0, "clone");
	wait_child(arena, pid);
	pthread_mutex_unlock(&arena->lock);
	must(arena, munmap(stack, STACK_SIZE) == 0, "munmap of a stack");
}
