/*
 * uffd.h: a userfaultfd, one function a call, callable from any thread.
 */
#ifndef LAZYPAGESD_UFFD_H
#define LAZYPAGESD_UFFD_H

#include <stdint.h>

/*
 * Fill [addr, addr + len), which lies in one mapping, from bytes; wakes who
 * waits for it.  Returns the bytes filled, which may be fewer, or -errno.
 */
int64_t lpd_uffd_copy(int fd, uint64_t addr, const void *bytes, uint64_t len);

/* The same with zeros. */
int64_t lpd_uffd_zeropage(int fd, uint64_t addr, uint64_t len);

/* Let every thread that waits within the range fault again. */
int lpd_uffd_wake(int fd, uint64_t addr, uint64_t len);

/*
 * Is the address space still there?  0; -EAGAIN: yes, and it is being changed
 * by an operation whose event has not been read, or whose caller has not gone
 * on since; -ESRCH: no.  Changes nothing in it.
 */
int lpd_uffd_probe(int fd);

/*
 * Is [addr, addr + len) within one registered mapping?  1, 0, or -EAGAIN or
 * -ESRCH as above.  Changes nothing.
 */
int lpd_uffd_registered(int fd, uint64_t addr, uint64_t len);

/*
 * Is what belongs to [addr, addr + len), of hugetlbfs, there already, because
 * it is shared with somebody who has it?  1, and it is mapped, as a touch would
 * do it; 0; or -EAGAIN or -ESRCH as above.
 */
int lpd_uffd_is_shared(int fd, uint64_t addr, uint64_t len);

#endif /* LAZYPAGESD_UFFD_H */
