#!/bin/bash
# Boots a real systemd as process 1 of namespaces of its own: tests/setup/systemd-bed.sh BED [LAYER ...]
#
# Its root is an overlay of this machine's, with copies of the directories LAYER (what `make install DESTDIR=` made, say)
# on top, and with them in memory what it writes: nothing of it reaches the machine.  Stays in the foreground until its
# standard input ends, and then kills all that it has booted.  BED gets a file `pid` (of process 1, for nsenter) and a
# file `console`.
#
# Some facts:
# - With /proc/sys writable, systemd would raise the whole machine's fs.nr_open and fs.file-max.
# - Only basic.target is booted, or services that are enabled on the machine would start.
# - A unit's control group is a directory below ours in the cgroup2 mount; if v1 has the memory controller, MemoryMax=
#   is accepted and not enforced.
# - PATH and friends of whoever runs this must not reach process 1, which hands them to every unit.
set -euo pipefail

main() {
	local bed=$1
	shift
	mkdir -p "$bed"
	bed=$(readlink -f "$bed")
	group=$(cgroup_root)/lazypagesd-bed-$$
	mkdir "$group"
	(
		echo "$BASHPID" >"$group/cgroup.procs"
		exec unshare --mount --pid --cgroup --uts --ipc --fork --kill-child --propagation private \
			"$0" --inside "$bed" "$@"
	) </dev/null >"$bed/console" 2>&1 &
	booted=$!
	trap finish EXIT
	cat >/dev/null # until whoever started us is done, or dead
}

cgroup_root() {
	awk '$3 == "cgroup2" {print $2; exit}' /proc/mounts
}

finish() {
	local try
	{ kill -KILL "$booted" && wait "$booted"; } 2>/dev/null || true
	# Process 1 is dead with it, and what it had is on its way out.
	for try in {1..100}; do
		find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && return
		sleep 0.05
	done
	echo "systemd-bed.sh: $group is still in use after $try tries" >&2
	exit 1
}

inside() {
	local bed=$1 layer pid
	shift
	# As the machine sees us, so that it can enter.
	read -r pid _ </proc/self/stat
	echo "$pid" >"$bed/pid"
	mkdir -p "$bed/memory" "$bed/root"
	mount -t tmpfs tmpfs "$bed/memory"
	mkdir "$bed"/memory/{upper,work}
	# They lie in the machine's root mostly, and lower directories must not overlap.
	for layer; do
		cp -a "$layer/." "$bed/memory/upper"
	done
	chmod 755 "$bed/memory/upper" # no matter what LAYER was like
	mount -t overlay overlay -o "lowerdir=/,upperdir=$bed/memory/upper,workdir=$bed/memory/work" "$bed/root"
	cd "$bed/root"
	mount_kernel_files
	mount_devices
	prepare_units
	mkdir .machine
	pivot_root . .machine
	umount -l /.machine
	rmdir /.machine
	hostname bed
	exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 container=lazypagesd-bed \
		/lib/systemd/systemd --unit=basic.target
}

mount_kernel_files() {
	mount -t proc proc proc
	mount --bind proc/sys proc/sys
	mount -o remount,bind,ro proc/sys
	mount -t sysfs -o ro sysfs sys
	mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup # there is no cgroup2 directory to mount on where v1 is used
	mount -t cgroup2 cgroup2 sys/fs/cgroup
	mount -t tmpfs -o mode=755 tmpfs run
	mount -t tmpfs -o mode=1777 tmpfs tmp
}

mount_devices() {
	local node
	mount -t tmpfs -o mode=755 tmpfs dev
	mkdir dev/pts dev/shm
	for node in null zero full random urandom tty userfaultfd; do
		[[ ! -e /dev/$node ]] || { : >"dev/$node" && mount --bind "/dev/$node" "dev/$node"; }
	done
	ln -s /proc/self/fd dev/fd
	ln -s /proc/self/fd/0 dev/stdin
	ln -s /proc/self/fd/1 dev/stdout
	ln -s /proc/self/fd/2 dev/stderr
	mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
	ln -s pts/ptmx dev/ptmx
	mount -t tmpfs -o mode=1777 tmpfs dev/shm
}

prepare_units() {
	mkdir -p run/systemd/system
	: >etc/fstab
	# It is not in a position to load any.
	ln -s /dev/null run/systemd/system/systemd-modules-load.service
}

if [[ ${1:-} == --inside ]]; then
	shift
	inside "$@"
else
	main "$@"
fi
