/*
 * bare [-n] [-d] [-p] [-r] [-s FD] REGIONS PAGES: the least that a page fault
 * handler can do, to measure others by: epoll, read, COPY out of a mapping of
 * the pages file.
 *
 * It speaks CRIU's hand-off at ./lazy-pages.socket for one process, and ends
 * when all is filled or the process is gone.  It takes regions as a flat list,
 * follows no event, keeps nothing that would survive it, and knows of no error
 * but those that a benchmark has.
 *
 *   -n     fill what is missing of the 64 KiB around a fault, in the same COPY
 *   -d     fill the rest when nobody waits, in pieces from 64 KiB up to 1 MiB
 *   -p     ask for messages all the time, and never sleep
 *   -r     read what is to be filled, which fails where the file is cut off
 *   -s FD  say that it is ready with a zero byte
 */
#define _GNU_SOURCE
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>

#define WINDOW       (64ull << 10)
#define MAX_PIECE    (1ull << 20)
#define MAX_MESSAGES 16

struct region {
	uint64_t start;
	uint64_t nr_pages;
	uint64_t offset;
};

static struct {
	bool neighbourhood;
	bool drain;
	bool poll;
	bool read;
	int status_fd;
} options = {.status_fd = -1};

static const uint8_t *pages;
static int pages_fd;
static const struct region *regions;
static uint64_t nr_regions;
static uint8_t **filled; /* of each region, a byte a page */
static uint64_t nr_missing;

static int uffd;
static int connection;
static bool released;

/* Where drain goes on, and how much it takes next. */
static uint64_t drain_region;
static uint64_t drain_page;
static uint64_t piece = WINDOW / PAGE_SIZE;

/* ---- what there is to fill ---- */

static const void *map_file(const char *path, int *ret_fd, uint64_t *ret_size)
{
	struct stat stat;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	demand(fd >= 0 && fstat(fd, &stat) == 0, path);
	const void *bytes = mmap(NULL, stat.st_size, PROT_READ,
				 MAP_SHARED | MAP_POPULATE, fd, 0);
	demand(bytes != MAP_FAILED, path);
	*ret_fd = fd;
	*ret_size = stat.st_size;
	return bytes;
}

static void load(const char *regions_path, const char *pages_path)
{
	int regions_fd;
	uint64_t size;

	pages = map_file(pages_path, &pages_fd, &size);
	regions = map_file(regions_path, &regions_fd, &size);
	close(regions_fd);
	nr_regions = size / sizeof(*regions);
	filled = calloc(nr_regions, sizeof(*filled));
	for (uint64_t i = 0; i < nr_regions; i++)
		nr_missing += regions[i].nr_pages;
	uint8_t *bytes = calloc(nr_missing, 1);
	demand(filled && bytes, "calloc");
	for (uint64_t i = 0; i < nr_regions; i++) {
		filled[i] = bytes;
		bytes += regions[i].nr_pages;
	}
}

/* The region that @addr is in, or nr_regions. */
static uint64_t find_region(uint64_t addr)
{
	uint64_t low = 0, high = nr_regions;

	while (low < high) {
		uint64_t middle = (low + high) / 2;

		if (regions[middle].start +
			    regions[middle].nr_pages * PAGE_SIZE <=
		    addr)
			low = middle + 1;
		else
			high = middle;
	}
	return low < nr_regions && regions[low].start <= addr ? low
							      : nr_regions;
}

/* ---- fills ---- */

/* The process has ended, or all of it is there. */
static void end(void)
{
	_exit(0);
}

static const uint8_t *bytes_at(uint64_t offset, uint64_t len)
{
	static uint8_t buffer[MAX_PIECE] __attribute__((aligned(PAGE_SIZE)));
	struct iovec iov = {buffer, len};

	if (!options.read)
		return pages + offset;
	demand(preadv2(pages_fd, &iov, 1, offset, RWF_NOWAIT) == (ssize_t)len,
	       "preadv2");
	return buffer;
}

static void copy(uint64_t region, uint64_t page, uint64_t nr)
{
	const struct region *of = &regions[region];
	uint64_t offset = of->offset + page * PAGE_SIZE;
	struct uffdio_copy copy = {
		.dst = of->start + page * PAGE_SIZE,
		.src = (uintptr_t)bytes_at(offset, nr * PAGE_SIZE),
		.len = nr * PAGE_SIZE,
	};

	while (ioctl(uffd, UFFDIO_COPY, &copy) != 0) {
		if (errno == ESRCH)
			end();
		demand(errno == EAGAIN, "UFFDIO_COPY");
		/*
		 * What came so far; the rest is for another call.  That the
		 * mappings change, nobody here lets happen.
		 */
		if (copy.copy > 0) {
			copy.dst += copy.copy;
			copy.src += copy.copy;
			copy.len -= copy.copy;
		}
		copy.copy = 0;
	}
	memset(filled[region] + page, 1, nr);
	nr_missing -= nr;
}

