/*
 * victim.c: a process whose memory is filled by userfaultfd, and which does to
 * that memory what it is told to.
 *
 * It connects to the unix socket named by argv[1] and obeys: a line is a name
 * and up to five numbers, an answer two 64-bit words (a result or -errno; the
 * length of what follows) and the bytes that follow.  The first word that it
 * sends, unasked, is its pid.  A process that it forks connects by itself.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <linux/sched.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "channel.h"

#define PAGE_SIZE   4096
#define MAX_THREADS 512
#define NR_ARGS     5

static const char *socket_path;
static int sock = -1;
static int uffd = -1;

struct answer {
	int64_t result;
	uint64_t len;
};

/* What to call, with how many numbers it was given being nobody's concern. */
typedef int64_t command_fn(const uint64_t *args);

static int64_t result_of(int64_t returned)
{
	return returned < 0 ? -errno : returned;
}

static void send_all(const void *bytes, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = write(sock, (const char *)bytes + done, len - done);

		if (n <= 0)
			_exit(3);
		done += n;
	}
}

static void answer(int64_t result, const void *bytes, size_t len)
{
	struct answer head = {.result = result, .len = len};

	send_all(&head, sizeof(head));
	send_all(bytes, len);
}

static void introduce_oneself(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int64_t pid = getpid();

	strncpy(addr.sun_path, socket_path, sizeof(addr.sun_path) - 1);
	if (sock >= 0)
		close(sock);
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		_exit(4);
	send_all(&pid, sizeof(pid));
}

/* ---- before it is served ---- */

static int new_userfaultfd(void)
{
	int flags = O_CLOEXEC | O_NONBLOCK;
	int fd = syscall(SYS_userfaultfd, flags);

	if (fd >= 0)
		return fd;
	int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (device < 0)
		return -1;
	fd = ioctl(device, _IO(0xaa, 0), flags);
	close(device);
	return fd;
}

/* Its number here is the result.  args: further features */
static int64_t do_open(const uint64_t *args)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |
			    UFFD_FEATURE_EVENT_REMOVE |
			    UFFD_FEATURE_EVENT_UNMAP | args[0],
	};

	uffd = new_userfaultfd();
	if (uffd < 0)
		return -errno;
	return ioctl(uffd, UFFDIO_API, &api) < 0 ? -errno : uffd;
}

/* args: address, bytes, further flags; private unless they say otherwise */
static int64_t do_mmap(const uint64_t *args)
{
	int flags = MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE |
		    (int)args[2];

	flags |= flags & MAP_SHARED ? 0 : MAP_PRIVATE;

	return result_of((intptr_t)mmap((void *)args[0], args[1],
					PROT_READ | PROT_WRITE, flags, -1, 0));
}

static int64_t do_register(const uint64_t *args)
{
	struct uffdio_register reg = {
		.range = {.start = args[0], .len = args[1]},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	return result_of(ioctl(uffd, UFFDIO_REGISTER, &reg));
}

/* As a restore tool may.  args: address, byte, mode of UFFDIO_COPY */
static int64_t do_fill(const uint64_t *args)
{
	static uint8_t page[PAGE_SIZE];
	struct uffdio_copy copy = {
		.dst = args[0],
		.src = (uintptr_t)page,
		.len = PAGE_SIZE,
		.mode = args[2],
	};

	memset(page, args[1], PAGE_SIZE);
	return result_of(ioctl(uffd, UFFDIO_COPY, &copy));
}

/* Send the descriptor along with one byte, and keep no copy. */
static int64_t do_handover(const uint64_t *args)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	char byte = 0;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);

	(void)args;
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(head), &uffd, sizeof(int));
	if (sendmsg(sock, &message, 0) != 1)
		return -errno;
	close(uffd);
	uffd = -1;
	return 0;
}

/* ---- a channel in place of the userfaultfd ---- */

static int channel_fd = -1;

/* The other end is handed over in its place; ours has no flag that helps. */
static int64_t do_chopen(const uint64_t *args)
{
	int fds[2];

	(void)args;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds) < 0 ||
	    fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0 ||
	    fcntl(fds[1], F_SETFD, FD_CLOEXEC) < 0)
		return -errno;
	channel_fd = fds[0];
	uffd = fds[1];
	return 0;
}

