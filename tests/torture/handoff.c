/*
 * handoff.c: what criu restore does for a process, done by the process itself.
 */
#include "torture.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#define RESTORE_FINISHED 0x52535446u /* "RSTF", sent by criu restore */

static void demand(bool happened, const char *what)
{
	if (happened)
		return;
	perror(what);
	_exit(2);
}

static int connect_to(const char *dir)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	/* The path may be too long for an address. */
	demand(chdir(dir) == 0, dir);
	strcpy(addr.sun_path, "lazy-pages.socket");
	demand(fd >= 0 &&
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

	demand(fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0, "userfaultfd");
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
	demand(sendmsg(socket, &message, 0) == 1, "sendmsg");
}

static void register_arena(int fd, const struct arena *arena)
{
	const struct range *range = &arena->ranges[0];
	struct uffdio_register what = {
		.range = {(uintptr_t)range->addr, range->nr * PAGE_SIZE},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	demand(map_pages(range->addr, range->nr, PROT_READ | PROT_WRITE,
			 MAP_FIXED_NOREPLACE) == range->addr,
	       "mmap of an arena");
	demand(ioctl(fd, UFFDIO_REGISTER, &what) == 0, "UFFDIO_REGISTER");
}

void hand_over(const char *dir, int pid)
{
	uint32_t word = RESTORE_FINISHED;
	int32_t number = pid;
	char go;
	int socket = connect_to(dir), fd = open_userfaultfd();

	demand(write(socket, &number, sizeof(number)) == sizeof(number),
	       "write of a pid");
	send_descriptor(socket, fd);
	for (unsigned int i = 0; i < options.nr_arenas; i++)
		register_arena(fd, &arenas[i]);
	close(fd);
	/* Once everybody is connected: the daemon leaves with the last. */
	printf("connected\n");
	fflush(stdout);
	demand(read(STDIN_FILENO, &go, 1) == 1, "read of the word to go");
	demand(write(socket, &word, sizeof(word)) == sizeof(word),
	       "write of the final word");
	close(socket);
}
