/*
 * victim_processes.c: processes that come and go.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "victim.h"

static int64_t do_fork(const uint64_t *args)
{
	pid_t pid = fork();

	(void)args;
	if (pid == 0) {
		introduce_oneself();
		obey();
	}
	return result_of(pid);
}

/*
 * Ask for a child with a certain pid.  Of one that is taken the kernel finds
 * that out when it has copied the memory already.
 */
static int64_t do_forkas(const uint64_t *args)
{
	pid_t pid = args[0];
	struct clone_args clone = {
		.exit_signal = SIGCHLD,
		.set_tid = (uintptr_t)&pid,
		.set_tid_size = 1,
	};

	pid = syscall(SYS_clone3, &clone, sizeof(clone));
	if (pid == 0)
		_exit(0);
	return result_of(pid);
}

/* Be that user, and no longer privileged. */
static int64_t do_setuid(const uint64_t *args)
{
	return result_of(setresuid(args[0], args[0], args[0]));
}

/* As one becomes a daemon: the parent is gone as soon as the child is there. */
static int64_t do_forkexit(const uint64_t *args)
{
	int64_t pid = do_fork(args);

	if (pid > 0)
		_exit(0);
	return pid;
}

static pthread_barrier_t start_line;

static void *fork_in_thread(void *arg)
{
	pthread_barrier_wait(&start_line);
	do_fork(NULL);
	return arg;
}

static int64_t do_forks(const uint64_t *args)
{
	pthread_t threads[MAX_THREADS];

	pthread_barrier_init(&start_line, NULL, args[0]);
	for (unsigned int i = 0; i < args[0]; i++)
		if (pthread_create(&threads[i], NULL, fork_in_thread, NULL))
			return -EAGAIN;
	for (unsigned int i = 0; i < args[0]; i++)
		pthread_join(threads[i], NULL);
	return 0;
}

static int64_t do_exec(const uint64_t *args)
{
	(void)args;
	answer_begin(0, 0);
	execl("/proc/self/exe", "victim", NULL);
	_exit(5);
}

static int64_t do_exit(const uint64_t *args)
{
	(void)args;
	_exit(0);
}

const struct command process_commands[] = {
	{"fork", do_fork},     {"forkas", do_forkas},
	{"setuid", do_setuid}, {"forkexit", do_forkexit},
	{"forks", do_forks},   {"exec", do_exec},
	{"exit", do_exit},     {0},
};
