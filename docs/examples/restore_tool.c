/*
 * restore_tool: a whole restore tool in C, with no library but libc.
 *
 *     cc -std=gnu17 -o restore_tool restore_tool.c
 *     restore_tool /run/lazypagesd/handoff.socket SNAPSHOT | cmp - SNAPSHOT
 *
 * SNAPSHOT is the memory of a process, page after page.  A child gets it back
 * while it already runs: `lazypagesd serve` fills each page when it is touched,
 * and then the rest.  All that the child does with its memory is to write it to
 * stdout.
 *
 * docs/reference/handoff-protocol.md says what happens when, and
 * proto/handoff/handoff.proto which field has which number.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE_SIZE  4096
#define PACKET_MAX 65536
#define FDS_MAX    16

/* ---- messages: a field is a tag, then a number, or a length and bytes ---- */

enum wire_type { NUMBER = 0, BYTES = 2 };

/* Room for all that is sent here; a list of many regions needs more. */
struct message {
	uint8_t bytes[128];
	size_t len;
};

/* Seven bits a byte, the lowest first; the eighth says that more follow. */
static void put_varint(struct message *msg, uint64_t value)
{
	for (; value > 0x7f; value >>= 7)
		msg->bytes[msg->len++] = value | 0x80;
	msg->bytes[msg->len++] = value;
}

static void put_number(struct message *msg, unsigned int field, uint64_t value)
{
	put_varint(msg, field << 3 | NUMBER);
	put_varint(msg, value);
}

static void put_bytes(struct message *msg, unsigned int field,
		      const void *bytes, size_t len)
{
	put_varint(msg, field << 3 | BYTES);
	put_varint(msg, len);
	memcpy(msg->bytes + msg->len, bytes, len);
	msg->len += len;
}

/* Move *@at past a varint, and say whether there was one. */
static bool get_varint(const uint8_t **at, const uint8_t *end, uint64_t *ret)
{
	*ret = 0;
	for (int shift = 0; *at < end && shift < 64; shift += 7) {
		uint8_t byte = *(*at)++;

		*ret |= (uint64_t)(byte & 0x7f) << shift;
		if (byte <= 0x7f)
			return true;
	}
	return false;
}

/* ---- requests: a packet each, with descriptors beside it ---- */

/* The numbers in `message Request`. */
enum kind { OPEN = 1, ADD_SESSION = 2, FINISHED = 4, RELEASE = 6 };
enum { REQUEST_NUMBER = 15 };

static bool send_packet(int sock, struct message *msg, const int *fds,
			int nr_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = msg->bytes, .iov_len = msg->len};
	struct msghdr packet = {.msg_iov = &iov, .msg_iovlen = 1};

	if (nr_fds > 0) {
		packet.msg_control = &control;
		packet.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		struct cmsghdr *head = CMSG_FIRSTHDR(&packet);
		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		memcpy(CMSG_DATA(head), fds, nr_fds * sizeof(int));
	}
	return sendmsg(sock, &packet, MSG_NOSIGNAL) == (ssize_t)msg->len;
}

struct answer {
	bool accepted;
	uint64_t number; /* of its request, or 0 */
};

/* What an Answer says; prints every reason why it is not `accepted`. */
static struct answer read_answer(const uint8_t *at, const uint8_t *end)
{
	enum {
		ACCEPTED = 1 << 3 | NUMBER,
		REFUSED = 2 << 3 | BYTES,
		OF_REQUEST = 6 << 3 | NUMBER,
	};
	struct answer answer = {0};

	while (at < end) {
		uint64_t tag, value; /* or how many bytes there are */

		if (!get_varint(&at, end, &tag) ||
		    !get_varint(&at, end, &value) ||
		    ((tag & 7) == BYTES && value > (size_t)(end - at))) {
			warnx("daemon: the answer is cut off");
			return (struct answer){0};
		}
		if (tag == ACCEPTED)
			answer.accepted = value;
		if (tag == OF_REQUEST)
			answer.number = value;
		if (tag == REFUSED)
			warnx("refused: %.*s", (int)value, at);
		if ((tag & 7) == BYTES)
			at += value;
	}
	return answer;
}

/* Send one request, and wait for its answer. */
static bool ask(int sock, enum kind kind, const struct message *body,
		const int *fds, int nr_fds)
{
	static uint8_t packet[PACKET_MAX];
	static uint64_t nr_sent;
	struct message request = {0};
	struct answer answer;

	put_bytes(&request, kind, body->bytes, body->len);
	put_number(&request, REQUEST_NUMBER, ++nr_sent);
	if (!send_packet(sock, &request, fds, nr_fds)) {
		warn("daemon: send");
		return false;
	}
	do {
		ssize_t n = recv(sock, packet, sizeof(packet), 0);
		if (n <= 0) {
			warnx("daemon: it hung up; its log says why");
			return false;
		}
		answer = read_answer(packet, packet + n);
		/* A daemon that has taken over may repeat the last one. */
	} while (answer.number && answer.number < nr_sent);
	return answer.accepted;
}

