/*
 * source.c: bytes of a source without waiting for a disk.
 *
 * Some facts about reading without waiting: preadv2(RWF_NOWAIT) returns what
 * lies in the page cache, possibly less than asked, and EAGAIN if that is
 * nothing.  Memory file systems answer EOPNOTSUPP, and never wait anyway.
 * Reading, rather than mapping the file, is what tells a file that has become
 * shorter from one whose last page is padded with zeros.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fill.h"

static uint64_t whole_pages(uint64_t len)
{
	return len & ~(uint64_t)(LPD_PAGE_SIZE - 1);
}

/* Bytes read without waiting, -EINPROGRESS if that cannot be, or -errno. */
static int64_t read_now(const struct lpd_source *source, uint64_t offset,
			uint64_t len, uint8_t *bytes)
{
	struct iovec iov = {.iov_base = bytes, .iov_len = len};
	ssize_t n;

	if (source->kind == LPD_SOURCE_BLOCKING)
		return -EINPROGRESS;
	do {
		n = preadv2(source->fd, &iov, 1, offset,
			    source->kind == LPD_SOURCE_CACHED ? RWF_NOWAIT : 0);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? -EINPROGRESS : -errno;
	if (n == 0)
		return -ENODATA;
	/* Part of a page: the reader finds out whether the file ends here. */
	return whole_pages(n) ? (int64_t)whole_pages(n) : -EINPROGRESS;
}

static bool read_covers(const struct lpd_read *read,
			const struct lpd_session *session, uint32_t source,
			uint64_t offset)
{
	return read->session == session && read->source == source &&
	       read->offset <= offset && offset < read->offset + read->len;
}

/* What a reader has brought, or will bring; 0 if nobody is on it. */
static int64_t read_fetched(struct lpd_worker *worker,
			    struct lpd_session *session, uint32_t source,
			    uint64_t offset, const uint8_t **ret_bytes)
{
	for (unsigned int i = 0; i < LPD_NR_READS; i++) {
		struct lpd_read *read = &worker->reads[i];
		/* Pairs with the release in reader.c. */
		uint32_t state =
			__atomic_load_n(&read->state, __ATOMIC_ACQUIRE);

		if (state == LPD_READ_FREE ||
		    !read_covers(read, session, source, offset))
			continue;
		if (state != LPD_READ_DONE)
			return -EINPROGRESS;

		uint64_t skipped = offset - read->offset;
		uint64_t got = read->result < 0 ? 0 : whole_pages(read->result);

		if (skipped < got) {
			*ret_bytes = read->bytes + skipped;
			return got - skipped;
		}
		/* The first page alone is known to be bad: the rest is not. */
		if (skipped == 0)
			return read->result < 0 ? read->result : -ENODATA;
	}
	return 0;
}

/* Hand a read to the readers: -EINPROGRESS, or -EAGAIN if no slot is free. */
static int64_t read_later(struct lpd_worker *worker,
			  struct lpd_session *session, uint32_t source,
			  uint64_t offset, uint64_t len)
{
	for (unsigned int i = 0; i < LPD_NR_READS; i++) {
		struct lpd_read *read = &worker->reads[i];

		if (__atomic_load_n(&read->state, __ATOMIC_RELAXED) !=
		    LPD_READ_FREE)
			continue;
		read->session = session;
		read->source = source;
		read->offset = offset;
		read->fd = session->sources[source].fd;
		read->len = lpd_min(len, lpd_max(LPD_PAGE_SIZE,
						 session->sources[source].size -
							 offset));
		read->offered = 0;
		session->nr_reads++;
		worker->nr_reads++;
		__atomic_store_n(&read->state, LPD_READ_QUEUED,
				 __ATOMIC_RELEASE);
		lpd_reader_wake(worker);
		return -EINPROGRESS;
	}
	return -EAGAIN;
}

/* Read now or, if that would wait, so many bytes later. */
static int64_t read_or_queue(struct lpd_worker *worker,
			     struct lpd_session *session, uint32_t source,
			     uint64_t offset, uint64_t len, uint8_t *bytes,
			     uint64_t later_len)
{
	int64_t n = read_now(&session->sources[source], offset, len, bytes);

	return n == -EINPROGRESS
		       ? read_later(worker, session, source, offset, later_len)
		       : n;
}

static bool staged(const struct lpd_worker *worker,
		   const struct lpd_session *session, uint32_t source,
		   uint64_t offset)
{
	return worker->staged_session == session &&
	       worker->staged_source == source &&
	       worker->staged_offset <= offset &&
	       offset < worker->staged_offset + worker->staged_len;
}

int64_t lpd_source_read(struct lpd_worker *worker, struct lpd_session *session,
			uint32_t source, uint64_t offset, uint64_t len,
			const uint8_t **ret_bytes)
{
	/* A lone page does not throw away what is staged for the drain. */
	bool lone = len == LPD_PAGE_SIZE;
	uint8_t *bytes = lone ? worker->page : worker->staging;

	if (staged(worker, session, source, offset)) {
		uint64_t skipped = offset - worker->staged_offset;

		*ret_bytes = worker->staging + skipped;
		return lpd_min(len, worker->staged_len - skipped);
	}

	int64_t n = read_fetched(worker, session, source, offset, ret_bytes);
	if (n)
		return n < 0 ? n : (int64_t)lpd_min(n, len);

	if (!lone)
		worker->staged_session = NULL;
	/* What somebody waits for is read alone, and is there all the sooner.
	 */
	n = read_or_queue(worker, session, source, offset,
			  lpd_min(len, LPD_STAGING_SIZE), bytes,
			  lone ? LPD_PAGE_SIZE : LPD_READ_SIZE);
	if (n < 0)
		return n;
	if (!lone) {
		worker->staged_session = session;
		worker->staged_source = source;
		worker->staged_offset = offset;
		worker->staged_len = n;
	}
	*ret_bytes = bytes;
	return n;
}

int64_t lpd_source_read_into(struct lpd_worker *worker,
			     struct lpd_session *session, uint32_t source,
			     uint64_t offset, uint64_t len, uint8_t *bytes)
{
	const uint8_t *fetched;
	int64_t n = read_fetched(worker, session, source, offset, &fetched);

	if (n > 0) {
		n = lpd_min(n, len);
		memcpy(bytes, fetched, n);
	}
	if (n)
		return n;
	return read_or_queue(worker, session, source, offset, len, bytes,
			     lpd_min(len, LPD_READ_SIZE));
}

void lpd_source_forget(struct lpd_worker *worker, struct lpd_session *session)
{
	if (worker->staged_session == session)
		worker->staged_session = NULL;
}
