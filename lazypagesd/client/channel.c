/*
 * channel.c: see channel.h, and wire.h for what is said.
 *
 * Each registered range has a shadow: a second mapping as long, to which the
 * pages are written that come.  When a neighbourhood is complete there, one
 * mremap(2) puts it in place of memory that nobody could touch.  Both have
 * their pages at the same distances, so that the kernel can make one mapping
 * of what has arrived, and both are private, so that fork() comes out right.
 *
 * One lock is held by whoever takes a packet, and by whoever changes the
 * mappings, from before that is told until it is done.  Who has told takes
 * the packets itself until READ comes: those before READ were sent by one who
 * had not read of the change and are for the memory as it is, those after it
 * are for the memory as it is going to be, and are taken when it is.
 *
 * The lock is taken in a signal handler.  Its holder touches no memory that
 * is missing, and has all signals blocked.
 */
#define _GNU_SOURCE
#include "channel.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "wire.h"

#define PAGE_SIZE  4096ul
#define MAX_RANGES 256
/* Half of the mappings that there can be at most; see max_map_count. */
#define MAX_CHUNKS      8192
#define MIN_CHUNK_PAGES 16
#define NAP_NS          1000000

enum page_state {
	MISSING,
	ASKED, /* for by a thread that waits */
	ASIDE, /* in the shadow, or zero */
	THERE, /* where it belongs */
};

struct range {
	uint8_t *start;
	size_t nr_pages;
	uint8_t *shadow; /* of pages that are THERE: somebody else's */
	uint8_t *states; /* of each page; never freed */
	size_t chunk_pages;
};

static struct {
	int fd;
	int child_fd; /* of the fork under way */
	pid_t pid;
	bool is_v2;
	bool complete; /* all that was missing is zero, and told so */
	bool ended;    /* nothing comes any more */
	uint64_t features;
	uint32_t lock;   /* futex: 0 free, 1 held, 2 held and waited for */
	uint32_t filled; /* futex: changes whenever a page may have come */
	unsigned int nr_ranges;
	size_t nr_chunks;
	struct range ranges[MAX_RANGES];
	struct sigaction previous;
	sigset_t fork_mask;
	struct {
		struct lpd_op op;
		uint8_t bytes[LPD_MAX_COPY];
	} packet;
} channel = {.fd = -1, .child_fd = -1};

/* ---- the lock, and waiting ---- */

static void futex(uint32_t *word, int operation, uint32_t value)
{
	syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL);
}