/* To who listens beside our own socket: nothing needs to be handed over. */
static int64_t do_chconnect(const uint64_t *args)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	(void)args;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s.channel",
		 socket_path);
	channel_fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	return result_of(
		connect(channel_fd, (struct sockaddr *)&addr, sizeof(addr)));
}

/* Answers the exchange. */
static int64_t do_chserve(const uint64_t *args)
{
	(void)args;
	return lpd_channel_open(channel_fd);
}

/* The same, as one that does not know v2: its request is answered with zeros.
 */
static int64_t do_chserve1(const uint64_t *args)
{
	uint64_t packet[4] = {0};
	struct pollfd poller = {.fd = channel_fd, .events = POLLIN};

	if (poll(&poller, 1, -1) < 0 ||
	    recv(channel_fd, packet, sizeof(packet), 0) < 0)
		return -errno;
	memset(packet, 0, sizeof(packet));
	if (send(channel_fd, packet, sizeof(packet), 0) < 0)
		return -errno;
	return do_chserve(args);
}

static int64_t do_chregister(const uint64_t *args)
{
	return lpd_channel_register((void *)args[0], args[1]);
}

static int64_t do_chmunmap(const uint64_t *args)
{
	return lpd_channel_munmap((void *)args[0], args[1]);
}

static int64_t do_chdiscard(const uint64_t *args)
{
	return lpd_channel_discard((void *)args[0], args[1]);
}

static int64_t do_chmremap(const uint64_t *args)
{
	return lpd_channel_mremap((void *)args[0], args[1], (void *)args[2]);
}

static int64_t do_chpopulate(const uint64_t *args)
{
	lpd_channel_populate((void *)args[0], args[1]);
	return 0;
}

/* Give memory to a system call. */
static int64_t do_syscall(const uint64_t *args)
{
	int fds[2];

	if (pipe(fds) < 0)
		return -errno;
	int64_t result = result_of(write(fds[1], (void *)args[0], args[1]));
	close(fds[0]);
	close(fds[1]);
	return result;
}

/* How many mappings there are. */
static int64_t do_mappings(const uint64_t *args)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	int64_t nr_lines = 0;

	(void)args;
	for (int c; (c = getc(maps)) != EOF;)
		nr_lines += c == '\n';
	fclose(maps);
	return nr_lines;
}

/* ---- reading: by threads, so that whoever commands them is never held ---- */

struct reader {
	pthread_t thread;
	const uint8_t *from;
	size_t len;
	uint8_t *bytes;
};

static struct reader readers[MAX_THREADS];
static unsigned int nr_readers;
static pthread_barrier_t start_line;

static void *read_memory(void *arg)
{
	struct reader *reader = arg;

	pthread_barrier_wait(&start_line);
	for (size_t done = 0; done < reader->len; done += PAGE_SIZE)
		memcpy(reader->bytes + done, reader->from + done, PAGE_SIZE);
	return NULL;
}

/* args: address, bytes, threads, bytes from one thread's start to the next's */
static int64_t do_begin(const uint64_t *args)
{
	nr_readers = args[2];
	pthread_barrier_init(&start_line, NULL, nr_readers);
	for (unsigned int i = 0; i < nr_readers; i++) {
		readers[i].from = (const uint8_t *)args[0] + i * args[3];
		readers[i].len = args[1];
		readers[i].bytes = malloc(args[1]);
		if (pthread_create(&readers[i].thread, NULL, read_memory,
				   &readers[i]))
			return -EAGAIN;
	}
	return 0;
}

/* The bytes that the threads read, one thread's after the other's. */
static void end_reading(void)
{
	struct answer head = {0};

	for (unsigned int i = 0; i < nr_readers; i++) {
		pthread_join(readers[i].thread, NULL);
		head.len += readers[i].len;
	}
	send_all(&head, sizeof(head));
	for (unsigned int i = 0; i < nr_readers; i++) {
		send_all(readers[i].bytes, readers[i].len);
		free(readers[i].bytes);
	}
	nr_readers = 0;
}

