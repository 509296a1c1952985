#!/bin/bash
# get-criu.sh PREFIX: put a current CRIU (Debian trixie's) at PREFIX/criu, leaving the system's packages alone.
#
# Older releases of CRIU refuse to start on newer kernels, and newer ones want a newer C library than the system may
# have.  So CRIU's package and everything that it depends on are unpacked under PREFIX/root, and PREFIX/criu starts it
# with the dynamic loader and the libraries found there.  private-apt.sh says where packages come from.
# Running it again does nothing.
set -euo pipefail

die() {
	echo "get-criu: $*" >&2
	exit 1
}

[ $# -eq 1 ] || die "usage: get-criu.sh PREFIX"
mkdir -p "$1"
prefix=$(readlink -f "$1")

describe() {
	echo "CRIU $("$prefix/criu" --version | awk '/^Version:/ {print $2}') at $prefix/criu"
}

if [ -x "$prefix/criu" ]; then
	describe
	exit 0
fi

for tool in apt-get dpkg-deb; do
	command -v "$tool" >/dev/null || die "$tool is not here; install CRIU 4 or newer by other means and set CRIU="
done
# shellcheck source=tests/setup/private-apt.sh
. "$(dirname "${BASH_SOURCE[0]}")/private-apt.sh"

work=$prefix/unpacking
rm -rf "$work"
trap 'rm -rf "$work"' EXIT
private_apt_init "$work" deb
mkdir "$work/root"
private_apt install --download-only --no-install-recommends criu

for package in "$work"/archives/*.deb; do
	dpkg-deb --extract "$package" "$work/root"
done
rm -rf "$work"/root/usr/share/{doc,man,locale,lintian,bash-completion}

cat >"$work/criu" <<'WRAPPER'
#!/bin/sh
root=$(dirname "$(readlink -f "$0")")/root
libs=$root/usr/lib/$(uname -m)-linux-gnu
exec "$libs"/ld-linux-*.so.* --library-path "$libs" "$root/usr/sbin/criu" "$@"
WRAPPER
chmod +x "$work/criu"

# The wrapper moves last: PREFIX/criu exists only when all of it does.
rm -rf "$prefix/root"
mv "$work/root" "$prefix/root"
mv "$work/criu" "$prefix/criu"
describe