static void lock(sigset_t *ret_mask)
{
	uint32_t unlocked = 0;
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, ret_mask);
	if (__atomic_compare_exchange_n(&channel.lock, &unlocked, 1, false,
					__ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
		return;
	while (__atomic_exchange_n(&channel.lock, 2, __ATOMIC_ACQUIRE))
		futex(&channel.lock, FUTEX_WAIT, 2);
}

static void unlock(const sigset_t *mask)
{
	if (__atomic_exchange_n(&channel.lock, 0, __ATOMIC_RELEASE) == 2)
		futex(&channel.lock, FUTEX_WAKE, 1);
	pthread_sigmask(SIG_SETMASK, mask, NULL);
}

/* Let everybody look again. */
static void wake_all(void)
{
	__atomic_fetch_add(&channel.filled, 1, __ATOMIC_RELEASE);
	futex(&channel.filled, FUTEX_WAKE, INT_MAX);
}

static void end(void)
{
	channel.ended = true;
	wake_all();
}

/* ---- pages ---- */

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static bool is_awaited(uint8_t state)
{
	return state == MISSING || state == ASKED;
}

/* The pages of a range that lie within [addr, addr + len), if any do. */
static bool intersect(const struct range *range, uintptr_t addr, size_t len,
		      size_t *ret_first, size_t *ret_end)
{
	uintptr_t start = (uintptr_t)range->start;
	uintptr_t stop = start + range->nr_pages * PAGE_SIZE;
	uintptr_t from = addr > start ? addr : start;
	uintptr_t to = addr + len < stop ? addr + len : stop;

	if (from >= to)
		return false;
	*ret_first = (from - start) / PAGE_SIZE;
	*ret_end = (to - start) / PAGE_SIZE;
	return true;
}

/* The end of the run of pages in one state that begins at first. */
static size_t run_end(const struct range *range, size_t first, size_t end)
{
	size_t i = first;

	while (i < end && range->states[i] == range->states[first])
		i++;
	return i;
}

/* Put pages in place that are complete in the shadow. */
static void move_in(struct range *range, size_t first, size_t end)
{
	size_t len = (end - first) * PAGE_SIZE;

	/* Fails only for want of memory, which somebody may give back. */
	while (mremap(range->shadow + first * PAGE_SIZE, len, len,
		      MREMAP_MAYMOVE | MREMAP_FIXED,
		      range->start + first * PAGE_SIZE) == MAP_FAILED)
		nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
	memset(range->states + first, THERE, end - first);
}

static void publish_chunk(struct range *range, size_t first, size_t end)
{
	for (size_t i = first; i < end; i++)
		if (is_awaited(range->states[i]))
			return;
	for (size_t next; first < end; first = next) {
		next = run_end(range, first, end);
		if (range->states[first] == ASIDE)
			move_in(range, first, next);
	}
}

/* Put in place what is complete of the neighbourhoods of some pages. */
static void publish(struct range *range, size_t first, size_t end)
{
	size_t chunk = range->chunk_pages;

	for (first -= first % chunk; first < end; first += chunk)
		publish_chunk(range, first,
			      min_size(first + chunk, range->nr_pages));
	wake_all();
}

/* ---- what comes ---- */

static void fill(uintptr_t addr, size_t len, const uint8_t *bytes)
{
	size_t first, end;

	for (unsigned int i = 0; i < channel.nr_ranges; i++) {
		struct range *range = &channel.ranges[i];

		if (!intersect(range, addr, len, &first, &end))
			continue;
		for (size_t page = first; page < end; page++) {
			size_t offset = page * PAGE_SIZE;

			if (!is_awaited(range->states[page]))
				continue;
			if (bytes)
				memcpy(range->shadow + offset,
				       bytes + ((uintptr_t)range->start +
						offset - addr),
				       PAGE_SIZE);
			range->states[page] = ASIDE;
		}
		publish(range, first, end);
	}
}

/* Nobody has been asked for these pages. */
static void forget_asked(uintptr_t addr, size_t len)
{
	size_t first, end;

	for (unsigned int i = 0; i < channel.nr_ranges; i++) {
		struct range *range = &channel.ranges[i];

		if (!intersect(range, addr, len, &first, &end))
			continue;
		for (; first < end; first++)
			if (range->states[first] == ASKED)
				range->states[first] = MISSING;
	}
	wake_all();
}

static bool is_sound(const struct lpd_op *op, size_t nr_bytes)
{
	if ((op->addr | op->len) % PAGE_SIZE || op->addr + op->len < op->addr)
		return false;
	return nr_bytes == (op->kind == LPD_OP_COPY ? op->len : 0);
}

/*
 * Take a packet, if there is one; the lock is held.  Returns the kind of the
 * operation, or 0.  Of what is unsound, nothing can be believed any more.
 */
static uint64_t take_packet(void)
{
	struct lpd_op *op = &channel.packet.op;
	ssize_t n = recv(channel.fd, &channel.packet, sizeof(channel.packet),
			 MSG_DONTWAIT | MSG_TRUNC);

	if (n < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNRESET))
		return 0;
	if (n < (ssize_t)sizeof(*op) || !is_sound(op, n - sizeof(*op))) {
		end();
		return 0;
	}
	switch (op->kind) {
	case LPD_OP_COPY:
		fill(op->addr, op->len, channel.packet.bytes);
		break;
	case LPD_OP_ZEROPAGE:
		fill(op->addr, op->len, NULL);
		break;
	case LPD_OP_END:
		channel.complete = true;
		fill(0, UINTPTR_MAX, NULL);
		break;
	case LPD_OP_WAKE:
		forget_asked(op->addr, op->len);
		break;
	case LPD_OP_READ:
		break;
	default:
		end();
	}
	return op->kind;
}

static void wait_readable(void)
{
	struct pollfd poller = {.fd = channel.fd, .events = POLLIN};

	poll(&poller, 1, -1);
}

/* The thread that takes what comes while nobody tells anything. */
static void *serve(void *arg)
{
	bool over = false;

	while (!over) {
		sigset_t mask;

		wait_readable();
		lock(&mask);
		take_packet();
		over = channel.ended || channel.complete;
		unlock(&mask);
	}
	return arg;
}

