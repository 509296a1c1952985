/*
 * A restore to be told what to do, one line of stdin at a time, well or badly.
 *
 * Each line but `read` is answered by one line: "ok", or what went wrong.
 * `read` is done by a thread, for a page may take its time, and is answered by
 * "page PID INDEX VERDICT" whenever that is.  A page of process PID is right
 * when each of its words is PID << 32 | INDEX + 1; what is not right is zero,
 * wrong, or torn.
 *
 * One process plays all those of a checkpoint: each has a userfaultfd and a
 * range of addresses of its own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
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

#define PAGE_SIZE 4096u
#define MAX_PID   16

/* As in restorer.py. */
#define MEMORY_ADDR  0x200000000000ull
#define MEMORY_SHIFT 32

#define RESTORE_FINISHED 0x52535446u /* "RSTF", sent by criu restore */

#define EVENTS                                                                 \
	(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |                  \
	 UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP)

static int connection = -1;
static int uffds[MAX_PID];

static uint8_t *page_at(unsigned int pid, unsigned long index)
{
	uint64_t start = MEMORY_ADDR + ((uint64_t)pid << MEMORY_SHIFT);

	return (uint8_t *)(uintptr_t)(start + index * PAGE_SIZE);
}

static void answer(bool done)
{
	printf("%s\n", done ? "ok" : strerror(errno));
}

/* ---- the memory ---- */

static const char *verdict(unsigned int pid, unsigned long index)
{
	const volatile uint64_t *words = (const void *)page_at(pid, index);
	const uint64_t right = (uint64_t)pid << 32 | (index + 1);
	const uint64_t first = words[0];

	for (unsigned int i = 0; i < PAGE_SIZE / sizeof(*words); i++)
		if (words[i] != first)
			return "torn";
	return first == right ? "right" : first ? "wrong" : "zero";
}

struct reading {
	unsigned int pid;
	unsigned long index;
};

static void *read_page(void *arg)
{
	struct reading *reading = arg;
	const char *found = verdict(reading->pid, reading->index);

	printf("page %u %lu %s\n", reading->pid, reading->index, found);
	free(reading);
	return NULL;
}

static void read_in_thread(unsigned int pid, unsigned long index)
{
	struct reading *reading = malloc(sizeof(*reading));
	pthread_t thread;

	*reading = (struct reading){pid, index};
	if (pthread_create(&thread, NULL, read_page, reading) == 0)
		pthread_detach(thread);
}

/* Look at every page from this thread: how many are right, of how many. */
static void check(unsigned int pid, unsigned long nr_pages)
{
	unsigned long nr_right = 0;

	for (unsigned long i = 0; i < nr_pages; i++)
		nr_right += strcmp(verdict(pid, i), "right") == 0;
	printf("%lu of %lu right\n", nr_right, nr_pages);
}

static bool map_and_register(unsigned int pid, unsigned long nr_pages)
{
	size_t size = nr_pages * PAGE_SIZE;
	void *memory =
		mmap(page_at(pid, 0), size, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	struct uffdio_register range = {
		.range = {(uintptr_t)memory, size},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	return memory != MAP_FAILED &&
	       ioctl(uffds[pid], UFFDIO_REGISTER, &range) == 0 &&
	       close(uffds[pid]) == 0;
}

/* ---- descriptors, good and bad ---- */

static int new_userfaultfd(int flags)
{
	int uffd = syscall(SYS_userfaultfd, flags);

#ifdef USERFAULTFD_IOC_NEW
	if (uffd < 0) {
		int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

		uffd = ioctl(device, USERFAULTFD_IOC_NEW, flags);
		close(device);
	}
#endif
	return uffd;
}

static int open_descriptor(const char *kind)
{
	struct uffdio_api api = {.api = UFFD_API, .features = EVENTS};
	int flags = O_CLOEXEC | O_NONBLOCK;

	if (strcmp(kind, "file") == 0)
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	if (strcmp(kind, "blocking") == 0)
		flags &= ~O_NONBLOCK;
	if (strcmp(kind, "sigbus") == 0)
		api.features |= UFFD_FEATURE_SIGBUS;
	if (strcmp(kind, "lacking") == 0)
		api.features &= ~UFFD_FEATURE_EVENT_REMAP;

	int uffd = new_userfaultfd(flags);

	if (strcmp(kind, "raw") != 0 && ioctl(uffd, UFFDIO_API, &api) != 0)
		return -1;
	return uffd;
}

static bool send_descriptors(int fd, unsigned int nr_fds)
{
	union {
		char buffer[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {.iov_base = "", .iov_len = 1};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	int fds[] = {fd, fd};

	if (nr_fds) {
		message.msg_control = control.buffer;
		message.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);

		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, nr_fds * sizeof(int));
	}
	return sendmsg(connection, &message, 0) == 1;
}

/* "descriptor PID KIND": as it should be, or not. */
static bool send_descriptor(unsigned int pid, const char *kind)
{
	if (strcmp(kind, "none") == 0)
		return send_descriptors(-1, 0);
	uffds[pid] = open_descriptor(kind);
	if (uffds[pid] < 0)
		return false;
	return send_descriptors(uffds[pid], strcmp(kind, "two") == 0 ? 2 : 1);
}

/* ---- the connection ---- */

static bool connect_here(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	strcpy(addr.sun_path, "lazy-pages.socket");
	connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return connect(connection, (struct sockaddr *)&addr, sizeof(addr)) == 0;
}

static bool send_number(uint32_t number, size_t size)
{
	return send(connection, &number, size, 0) == (ssize_t)size;
}

/* Nothing is ever sent to us: wait until the other end is closed. */
static bool wait_for_end(void)
{
	char byte;
	ssize_t n = recv(connection, &byte, 1, 0);

	return n == 0 || (n < 0 && errno == ECONNRESET);
}

static void obey(const char *line)
{
	char kind[16] = "good";
	unsigned long nr_pages;
	unsigned int number;
	int pid;

	if (strcmp(line, "connect\n") == 0)
		answer(connect_here());
	else if (sscanf(line, "pid %d", &pid) == 1)
		answer(send_number(pid, sizeof(pid)));
	else if (sscanf(line, "descriptor %d %15s", &pid, kind) >= 1)
		answer(send_descriptor(pid, kind));
	else if (sscanf(line, "register %d %lu", &pid, &nr_pages) == 2)
		answer(map_and_register(pid, nr_pages));
	else if (strcmp(line, "word\n") == 0)
		answer(send_number(RESTORE_FINISHED, sizeof(uint32_t)));
	else if (sscanf(line, "number %u %lu", &number, &nr_pages) == 2)
		answer(send_number(number, nr_pages));
	else if (strcmp(line, "close\n") == 0)
		answer(close(connection) == 0);
	else if (strcmp(line, "end\n") == 0)
		answer(wait_for_end());
	else if (sscanf(line, "read %d %lu", &pid, &nr_pages) == 2)
		read_in_thread(pid, nr_pages);
	else if (sscanf(line, "check %d %lu", &pid, &nr_pages) == 2)
		check(pid, nr_pages);
	else
		printf("what? %s", line);
}

int main(void)
{
	char line[128];

	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	while (fgets(line, sizeof(line), stdin))
		obey(line);
	return 0;
}
