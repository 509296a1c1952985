#!/bin/bash
# get-program.sh PREFIX PACKAGE PROGRAM: put a program of Debian trixie's at PREFIX/NAME, leaving the system's packages
# alone.
#
# PROGRAM is its place in the PACKAGE, such as usr/sbin/criu, and NAME the last part of it.  What is current may want a
# newer C library than the system has.  So the package and everything that it depends on are unpacked under PREFIX/root,
# and PREFIX/NAME starts it with the dynamic loader and the libraries found there.  private-apt.sh says where packages
# come from.  Running it again does nothing.
set -euo pipefail

die() {
	echo "get-program: $*" >&2
	exit 1
}

[ $# -eq 3 ] || die "usage: get-program.sh PREFIX PACKAGE PROGRAM"
mkdir -p "$1"
prefix=$(readlink -f "$1")
package=$2 program=$3 name=${3##*/}

if [ -x "$prefix/$name" ]; then
	exit 0
fi

for tool in apt-get dpkg-deb; do
	command -v "$tool" >/dev/null || die "$tool is not here; install $name by other means"
done
# shellcheck source=tests/setup/private-apt.sh
. "$(dirname "${BASH_SOURCE[0]}")/private-apt.sh"

work=$prefix/unpacking
rm -rf "$work"
trap 'rm -rf "$work"' EXIT
private_apt_init "$work" deb
mkdir "$work/root"
private_apt install --download-only --no-install-recommends "$package"

for archive in "$work"/archives/*.deb; do
	dpkg-deb --extract "$archive" "$work/root"
done
rm -rf "$work"/root/usr/share/{doc,man,locale,lintian,bash-completion}

cat >"$work/$name" <<WRAPPER
#!/bin/sh
root=\$(dirname "\$(readlink -f "\$0")")/root
libs=\$root/usr/lib/\$(uname -m)-linux-gnu
exec "\$libs"/ld-linux-*.so.* --library-path "\$libs:\$libs/systemd" "\$root/$program" "\$@"
WRAPPER
chmod +x "$work/$name"

# The wrapper moves last: PREFIX/NAME exists only when all of it does.
rm -rf "$prefix/root"
mv "$work/root" "$prefix/root"
mv "$work/$name" "$prefix/$name"
