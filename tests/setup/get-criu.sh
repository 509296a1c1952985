#!/bin/bash
# get-criu.sh PREFIX: put a current CRIU (Debian trixie's) at PREFIX/criu, leaving the system's packages alone.
#
# Older releases of CRIU refuse to start on newer kernels, and newer ones want a newer C library than the system may
# have.  So CRIU's package and everything that it depends on are unpacked under PREFIX/root, and PREFIX/criu starts it
# with the dynamic loader and the libraries found there.  Packages come from the mirror that this machine's own apt
# uses, checked against the archive's keyring.  Running it again does nothing.
set -euo pipefail

suite=trixie
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

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
[ -r "$keyring" ] || die "$keyring is not here (package debian-archive-keyring)"

# The first archive that is a plain release (not -updates, not -security) has every suite of Debian.
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
	awk '$2 ~ /^[a-z]+$/ && $1 !~ /security/ && !found {print $1; found = 1}')
[ -n "$mirror" ] || die "apt knows no Debian archive (apt-get indextargets)"

# A private apt, with an empty package database, so that it resolves the whole closure down to libc.
work=$prefix/unpacking
rm -rf "$work"
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists,archives}/partial "$work/root"
echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"
: >"$work/status"
private_apt() {
	apt-get -qq -y \
		-o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- \
		-o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status" \
		-o Dir::Cache="$work" -o Dir::Cache::archives="$work/archives" \
		-o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=1 \
		-o Acquire::Languages=none -o Acquire::Retries=3 -o APT::Update::Error-Mode=any \
		"$@" >"$work/log" 2>&1 || die "apt-get $1: $mirror $suite: $(tail -n 3 "$work/log")"
}
private_apt update
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
