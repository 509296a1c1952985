/*
 * reader.c: threads that wait for the disk, so that no worker has to.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/resource.h>
#include <unistd.h>

#include "fill.h"
#include "roster.h"

/* Where a worker needs the processor as well. */
#define NICE 10

void lpd_reader_wake(struct lpd_worker *worker)
{
	/* Never fills the pipe.  An eventfd would wake every reader. */
	(void)!write(worker->reads_fds[1], "", 1);
}

/* Claim a queued read; a race with another reader leaves one of us none. */
static struct lpd_read *claim(struct lpd_worker *worker)
{
	for (unsigned int i = 0; i < LPD_NR_READS; i++) {
		uint32_t queued = LPD_READ_QUEUED;

		/* Pairs with the release in read_later(). */
		if (__atomic_compare_exchange_n(&worker->reads[i].state,
						&queued, LPD_READ_READING,
						false, __ATOMIC_ACQUIRE,
						__ATOMIC_RELAXED))
			return &worker->reads[i];
	}
	return NULL;
}

/* All of it, or up to the end of the file. */
static int64_t read_fully(const struct lpd_read *read)
{
	uint64_t done = 0;

	while (done < read->len) {
		ssize_t n = pread(read->fd, read->bytes + done,
				  read->len - done, read->offset + done);

		if (n < 0 && errno == EINTR)
			continue;
		/* What came before the error is good. */
		if (n < 0)
			return done >= LPD_PAGE_SIZE ? (int64_t)done : -errno;
		if (n == 0)
			break;
		done += n;
	}
	return done;
}

int lpd_reader_run(struct lpd_worker *worker)
{
	/* What has come can wait until others, who have theirs, are served. */
	(void)setpriority(PRIO_PROCESS, gettid(), NICE);
	while (!__atomic_load_n(&worker->stop, __ATOMIC_ACQUIRE)) {
		uint8_t byte;
		ssize_t n = read(worker->reads_fds[0], &byte, sizeof(byte));

		if (n < 0 && errno != EINTR)
			return -errno;
		struct lpd_read *claimed = claim(worker);
		if (!claimed)
			continue;
		claimed->result = read_fully(claimed);
		/* Pairs with the acquire in source.c. */
		__atomic_store_n(&claimed->state, LPD_READ_DONE,
				 __ATOMIC_RELEASE);
		lpd_worker_wake(worker);
	}
	return 0;
}

void lpd_reads_collect(struct lpd_worker *worker)
{
	for (unsigned int i = 0; worker->nr_reads && i < LPD_NR_READS; i++) {
		struct lpd_read *read = &worker->reads[i];

		if (read->offered ||
		    __atomic_load_n(&read->state, __ATOMIC_ACQUIRE) !=
			    LPD_READ_DONE)
			continue;
		read->offered = 1;
		read->session->waits_for_read = 0;
		lpd_session_activate(worker, read->session);
	}
}

void lpd_reads_release(struct lpd_worker *worker, struct lpd_session *session)
{
	for (unsigned int i = 0; session->nr_reads && i < LPD_NR_READS; i++) {
		struct lpd_read *read = &worker->reads[i];

		if (read->session != session || !read->offered)
			continue;
		read->session = NULL;
		read->offered = 0;
		session->nr_reads--;
		worker->nr_reads--;
		__atomic_store_n(&read->state, LPD_READ_FREE, __ATOMIC_RELAXED);
	}
}