/* In this very thread: one is all that a test can do without. */
static void read_now(const uint64_t *args)
{
	uint8_t *bytes = malloc(args[1]);

	for (size_t done = 0; done < args[1]; done += PAGE_SIZE)
		memcpy(bytes + done, (const uint8_t *)args[0] + done,
		       PAGE_SIZE);
	answer(0, bytes, args[1]);
	free(bytes);
}

static void *touch(void *arg)
{
	(void)*(volatile uint8_t *)arg;
	return arg;
}

/*
 * Touch a page each from so many threads, which nobody waits for: as many as
 * there could be made is the result.  args: address, threads
 */
static int64_t do_crowd(const uint64_t *args)
{
	uint64_t nr_threads = 0;
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, PTHREAD_STACK_MIN);
	/* Without guards their stacks are one mapping, of which few may be. */
	pthread_attr_setguardsize(&attr, 0);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	while (nr_threads < args[1]) {
		pthread_t thread;
		uint8_t *page = (uint8_t *)args[0] + nr_threads * PAGE_SIZE;

		if (pthread_create(&thread, &attr, touch, page))
			break;
		nr_threads++;
	}
	pthread_attr_destroy(&attr);
	return nr_threads;
}

static int64_t do_write(const uint64_t *args)
{
	memset((void *)args[0], args[2], args[1]);
	return 0;
}

/* ---- mappings that change ---- */

static int64_t do_munmap(const uint64_t *args)
{
	return result_of(munmap((void *)args[0], args[1]));
}

static int64_t do_mremap(const uint64_t *args)
{
	return result_of((intptr_t)mremap((void *)args[0], args[1], args[2],
					  args[3], (void *)args[4]));
}

static int64_t do_madvise(const uint64_t *args)
{
	return result_of(madvise((void *)args[0], args[1], args[2]));
}

static int64_t do_mprotect(const uint64_t *args)
{
	return result_of(mprotect((void *)args[0], args[1], args[2]));
}

/* Every other page, so that each is a mapping.  args: as mprotect */
static int64_t do_stripe(const uint64_t *args)
{
	for (uint64_t done = 0; done < args[1]; done += 2 * PAGE_SIZE)
		if (mprotect((void *)(args[0] + done), PAGE_SIZE, args[2]))
			return -errno;
	return 0;
}

static int64_t do_mlock2(const uint64_t *args)
{
	return result_of(mlock2((void *)args[0], args[1], args[2]));
}

/* ---- one operation, over and over, in a thread ---- */

enum { HAMMER_DONTNEED = 1, HAMMER_MREMAP, HAMMER_MPROTECT };

static struct {
	pthread_t thread;
	_Atomic bool stop;
	uint64_t what, len;
	void *at, *other;
	uint64_t nr_blows;
} hammer;

static bool strike(void)
{
	switch (hammer.what) {
	case HAMMER_DONTNEED:
		return madvise(hammer.at, hammer.len, MADV_DONTNEED) == 0;
	case HAMMER_MREMAP:
		return mremap(hammer.at, hammer.len, hammer.len,
			      MREMAP_MAYMOVE | MREMAP_FIXED,
			      hammer.other) == hammer.other &&
		       mremap(hammer.other, hammer.len, hammer.len,
			      MREMAP_MAYMOVE | MREMAP_FIXED,
			      hammer.at) == hammer.at;
	case HAMMER_MPROTECT:
		return mprotect(hammer.at, hammer.len, PROT_READ) == 0 &&
		       mprotect(hammer.at, hammer.len,
				PROT_READ | PROT_WRITE) == 0;
	default:
		return false;
	}
}

static void *swing(void *arg)
{
	/* Once at least, however soon it is told to stop. */
	do {
		if (!strike())
			break;
		hammer.nr_blows++;
	} while (!hammer.stop);
	return arg;
}

static int64_t do_hammer(const uint64_t *args)
{
	hammer.what = args[0];
	hammer.at = (void *)args[1];
	hammer.len = args[2];
	hammer.other = (void *)args[3];
	hammer.stop = false;
	hammer.nr_blows = 0;
	return -pthread_create(&hammer.thread, NULL, swing, NULL);
}

