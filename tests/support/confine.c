/*
 * confine.c: run a program as container engines do by default, without
 * userfaultfd.  confine PROGRAM ARGUMENTS...
 *
 * Docker's and containerd's default seccomp profiles do not have userfaultfd(2)
 * on their list, so that it fails with EPERM, and answer clone3(2) with ENOSYS,
 * as its flags cannot be filtered.  /dev/userfaultfd is not in a container's
 * /dev; here its ioctl is refused, and any other ioctl of a userfaultfd.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#endif

#define UFFDIO_TYPE 0xaa00 /* _IOC_TYPE of UFFDIO_..., where it is */

#define LOAD(what)                                                             \
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, what))
#define SKIP_UNLESS(value, count)                                              \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, count)
#define ANSWER(action) BPF_STMT(BPF_RET | BPF_K, action)

static struct sock_filter filter[] = {
	LOAD(arch),
	SKIP_UNLESS(ARCH, 1),
	BPF_STMT(BPF_JMP | BPF_JA, 1),
	ANSWER(SECCOMP_RET_KILL_PROCESS),
	LOAD(nr),
	SKIP_UNLESS(SYS_userfaultfd, 1),
	ANSWER(SECCOMP_RET_ERRNO | EPERM),
	SKIP_UNLESS(SYS_clone3, 1),
	ANSWER(SECCOMP_RET_ERRNO | ENOSYS),
	SKIP_UNLESS(SYS_ioctl, 4),
	LOAD(args[1]), /* its low half, on machines that are little-endian */
	BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xff00),
	SKIP_UNLESS(UFFDIO_TYPE, 1),
	ANSWER(SECCOMP_RET_ERRNO | EPERM),
	ANSWER(SECCOMP_RET_ALLOW),
};

int main(int argc, char **argv)
{
	struct sock_fprog program = {
		.len = sizeof(filter) / sizeof(filter[0]),
		.filter = filter,
	};

	if (argc < 2 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0) {
		perror("confine");
		return 1;
	}
	execvp(argv[1], argv + 1);
	perror(argv[1]);
	return 1;
}
