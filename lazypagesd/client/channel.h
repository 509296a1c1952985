/*
 * channel.h: lazy memory in a process that may have no userfaultfd.
 *
 * Plain C for any program: compile channel_all.c, which is beside this, with
 * it, link with -pthread, and include this.  One channel a process.
 *
 *	lpd_channel_open(fd);                  // one end of a SOCK_SEQPACKET
 *	lpd_channel_register(addr, len);       // private anonymous memory
 *
 * From then on who touches that memory waits until it has been filled by who
 * holds the other end.  No thread ever sees a page that is half filled: pages
 * are completed aside, and then put in place by one mremap(2).
 *
 * What differs from a userfaultfd:
 *
 * - A system call that is given memory which is missing fails with EFAULT, as
 *   with PROT_NONE.  lpd_channel_populate() brings it in beforehand.
 * - Pages come by neighbourhoods of 64 KiB or more, so that there are never
 *   more than some ten thousand mappings.
 * - madvise(), munmap() and mremap() of such memory have to go through the
 *   functions below.  fork() need not; of vfork() and bare clone(), a child
 *   that touches what is missing gets SIGSEGV.
 * - A child that the other end cannot be told of (v1; ETOOMANYREFS) gets
 *   SIGSEGV as well.  The functions below fail instead, and change nothing.
 * - A thread that has SIGSEGV blocked is killed when it touches what is
 *   missing.  Whoever sets a handler of their own later takes ours away.
 * - When the other end closes without having said that the rest is zero, who
 *   touches what is missing gets SIGSEGV: never a zero that nobody meant.
 *
 * A SIGSEGV that is not ours goes to the handler that was there before.
 *
 * Functions return 0 or a negative errno, and may be called from any thread.
 */
#ifndef LAZYPAGESD_CHANNEL_H
#define LAZYPAGESD_CHANNEL_H

#include <stddef.h>

/*
 * Answer the exchange at the other end of fd, and serve from then on, in a
 * thread of the library.  Takes ownership of fd, also if it fails; makes it
 * blocking, and closed in programs that are executed.  Waits until the other
 * end has asked for what is understood here, or has closed: -EINVAL if it
 * asked for something else, -EPIPE if for nothing.  -EBUSY if the process has
 * a channel.
 */
int lpd_channel_open(int fd);

/*
 * Let [addr, addr + len), private anonymous memory at page boundaries, be
 * filled from the other end; what was in it is lost.  Readable and writable.
 * -ENOSPC after 256 ranges.
 */
int lpd_channel_register(void *addr, size_t len);

/* Wait until every page of a range has come. */
void lpd_channel_populate(const void *addr, size_t len);

/* munmap(2). */
int lpd_channel_munmap(void *addr, size_t len);

/* madvise(2) with MADV_DONTNEED: the range is zero from now on. */
int lpd_channel_discard(void *addr, size_t len);

/*
 * mremap(2) to `to`, with MREMAP_FIXED: all of the range is of one registered
 * range (-EFAULT), and the two are disjoint (-EINVAL).  -EOPNOTSUPP if the
 * other end cannot be told.
 */
int lpd_channel_mremap(void *from, size_t len, void *to);

#endif /* LAZYPAGESD_CHANNEL_H */