static int start_serving(void)
{
	pthread_t thread;
	sigset_t all, mask;

	/* The program's signals are not for this thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &mask);
	int rc = pthread_create(&thread, NULL, serve, NULL);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	if (!rc)
		pthread_detach(thread);
	return -rc;
}

/* ---- what is told ---- */

/*
 * If nobody is there to read it: what was sent to us before may be still to be
 * taken, the page and the last word among it.  Whether it is the end turns out
 * then.
 */
static void send_packet(const void *bytes, size_t len, int fd)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {.head = {.cmsg_level = SOL_SOCKET,
			      .cmsg_type = SCM_RIGHTS,
			      .cmsg_len = CMSG_LEN(sizeof(int))}};
	struct iovec iov = {.iov_base = (void *)bytes, .iov_len = len};
	struct msghdr packet = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (fd >= 0) {
		memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
		packet.msg_control = &control;
		packet.msg_controllen = sizeof(control);
	}
	do {
		n = sendmsg(channel.fd, &packet, MSG_NOSIGNAL);
	} while (n < 0 &&
		 (errno == EINTR || errno == ENOBUFS || errno == ENOMEM));
}

/* Tell of an event and wait until it has been read; the lock is held. */
static void tell(unsigned int type, const uint64_t *args, unsigned int nr_args,
		 int fd)
{
	struct lpd_v2_message messages[3];

	if (!(channel.features & LPD_V2_FEATURE(type)) || channel.complete ||
	    channel.ended)
		return;
	for (unsigned int i = 0; i < nr_args; i++) {
		messages[i].type = i ? LPD_V2_ARGUMENT : type;
		messages[i].arg = args[i];
	}
	send_packet(messages, nr_args * sizeof(messages[0]), fd);
	/* After the last word nobody reads, and nothing is filled. */
	while (!channel.ended && !channel.complete &&
	       take_packet() != LPD_OP_READ)
		wait_readable();
}

static void tell_range(unsigned int type, const void *addr, size_t len)
{
	uint64_t args[] = {(uintptr_t)addr, (uintptr_t)addr + len};

	tell(type, args, 2, -1);
}

/* ---- faults ---- */

struct faults {
	unsigned int n;
	uint64_t args[LPD_PACKET_MESSAGES];
};

static void send_faults(const struct faults *faults)
{
	struct lpd_v2_message messages[LPD_PACKET_MESSAGES];

	if (!channel.is_v2) {
		send_packet(faults->args, faults->n * sizeof(uint64_t), -1);
		return;
	}
	for (unsigned int i = 0; i < faults->n; i++) {
		messages[i].type = LPD_V2_PAGEFAULT;
		messages[i].arg = faults->args[i];
	}
	send_packet(messages, faults->n * sizeof(messages[0]), -1);
}

static void ask_for(struct range *range, size_t page, uint64_t bits,
		    struct faults *faults)
{
	if (range->states[page] != MISSING || faults->n == LPD_PACKET_MESSAGES)
		return;
	range->states[page] = ASKED;
	faults->args[faults->n++] =
		((uintptr_t)range->start + page * PAGE_SIZE) | bits;
}

enum verdict {
	NOT_OURS,
	IS_THERE,
	IS_AWAITED,
};

/* What is it about a page?  Collects what is to be asked for. */
static enum verdict look(uintptr_t addr, uint64_t bits, struct faults *faults)
{
	size_t page, end;

	for (unsigned int i = 0; i < channel.nr_ranges; i++) {
		struct range *range = &channel.ranges[i];

		if (!intersect(range, addr, PAGE_SIZE, &page, &end))
			continue;
		if (range->states[page] == THERE)
			return IS_THERE;
		if (channel.ended)
			return NOT_OURS;
		ask_for(range, page, bits, faults);
		page -= page % range->chunk_pages;
		end = min_size(page + range->chunk_pages, range->nr_pages);
		for (; page < end; page++)
			ask_for(range, page, 0, faults);
		return IS_AWAITED;
	}
	return NOT_OURS;
}