static void fill_zeros(uint64_t addr)
{
	struct uffdio_zeropage zeros = {.range = {addr, PAGE_SIZE}};

	if (ioctl(uffd, UFFDIO_ZEROPAGE, &zeros) == 0)
		return;
	if (errno == ESRCH)
		end();
	/* Somebody was quicker, or it will fault once more. */
	ioctl(uffd, UFFDIO_WAKE, &zeros.range);
}

static void answer(uint64_t addr)
{
	uint64_t region = find_region(addr);

	if (region == nr_regions) {
		fill_zeros(addr);
		return;
	}
	const struct region *in = &regions[region];
	uint64_t page = (addr - in->start) / PAGE_SIZE;
	uint64_t first = page, last = page + 1;

	if (filled[region][page]) {
		struct uffdio_range range = {addr, PAGE_SIZE};

		ioctl(uffd, UFFDIO_WAKE, &range);
		return;
	}
	if (options.neighbourhood) {
		uint64_t window = addr & ~(WINDOW - 1);

		while (first > 0 && !filled[region][first - 1] &&
		       in->start + first * PAGE_SIZE > window)
			first--;
		while (last < in->nr_pages && !filled[region][last] &&
		       in->start + last * PAGE_SIZE < window + WINDOW)
			last++;
	}
	copy(region, first, last - first);
	piece = WINDOW / PAGE_SIZE;
}

/* One piece, of one region or of as many as it takes. */
static void drain(void)
{
	uint64_t budget = piece;

	while (budget && drain_region < nr_regions) {
		uint64_t nr_pages = regions[drain_region].nr_pages;
		const uint8_t *bytes = filled[drain_region];
		uint64_t last;

		while (drain_page < nr_pages && bytes[drain_page])
			drain_page++;
		for (last = drain_page; last < nr_pages && !bytes[last] &&
					last - drain_page < budget;)
			last++;
		if (last > drain_page)
			copy(drain_region, drain_page, last - drain_page);
		budget -= last - drain_page;
		drain_page = last;
		if (last == nr_pages) {
			drain_region++;
			drain_page = 0;
		}
	}
	if (piece < MAX_PIECE / PAGE_SIZE)
		piece *= 2;
}

/* ---- messages ---- */

static bool read_messages(void)
{
	struct uffd_msg messages[MAX_MESSAGES];
	ssize_t size = read(uffd, messages, sizeof(messages));

	for (ssize_t i = 0; i < size / (ssize_t)sizeof(*messages); i++)
		if (messages[i].event == UFFD_EVENT_PAGEFAULT)
			answer(messages[i].arg.pagefault.address &
			       ~(PAGE_SIZE - 1));
	return size > 0;
}

static void read_connection(int epoll_fd)
{
	uint32_t word;

	if (read(connection, &word, sizeof(word)) == sizeof(word)) {
		released = true;
		return;
	}
	/* CRIU leaves, and what it has restored goes on. */
	if (!released || !options.drain)
		end();
	epoll_ctl(epoll_fd, EPOLL_CTL_DEL, connection, NULL);
}

static void watch(int epoll_fd, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

	demand(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0,
	       "epoll_ctl");
}

static void serve(void)
{
	int epoll_fd = epoll_create1(EPOLL_CLOEXEC);

	watch(epoll_fd, uffd);
	watch(epoll_fd, connection);
	while (nr_missing || !options.drain) {
		bool busy = (released && options.drain) || options.poll;
		struct epoll_event event;

		if (epoll_wait(epoll_fd, &event, 1, busy ? 0 : -1) <= 0) {
			if (released && options.drain)
				drain();
		} else if (event.data.fd == uffd) {
			read_messages();
		} else {
			read_connection(epoll_fd);
		}
	}
}

/* ---- the hand-off ---- */

static int listen_here(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX,
				   .sun_path = "lazy-pages.socket"};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	unlink(addr.sun_path);
	demand(fd >= 0 &&
		       bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 &&
		       listen(fd, 1) == 0,
	       addr.sun_path);
	return fd;
}

static int receive_descriptor(void)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec data = {&byte, 1};
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	int fd;

	demand(recvmsg(connection, &message, MSG_CMSG_CLOEXEC) == 1 &&
		       CMSG_FIRSTHDR(&message),
	       "recvmsg of a descriptor");
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
	return fd;
}

int main(int argc, char **argv)
{
	int option;
	int32_t pid;

	while ((option = getopt(argc, argv, "ndprs:")) != -1) {
		options.neighbourhood |= option == 'n';
		options.drain |= option == 'd';
		options.poll |= option == 'p';
		options.read |= option == 'r';
		if (option == 's')
			options.status_fd = atoi(optarg);
	}
	if (argc != optind + 2)
		return 2;
	load(argv[optind], argv[optind + 1]);
	int listener = listen_here();
	if (options.status_fd >= 0)
		demand(write(options.status_fd, "", 1) == 1, "status");
	connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	demand(read(connection, &pid, sizeof(pid)) == sizeof(pid), "pid");
	uffd = receive_descriptor();
	serve();
	return 0;
}
