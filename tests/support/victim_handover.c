/*
 * victim_handover.c: memory that is registered, and its userfaultfd handed
 * over.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "victim.h"

int uffd = -1;

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

const struct command handover_commands[] = {
	{"open", do_open}, {"mmap", do_mmap},         {"register", do_register},
	{"fill", do_fill}, {"handover", do_handover}, {0},
};
