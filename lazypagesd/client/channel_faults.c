/*
 * channel_faults.c: the handler of SIGSEGV, which asks for pages and waits.
 */
#define _GNU_SOURCE 1 /* like -D_GNU_SOURCE, which a program may have */
#include "channel_internal.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

struct faults {
	unsigned int n;
	uint64_t args[LPD_PACKET_MESSAGES];
};

static void send_faults(const struct faults *faults)
{
	struct lpd_v2_message messages[LPD_PACKET_MESSAGES];

	if (!lpd_channel.is_v2) {
		lpd_channel_send_packet(faults->args,
					faults->n * sizeof(uint64_t), -1);
		return;
	}
	for (unsigned int i = 0; i < faults->n; i++) {
		messages[i].type = LPD_V2_PAGEFAULT;
		messages[i].arg = faults->args[i];
	}
	lpd_channel_send_packet(messages, faults->n * sizeof(messages[0]), -1);
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

	for (unsigned int i = 0; i < lpd_channel.nr_ranges; i++) {
		struct range *range = &lpd_channel.ranges[i];

		if (!lpd_range_intersect(range, addr, PAGE_SIZE, &page, &end))
			continue;
		if (range->states[page] == THERE)
			return IS_THERE;
		if (lpd_channel.ended)
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
			__atomic_load_n(&lpd_channel.filled, __ATOMIC_ACQUIRE);
		struct faults faults = {.n = 0};
		sigset_t mask;

		lpd_channel_lock(&mask);
		enum verdict verdict = look(addr, bits, &faults);
		lpd_channel_unlock(&mask);
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
			lpd_channel_futex(&lpd_channel.filled, FUTEX_WAIT,
					  seen);
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
	const struct sigaction *previous = &lpd_channel.previous;

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

void lpd_channel_on_segv(int sig, siginfo_t *info, void *context)
{
	uintptr_t addr = (uintptr_t)info->si_addr & ~(PAGE_SIZE - 1);
	int saved_errno = errno;

	/* Not of a child that has our memory and no channel: see channel.h. */
	if (info->si_code <= 0 || getpid() != lpd_channel.pid ||
	    !wait_for(addr, bits_of(context)))
		pass_on(sig, info, context);
	errno = saved_errno;
}