/* Wait until a page is there; false if the fault is none of ours. */
static bool wait_for(uintptr_t addr, uint64_t bits)
{
	/*
	 * A page that was there already has come since the fault; if the next
	 * fault is there again, the program has protected it itself.
	 */
	static __thread uintptr_t last_there;
	bool had_come = true;

	for (;;) {
		uint32_t seen =
			__atomic_load_n(&channel.filled, __ATOMIC_ACQUIRE);
		struct faults faults = {.n = 0};
		sigset_t mask;

		lock(&mask);
		enum verdict verdict = look(addr, bits, &faults);
		unlock(&mask);
		if (verdict == IS_THERE) {
			bool again = had_come && last_there == addr;

			last_there = had_come && !again ? addr : 0;
			return !again;
		}
		if (verdict == NOT_OURS)
			return false;
		had_come = false;
		if (faults.n)
			send_faults(&faults);
		else
			futex(&channel.filled, FUTEX_WAIT, seen);
	}
}

static uint64_t bits_of(const ucontext_t *context)
{
#ifdef __x86_64__
	/* Bit 1 of the error code of a page fault: it was a write. */
	return context->uc_mcontext.gregs[REG_ERR] & 2 ? LPD_UFFD_BIT_WRITE : 0;
#else
	(void)context;
	return 0;
#endif
}

/* As if we were not there. */
static void pass_on(int sig, siginfo_t *info, void *context)
{
	const struct sigaction *previous = &channel.previous;

	if (previous->sa_flags & SA_SIGINFO) {
		previous->sa_sigaction(sig, info, context);
	} else if (previous->sa_handler != SIG_DFL &&
		   previous->sa_handler != SIG_IGN) {
		previous->sa_handler(sig);
	} else {
		/* The access is made once more, and is fatal. */
		signal(sig, SIG_DFL);
		if (info->si_code <= 0)
			raise(sig);
	}
}

static void on_segv(int sig, siginfo_t *info, void *context)
{
	uintptr_t addr = (uintptr_t)info->si_addr & ~(PAGE_SIZE - 1);
	int saved_errno = errno;

	/* Not of a child that has our memory and no channel: see channel.h. */
	if (info->si_code <= 0 || getpid() != channel.pid ||
	    !wait_for(addr, bits_of(context)))
		pass_on(sig, info, context);
	errno = saved_errno;
}

/* ---- fork ---- */

static void before_fork(void)
{
	uint64_t number = 0; /* given at the other end */
	int fds[2];

	lock(&channel.fork_mask);
	channel.child_fd = -1;
	if (channel.ended || channel.complete ||
	    !(channel.features & LPD_V2_FEATURE(LPD_V2_FORK)) ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return;
	channel.child_fd = fds[0];
	/* For who fills; the system allows less. */
	(void)setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &(int){1 << 22},
			 sizeof(int));
	tell(LPD_V2_FORK, &number, 1, fds[1]);
	close(fds[1]);
}

static void after_fork_in_parent(void)
{
	if (channel.child_fd >= 0)
		close(channel.child_fd);
	unlock(&channel.fork_mask);
}

static void after_fork_in_child(void)
{
	close(channel.fd);
	channel.fd = channel.child_fd;
	channel.pid = getpid();
	/* Whoever had asked was a thread of the parent. */
	forget_asked(0, UINTPTR_MAX);
	if (channel.fd < 0 || start_serving() < 0)
		channel.ended = true;
	unlock(&channel.fork_mask);
}

/* ---- opening ---- */

/* The answer to a request: zeros alone if it is not understood. */
static struct lpd_wire_api grant(const struct lpd_wire_api *asked)
{
	struct lpd_wire_api ret = {.api = asked->api, .ioctls = LPD_OP_ALL};
	bool is_v2 = asked->api == LPD_API_V2;
	uint64_t known = is_v2 ? LPD_V2_ALL_FEATURES : 0;

	if ((!is_v2 && asked->api != LPD_API_V1) || asked->features & ~known ||
	    asked->bits || asked->ioctls)
		return (struct lpd_wire_api){0};
#ifdef __x86_64__
	ret.bits = LPD_UFFD_BIT_WRITE;
#endif
	if (is_v2) {
		ret.features =
			asked->features | LPD_V2_FEATURE(LPD_V2_PAGEFAULT);
		/* Nothing has arguments but for these. */
		if (!(asked->features & LPD_V2_FEATURE(LPD_V2_ARGUMENT)))
			ret.features &= LPD_V2_FEATURE(LPD_V2_PAGEFAULT) |
					LPD_V2_FEATURE(LPD_V2_FORK);
		ret.bits |= ret.features << LPD_V2_SHIFT;
	}
	return ret;
}

