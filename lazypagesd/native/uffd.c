/*
 * uffd.c: the userfaultfd calls of the data plane, one function each.
 *
 * See man 2 ioctl_userfaultfd.  Debian 12's header knows all that is used.
 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include "internal.h"

/*
 * An address that is never registered for write-protection by those who hand
 * descriptors over, whatever is mapped there: any would do.
 */
#define PROBE_ADDR 0x10000

int64_t lpd_uffd_copy(int fd, uint64_t addr, const void *bytes, uint64_t len)
{
	struct uffdio_copy copy = {
		.dst = addr,
		.src = (uintptr_t)bytes,
		.len = len,
	};

	/*
	 * A short copy is an error (EAGAIN) to ioctl() and a success to us;
	 * .copy stays 0 when the kernel did not get as far as to set it.
	 */
	if (ioctl(fd, UFFDIO_COPY, &copy) < 0 && copy.copy == 0)
		return -errno;
	return copy.copy;
}

int64_t lpd_uffd_zeropage(int fd, uint64_t addr, uint64_t len)
{
	struct uffdio_zeropage zero = {
		.range = {.start = addr, .len = len},
	};

	if (ioctl(fd, UFFDIO_ZEROPAGE, &zero) < 0 && zero.zeropage == 0)
		return -errno;
	return zero.zeropage;
}

int lpd_uffd_wake(int fd, uint64_t addr, uint64_t len)
{
	struct uffdio_range range = {.start = addr, .len = len};

	return ioctl(fd, UFFDIO_WAKE, &range) < 0 ? -errno : 0;
}

int lpd_uffd_probe(int fd)
{
	/*
	 * Lifting a write protection that is not there changes nothing, and
	 * says ENOENT if there is an address space to look at.  (ZEROPAGE
	 * would tell as well, and fill a page where one can be.)
	 */
	struct uffdio_writeprotect wp = {
		.range = {.start = PROBE_ADDR, .len = LPD_PAGE_SIZE},
	};

	if (ioctl(fd, UFFDIO_WRITEPROTECT, &wp) < 0 &&
	    (errno == ESRCH || errno == EAGAIN))
		return -errno;
	return 0;
}

static int map_cached(int fd, uint64_t addr, uint64_t len)
{
	struct uffdio_continue cont = {
		.range = {.start = addr, .len = len},
	};

	return ioctl(fd, UFFDIO_CONTINUE, &cont) < 0 ? -errno : 0;
}

int lpd_uffd_registered(int fd, uint64_t addr, uint64_t len)
{
	/*
	 * There is no page cache behind anonymous memory to go on with
	 * (EINVAL), but the mapping is looked up first (ENOENT).
	 */
	int rc = map_cached(fd, addr, len);

	/*
	 * An operation that began between two looks of the kernel brings the
	 * same, of what is about to be elsewhere; afterwards it is under way.
	 */
	if (rc == -ENOENT)
		return lpd_uffd_probe(fd);
	return rc == -ESRCH || rc == -EAGAIN ? rc : 1;
}

int lpd_uffd_is_shared(int fd, uint64_t addr, uint64_t len)
{
	int rc = map_cached(fd, addr, len);

	return rc == -ESRCH || rc == -EAGAIN ? rc : !rc || rc == -EEXIST;
}