/* How often it struck; an error if it gave up. */
static int64_t do_hush(const uint64_t *args)
{
	bool gave_up = pthread_tryjoin_np(hammer.thread, NULL) == 0;

	(void)args;
	if (gave_up)
		return -EIO;
	hammer.stop = true;
	pthread_join(hammer.thread, NULL);
	return hammer.nr_blows;
}

/* ---- processes that come and go ---- */

static void obey(void);

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
	answer(0, NULL, 0);
	execl("/proc/self/exe", "victim", NULL);
	_exit(5);
}

static int64_t do_exit(const uint64_t *args)
{
	(void)args;
	_exit(0);
}

static const struct {
	const char *name;
	command_fn *run;
} commands[] = {
	{"open", do_open},           {"mmap", do_mmap},
	{"register", do_register},   {"fill", do_fill},
	{"handover", do_handover},   {"begin", do_begin},
	{"write", do_write},         {"munmap", do_munmap},
	{"mremap", do_mremap},       {"madvise", do_madvise},
	{"mprotect", do_mprotect},   {"hammer", do_hammer},
	{"hush", do_hush},           {"fork", do_fork},
	{"forkexit", do_forkexit},   {"forks", do_forks},
	{"exec", do_exec},           {"exit", do_exit},
	{"crowd", do_crowd},         {"stripe", do_stripe},
	{"mlock2", do_mlock2},       {"forkas", do_forkas},
	{"setuid", do_setuid},       {"chopen", do_chopen},
	{"chserve", do_chserve},     {"chregister", do_chregister},
	{"chmunmap", do_chmunmap},   {"chdiscard", do_chdiscard},
	{"chmremap", do_chmremap},   {"chpopulate", do_chpopulate},
	{"syscall", do_syscall},     {"mappings", do_mappings},
	{"chconnect", do_chconnect}, {"chserve1", do_chserve1},
};

static int64_t run_command(const char *name, const uint64_t *args)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(name, commands[i].name))
			return commands[i].run(args);
	return -ENOSYS;
}

/* ---- one command beside others, in a thread ---- */

static struct {
	pthread_t thread;
	char name[16];
	uint64_t args[NR_ARGS];
	int64_t result;
} aside;

static void *run_aside(void *arg)
{
	aside.result = run_command(aside.name, aside.args);
	return arg;
}

static int64_t begin_aside(const char *name, const uint64_t *args)
{
	snprintf(aside.name, sizeof(aside.name), "%s", name);
	memcpy(aside.args, args, sizeof(aside.args));
	return -pthread_create(&aside.thread, NULL, run_aside, NULL);
}

static int64_t end_aside(void)
{
	pthread_join(aside.thread, NULL);
	return aside.result;
}

static void run(const char *name, const uint64_t *args)
{
	if (!strcmp(name, "read"))
		read_now(args);
	else if (!strcmp(name, "end"))
		end_reading();
	else if (!strncmp(name, "aside:", strlen("aside:")))
		answer(begin_aside(name + strlen("aside:"), args), NULL, 0);
	else if (!strcmp(name, "rejoin"))
		answer(end_aside(), NULL, 0);
	else
		answer(run_command(name, args), NULL, 0);
}

/* Until the socket is closed. */
static void obey(void)
{
	char line[256], *rest;
	size_t len = 0;

	while (read(sock, line + len, 1) == 1) {
		if (line[len] != '\n') {
			len = len < sizeof(line) - 2 ? len + 1 : len;
			continue;
		}
		line[len] = '\0';
		len = 0;

		uint64_t args[NR_ARGS] = {0};
		const char *name = strtok_r(line, " ", &rest), *word;
		for (unsigned int i = 0;
		     i < NR_ARGS && (word = strtok_r(NULL, " ", &rest)); i++)
			args[i] = strtoull(word, NULL, 0);
		run(name ? name : "", args);
	}
	_exit(0);
}

int main(int argc, char **argv)
{
	/* After an exec: be there, with other memory. */
	if (argc < 2)
		for (;;)
			pause();
	socket_path = argv[1];
	signal(SIGCHLD, SIG_IGN);
	introduce_oneself();
	obey();
}
