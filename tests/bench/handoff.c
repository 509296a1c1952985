/*
 * handoff.c: what criu restore does for a process, done by the process itself.
 *
 * One process plays all sessions: each has a userfaultfd, and a range of
 * addresses of its own.  So a thousand sessions are touched as one is, and
 * what differs is the handler's part alone.
 */
#define _GNU_SOURCE
#include "toucher.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#define FIRST_PID        1000        /* as in layout.py */
#define RESTORE_FINISHED 0x52535446u /* "RSTF", sent by criu restore */

static int connect_here(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX,
				   .sun_path = "lazy-pages.socket"};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	must(fd >= 0 &&
		     connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0,
	     "lazy-pages.socket");
	return fd;
}

static int open_userfaultfd(void)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |
			    UFFD_FEATURE_EVENT_REMOVE |
			    UFFD_FEATURE_EVENT_UNMAP,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	must(fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0, "userfaultfd");
	return fd;
}

static void send_descriptor(int socket, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(fd))] = {0};
	struct iovec data = {&byte, 1};
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	must(sendmsg(socket, &message, 0) == 1, "sendmsg");
}

static void map_and_register(int fd, uint64_t addr, uint64_t size)
{
	struct uffdio_register what = {
		.range = {addr, size},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	must(mmap((void *)addr, size, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE |
			  MAP_NORESERVE,
		  -1, 0) == (void *)addr,
	     "mmap");
	must(madvise((void *)addr, size, MADV_NOHUGEPAGE) == 0,
	     "MADV_NOHUGEPAGE");
	must(ioctl(fd, UFFDIO_REGISTER, &what) == 0, "UFFDIO_REGISTER");
}

uint64_t hand_over(const struct layout *layout)
{
	uint32_t word = RESTORE_FINISHED;
	int socket = connect_here();

	for (uint64_t i = 0; i < layout->nr_sessions; i++) {
		int32_t pid = FIRST_PID + i;
		int fd = open_userfaultfd();

		must(write(socket, &pid, sizeof(pid)) == sizeof(pid),
		     "write of a pid");
		send_descriptor(socket, fd);
		map_and_register(fd, session_addr(layout, i),
				 session_size(layout));
		close(fd);
	}
	uint64_t start_ns = now_ns(CLOCK_MONOTONIC);
	must(write(socket, &word, sizeof(word)) == sizeof(word),
	     "write of the final word");
	/* The connection lasts as long as we do: bare.c ends with it. */
	return start_ns;
}