static int exchange(int fd)
{
	struct lpd_wire_api asked = {0};
	ssize_t n;

	do {
		n = recv(fd, &asked, sizeof(asked), MSG_TRUNC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n != sizeof(asked))
		asked.api = 0;

	struct lpd_wire_api answer = grant(&asked);
	if (send(fd, &answer, sizeof(answer), MSG_NOSIGNAL) < 0)
		return -errno;
	channel.is_v2 = answer.api == LPD_API_V2;
	channel.features = answer.features;
	return answer.api ? 0 : -EINVAL;
}

int lpd_channel_open(int fd)
{
	struct sigaction action = {
		.sa_sigaction = on_segv,
		/* Who waits in it can be interrupted by what faults as well. */
		.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK | SA_RESTART,
	};
	int rc = channel.fd >= 0 ? -EBUSY : exchange(fd);

	if (rc) {
		close(fd);
		return rc;
	}
	channel.fd = fd;
	channel.pid = getpid();
	sigemptyset(&action.sa_mask);
	if (sigaction(SIGSEGV, &action, &channel.previous) < 0)
		return -errno;
	rc = -pthread_atfork(before_fork, after_fork_in_parent,
			     after_fork_in_child);
	return rc ? rc : start_serving();
}

/* ---- ranges ---- */

static void *map(void *addr, size_t len, int protection, int flags)
{
	return mmap(addr, len, protection,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
}

static void add_range(struct range range)
{
	if (!range.nr_pages)
		return;
	channel.ranges[channel.nr_ranges] = range;
	/* The neighbourhoods lie otherwise than they did. */
	publish(&channel.ranges[channel.nr_ranges++], 0, range.nr_pages);
}

/* Pages [first, end) of a range, as a range. */
static struct range part_of(struct range range, size_t first, size_t end)
{
	range.start += first * PAGE_SIZE;
	range.shadow += first * PAGE_SIZE;
	range.states += first;
	range.nr_pages = end - first;
	return range;
}

/* Take pages out of a range, which moves in the table. */
static struct range cut(unsigned int i, size_t first, size_t end)
{
	struct range range = channel.ranges[i];

	channel.ranges[i] = channel.ranges[--channel.nr_ranges];
	add_range(part_of(range, 0, first));
	add_range(part_of(range, end, range.nr_pages));
	return part_of(range, first, end);
}

static void unmap_shadow(const struct range *range)
{
	size_t next;

	for (size_t i = 0; i < range->nr_pages; i = next) {
		next = run_end(range, i, range->nr_pages);
		if (range->states[i] != THERE)
			munmap(range->shadow + i * PAGE_SIZE,
			       (next - i) * PAGE_SIZE);
	}
}

/* Nothing is registered within [addr, addr + len) any more. */
static void forget(uintptr_t addr, size_t len)
{
	size_t first, end;

	for (unsigned int i = 0; i < channel.nr_ranges;) {
		if (intersect(&channel.ranges[i], addr, len, &first, &end)) {
			struct range range = cut(i, first, end);

			unmap_shadow(&range);
			i = 0;
		} else {
			i++;
		}
	}
	wake_all();
}

/* Is there room in the table, whatever is cut? */
static bool has_room(void)
{
	return channel.nr_ranges + 4 <= MAX_RANGES;
}

static int add_new(uint8_t *start, size_t len)
{
	struct range range = {
		.start = start,
		.nr_pages = len / PAGE_SIZE,
		.shadow = map(NULL, len, PROT_READ | PROT_WRITE, 0),
		.states = map(NULL, len / PAGE_SIZE, PROT_READ | PROT_WRITE, 0),
		.chunk_pages = MIN_CHUNK_PAGES,
	};

	if (range.shadow == MAP_FAILED || range.states == MAP_FAILED ||
	    map(start, len, PROT_NONE, MAP_FIXED) == MAP_FAILED)
		return -errno;
	while (range.chunk_pages < range.nr_pages &&
	       channel.nr_chunks + range.nr_pages / range.chunk_pages >
		       MAX_CHUNKS)
		range.chunk_pages *= 2;
	channel.nr_chunks += range.nr_pages / range.chunk_pages + 1;
	add_range(range);
	return 0;
}

static bool is_range(const void *addr, size_t len)
{
	return len && !(((uintptr_t)addr | len) % PAGE_SIZE);
}

int lpd_channel_register(void *addr, size_t len)
{
	sigset_t mask;
	int rc;

	if (!is_range(addr, len))
		return -EINVAL;
	lock(&mask);
	if (channel.fd < 0 || channel.ended || channel.complete)
		rc = -EPIPE;
	else
		rc = has_room() ? add_new(addr, len) : -ENOSPC;
	unlock(&mask);
	return rc;
}

void lpd_channel_populate(const void *addr, size_t len)
{
	const volatile uint8_t *bytes = addr;

	for (size_t i = 0; i < len; i += PAGE_SIZE)
		(void)bytes[i];
}

/* ---- calls that change the mappings ---- */

int lpd_channel_munmap(void *addr, size_t len)
{
	sigset_t mask;
	int rc;

	if (!is_range(addr, len))
		return -EINVAL;
	lock(&mask);
	if (has_room()) {
		tell_range(LPD_V2_UNMAP, addr, len);
		forget((uintptr_t)addr, len);
		rc = munmap(addr, len) < 0 ? -errno : 0;
	} else {
		rc = -ENOMEM;
	}
	unlock(&mask);
	return rc;
}

/* Zero are from now on what was awaited, and what was written aside. */
static void make_zero(struct range *range, size_t first, size_t end)
{
	for (; first < end; first++) {
		if (range->states[first] == ASIDE)
			madvise(range->shadow + first * PAGE_SIZE, PAGE_SIZE,
				MADV_DONTNEED);
		if (range->states[first] != THERE)
			range->states[first] = ASIDE;
	}
}

int lpd_channel_discard(void *addr, size_t len)
{
	size_t first, end;
	sigset_t mask;

	if (!is_range(addr, len))
		return -EINVAL;
	lock(&mask);
	tell_range(LPD_V2_REMOVE, addr, len);
	int rc = madvise(addr, len, MADV_DONTNEED) < 0 ? -errno : 0;
	for (unsigned int i = 0; i < channel.nr_ranges; i++) {
		struct range *range = &channel.ranges[i];

		if (intersect(range, (uintptr_t)addr, len, &first, &end)) {
			make_zero(range, first, end);
			publish(range, first, end);
		}
	}
	unlock(&mask);
	return rc;
}

/* Move pages that are there, over mappings that the kernel has not joined. */
static void move_pages(uint8_t *from, uint8_t *to, size_t len)
{
	for (size_t done = 0, piece = len; done < len;) {
		piece = min_size(piece, len - done);
		if (mremap(from + done, piece, piece,
			   MREMAP_MAYMOVE | MREMAP_FIXED,
			   to + done) != MAP_FAILED)
			done += piece;
		else if (errno == EFAULT && piece > PAGE_SIZE)
			piece = piece / 2 & ~(PAGE_SIZE - 1);
		else
			abort(); /* told, and cannot be done: never go on so */
	}
}

static int move_range(uint8_t *from, size_t len, uint8_t *to)
{
	uint64_t args[] = {(uintptr_t)from, (uintptr_t)to, len};
	unsigned int i = 0;
	size_t first, end;

	while (i < channel.nr_ranges &&
	       !intersect(&channel.ranges[i], (uintptr_t)from, len, &first,
			  &end))
		i++;
	if (i == channel.nr_ranges || (end - first) * PAGE_SIZE != len)
		return -EFAULT;
	tell(LPD_V2_REMAP, args, 3, -1);

	struct range range = cut(i, first, end);
	forget((uintptr_t)to, len);
	if (map(to, len, PROT_NONE, MAP_FIXED) == MAP_FAILED)
		abort();
	for (size_t next, page = 0; page < range.nr_pages; page = next) {
		next = run_end(&range, page, range.nr_pages);
		if (range.states[page] == THERE)
			move_pages(from + page * PAGE_SIZE,
				   to + page * PAGE_SIZE,
				   (next - page) * PAGE_SIZE);
	}
	munmap(from, len);
	range.start = to;
	add_range(range);
	return 0;
}

int lpd_channel_mremap(void *from, size_t len, void *to)
{
	uintptr_t a = (uintptr_t)from, b = (uintptr_t)to;
	sigset_t mask;
	int rc;

	if (!is_range(from, len) || !is_range(to, len) ||
	    (a < b + len && b < a + len))
		return -EINVAL;
	lock(&mask);
	if (!(channel.features & LPD_V2_FEATURE(LPD_V2_REMAP)))
		rc = -EOPNOTSUPP;
	else
		rc = has_room() ? move_range(from, len, to) : -ENOMEM;
	unlock(&mask);
	return rc;
}
