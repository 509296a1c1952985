#!/bin/bash
# get-zdtm.sh PREFIX: put CRIU's own test suite, zdtm, built, at PREFIX/criu/test.
#
# It is in CRIU's source, of which the suite and the Python modules that it wants are built, not CRIU.  The source is
# that of the release that get-criu.sh takes the binary from; private-apt.sh says where it comes from, and the checksum
# below pins it.  What building takes is installed, which needs root.  Running it again does nothing.
set -euo pipefail

version=4.1.1
sha256=f80a66cb3726bb2116266d4759ce3bcbfab7abdb6b6d430bf20dd41911717afe
needed=(gcc libc6-dev make pkg-config libaio-dev libbpf-dev libcap-dev libnl-3-dev libnl-route-3-dev
	libprotobuf-dev protobuf-compiler python3-protobuf python3-yaml iproute2 iptables kmod procps)

die() {
	echo "get-zdtm: $*" >&2
	exit 1
}

[ $# -eq 1 ] || die "usage: get-zdtm.sh PREFIX"
[ ! -x "$1/criu/test/zdtm_ct" ] || exit 0
mkdir -p "$1"
prefix=$(readlink -f "$1")

# shellcheck source=tests/setup/private-apt.sh
. "$(dirname "${BASH_SOURCE[0]}")/private-apt.sh"

work=$prefix/unpacking
rm -rf "$work"
trap 'rm -rf "$work"' EXIT

fetch() {
	private_apt_init "$work" deb-src
	cd "$work"
	private_apt source --download-only --tar-only criu
	echo "$sha256  criu_$version.orig.tar.xz" | sha256sum --check --quiet || die "not the source of CRIU $version"
	tar -xf "criu_$version.orig.tar.xz"
	cd "criu-$version"
}

install_needed() {
	local missing
	mapfile -t missing < <(comm -23 <(printf '%s\n' "${needed[@]}" | sort) \
		<(dpkg-query -f '${db:Status-Abbrev} ${binary:Package}\n' -W | sed -n 's/^ii *\([^:]*\).*/\1/p' | sort))
	((${#missing[@]})) || return 0
	echo "get-zdtm: install ${missing[*]}"
	apt_install "${missing[@]}" >"$work/log" 2>&1 || { apt-get -qq update && apt_install "${missing[@]}"; } \
		>"$work/log" 2>&1 || die "$(tail -n 3 "$work/log")"
}

apt_install() {
	DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$@"
}

# What CRIU's own Makefiles do, which would first ask for all that CRIU takes.
build_pycriu() {
	local images=lib/pycriu/images proto
	protoc -I=images --python_out=lib/pycriu images/rpc.proto
	for proto in images/*.proto; do
		[ "$proto" != images/rpc.proto ] || continue
		protoc -I=images --python_out=$images "$proto"
		[ "$proto" = images/opts.proto ] || basename "$proto" .proto | tr - _ | sed 's/.*/from .&_pb2 import */'
	done >$images/pb.py
	/usr/bin/python3 scripts/magic-gen.py criu/include/magic.h $images/magic.py
	echo "__version__ = '$version'" >lib/pycriu/version.py
}

build_suite() {
	# A test that does not build (-k) is one that does not run, with either daemon.
	make -k -s -j"$(nproc)" -C test/zdtm || true
	make -s -C test umount2 zdtm_ct
}

fetch
install_needed
build_pycriu
echo "get-zdtm: build CRIU's tests"
build_suite >"$prefix/build.log" 2>&1 || die "$(tail -n 3 "$prefix/build.log")"
# Last: zdtm_ct is there only when all is.
rm -rf "$prefix/criu"
mv "$work/criu-$version" "$prefix/criu"