/* ---- the child: what is restored ---- */

struct memory {
	char *addr;
	size_t size;
	int uffd; /* by its number in the child */
};

/* Only a process itself can make the userfaultfd of its memory.  All events,
 * because the daemon has to know when a process forks, or changes its mappings.
 * The first of them needs CAP_SYS_PTRACE. */
static void make_memory(struct memory *memory)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |
			    UFFD_FEATURE_EVENT_REMOVE |
			    UFFD_FEATURE_EVENT_UNMAP,
	};
	struct uffdio_register reg = {
		.range.len = memory->size,
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	memory->addr = mmap(NULL, memory->size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory->addr == MAP_FAILED)
		err(1, "mmap");
	reg.range.start = (uintptr_t)memory->addr;
	memory->uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (memory->uffd < 0 || ioctl(memory->uffd, UFFDIO_API, &api) < 0 ||
	    ioctl(memory->uffd, UFFDIO_REGISTER, &reg) < 0)
		err(1, "userfaultfd");
}

static void be_restored(int parent, struct memory memory)
{
	char go;

	make_memory(&memory);
	if (send(parent, &memory, sizeof(memory), 0) != sizeof(memory))
		err(1, "child: send");
	/* Nothing is touched before the parent says so.  It says nothing where
	 * it has failed, or is dead. */
	if (recv(parent, &go, 1, 0) != 1)
		_exit(1);
	close(memory.uffd);
	for (size_t done = 0; done < memory.size;) {
		ssize_t n = write(STDOUT_FILENO, memory.addr + done,
				  memory.size - done);
		if (n < 0)
			err(1, "stdout");
		done += n;
	}
}

/* ---- the parent: the restore tool ---- */

static int connect_to(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(addr.sun_path))
		errx(1, "%s: too long for a socket", path);
	strcpy(addr.sun_path, path);
	if (sock < 0 ||
	    connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		err(1, "%s", path);
	return sock;
}

static bool open_restore(int daemon)
{
	enum { VERSION = 1, NAME = 2 };
	struct message open = {0};

	put_number(&open, VERSION, 1);
	put_bytes(&open, NAME, "restore_tool", strlen("restore_tool"));
	return ask(daemon, OPEN, &open, NULL, 0);
}

/* The whole memory is one region, which is at the beginning of the snapshot. */
static bool add_session(int daemon, const struct memory *memory, pid_t pid,
			int snapshot)
{
	enum { REGIONS = 1, PIDFD = 4 };
	enum { START = 1, NR_PAGES = 2 };
	struct message region = {0}, session = {0};
	int pidfd = pidfd_open(pid, 0);
	int uffd = pidfd_getfd(pidfd, memory->uffd, 0);
	int fds[] = {uffd, pidfd, snapshot};

	if (uffd < 0) {
		warn("pidfd_getfd");
		return false;
	}
	put_number(&region, START, (uintptr_t)memory->addr);
	put_number(&region, NR_PAGES, memory->size / PAGE_SIZE);
	put_bytes(&session, REGIONS, region.bytes, region.len);
	put_number(&session, PIDFD, true);
	bool accepted = ask(daemon, ADD_SESSION, &session, fds, 3);
	/* While any copy is open, a page that nobody fills is waited for. */
	close(uffd);
	close(pidfd);
	return accepted;
}

static bool restore(int daemon, int child, pid_t pid, int snapshot)
{
	const struct message nothing = {0};
	struct memory memory;

	return recv(child, &memory, sizeof(memory), 0) == sizeof(memory) &&
	       open_restore(daemon) &&
	       add_session(daemon, &memory, pid, snapshot) &&
	       /* The child could run from here on.  It begins one step later,
		* so that when we die, it either has not begun or is served
		* without us. */
	       ask(daemon, FINISHED, &nothing, NULL, 0) &&
	       send(child, "", 1, MSG_NOSIGNAL) == 1 &&
	       ask(daemon, RELEASE, &nothing, NULL, 0);
}

int main(int argc, char **argv)
{
	struct memory memory = {0};
	struct stat st;
	int status, socks[2];

	if (argc != 3)
		errx(1, "usage: restore_tool SOCKET SNAPSHOT");
	int daemon = connect_to(argv[1]);
	int snapshot = open(argv[2], O_RDONLY | O_CLOEXEC);
	if (snapshot < 0 || fstat(snapshot, &st) < 0)
		err(1, "%s", argv[2]);
	/* A page that is not there as a whole is the daemon's to refuse. */
	memory.size = (st.st_size + PAGE_SIZE - 1) / PAGE_SIZE * PAGE_SIZE;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks) < 0)
		err(1, "socketpair");
	pid_t pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (pid == 0) {
		close(daemon);
		close(socks[0]);
		be_restored(socks[1], memory);
		_exit(0);
	}
	close(socks[1]);
	bool restored = restore(daemon, socks[0], pid, snapshot);
	if (!restored)
		kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return restored && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
