/*
 * restored.h: what criu restore does for a process, done by the process itself.
 * Who cannot do it ends: it has nothing to clean up.
 */
#ifndef SUPPORT_RESTORED_H
#define SUPPORT_RESTORED_H

#include "demand.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define RESTORE_FINISHED 0x52535446u /* "RSTF", sent by criu restore */

/* Connect to who serves from this directory, whose path may be too long. */
static inline int connect_here(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX,
				   .sun_path = "lazy-pages.socket"};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	demand(fd >= 0 &&
		       connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0,
	       "lazy-pages.socket");
	return fd;
}

static inline int open_userfaultfd(void)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |
			    UFFD_FEATURE_EVENT_REMOVE |
			    UFFD_FEATURE_EVENT_UNMAP,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	demand(fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0, "userfaultfd");
	return fd;
}

/* Send the userfaultfd of process @pid, which stays open here. */
static inline void send_process(int socket, int32_t pid, int fd)
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
	demand(write(socket, &pid, sizeof(pid)) == sizeof(pid),
	       "write of a pid");
	demand(sendmsg(socket, &message, 0) == 1, "sendmsg");
}

static inline void register_missing(int fd, void *addr, uint64_t size)
{
	struct uffdio_register what = {
		.range = {(uintptr_t)addr, size},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	demand(ioctl(fd, UFFDIO_REGISTER, &what) == 0, "UFFDIO_REGISTER");
}

static inline void send_final_word(int socket)
{
	uint32_t word = RESTORE_FINISHED;

	demand(write(socket, &word, sizeof(word)) == sizeof(word),
	       "write of the final word");
}

#endif
