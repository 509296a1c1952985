/*
 * The restored process's half of CRIU's hand-off to a lazy-pages daemon.
 */
#include "victim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define LAZY_PAGES_RESTORE_FINISHED                                            \
	0x52535446 /* "RSTF", sent by criu restore */

#define EVENTS                                                                 \
	(UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_UNMAP |                 \
	 UFFD_FEATURE_EVENT_REMOVE)

static int new_userfaultfd(void)
{
	int flags = O_CLOEXEC | O_NONBLOCK;
	int uffd = syscall(SYS_userfaultfd, flags);

#ifdef USERFAULTFD_IOC_NEW
	/* Not for us: perhaps the device is. */
	if (uffd < 0 && errno == EPERM) {
		int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

		if (device >= 0) {
			uffd = ioctl(device, USERFAULTFD_IOC_NEW, flags);
			close(device);
		} else {
			errno = EPERM;
		}
	}
#endif
	if (uffd < 0)
		fail("userfaultfd");
	return uffd;
}

static int open_userfaultfd(void)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = EVENTS | UFFD_FEATURE_EVENT_FORK,
	};
	int uffd = new_userfaultfd();

	/* The fork event, which the daemon insists on, needs CAP_SYS_PTRACE. */
	if (ioctl(uffd, UFFDIO_API, &api) != 0)
		fail("userfaultfd: UFFDIO_API");
	return uffd;
}

static int connect_to(const char *dir)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	/* Relative to @dir, whose own path may be longer than an address may
	 * be. */
	strcpy(addr.sun_path, "lazy-pages.socket");
	if (fd < 0 || chdir(dir) != 0 ||
	    connect(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0)
		fail("lazy-pages.socket");
	return fd;
}

static void send_word(int fd, uint32_t word)
{
	if (send(fd, &word, sizeof(word), MSG_NOSIGNAL) != sizeof(word))
		fail("lazy-pages.socket: send");
}

static void send_descriptor(int fd, int descriptor)
{
	union {
		char buffer[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {.iov_base = "", .iov_len = 1};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buffer,
		.msg_controllen = sizeof(control.buffer),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &descriptor, sizeof(int));
	if (sendmsg(fd, &message, MSG_NOSIGNAL) != 1)
		fail("lazy-pages.socket: sendmsg");
}

void hand_over(const char *dir, int32_t pid, void *memory, size_t nr_pages)
{
	struct uffdio_register range = {
		.range = {(uintptr_t)memory, nr_pages * PAGE_SIZE},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int uffd = open_userfaultfd();
	int fd = connect_to(dir);

	send_word(fd, pid);
	send_descriptor(fd, uffd);
	if (ioctl(uffd, UFFDIO_REGISTER, &range) != 0)
		fail("UFFDIO_REGISTER");
	close(uffd);
	send_word(fd, LAZY_PAGES_RESTORE_FINISHED);
	close(fd);
}
