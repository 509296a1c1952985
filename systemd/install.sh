#!/bin/bash
# Installs lazypagesd, or removes it: systemd/install.sh install|uninstall
#
# DESTDIR is where to (a package being built, say), PREFIX where it will be found in the end, PYTHON what runs it there.
# The program is a virtual environment of its own in PREFIX/lib/lazypagesd, made with the system's Python: a unit with
# ProtectHome= could not see another one.  Starts and stops nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

DESTDIR=${DESTDIR:-}
PREFIX=${PREFIX:-/usr/local}
PYTHON=${PYTHON:-/usr/bin/python3}
readonly DESTDIR PREFIX PYTHON
readonly LIBDIR=$PREFIX/lib/lazypagesd
readonly COMMANDS=(lazypagesd lazypagesctl)
readonly UNITS=(lazypagesd.socket lazypagesd-admin.socket lazypagesd.service)
readonly CONFIGURATION=(sysusers tmpfiles)
readonly MANUALS=(lazypagesd.8 lazypagesctl.1 lazypagesd.toml.5 org.lazypages.Manager.7)
readonly CATALOG=$PREFIX/lib/systemd/catalog/lazypagesd.catalog
declare -rA COMPLETIONS=(
	[bash]=$PREFIX/share/bash-completion/completions/lazypagesctl
	[zsh]=$PREFIX/share/zsh/site-functions/_lazypagesctl
	[fish]=$PREFIX/share/fish/vendor_completions.d/lazypagesctl.fish
)
readonly REFERENCE=$PREFIX/share/doc/lazypagesd/lazypagesd-service.md

do_install() {
	check_tools
	new=$DESTDIR$LIBDIR.new
	source=$(mktemp -d)
	trap 'rm -rf "$source" "$new"' EXIT
	copy_source "$source"
	make_environment "$source" "$new"
	check_state "$new"
	move_to "$new" "$LIBDIR"
	# At once, for a daemon may start at any time; one that runs has loaded what it needs.
	rm -rf "${DESTDIR:?}$LIBDIR.old"
	[[ ! -e $DESTDIR$LIBDIR ]] || mv "$DESTDIR$LIBDIR" "$DESTDIR$LIBDIR.old"
	mv "$new" "$DESTDIR$LIBDIR"
	rm -rf "${DESTDIR:?}$LIBDIR.old"
	install_files
}

check_tools() {
	local missing=()
	command -v gcc >/dev/null || missing+=(gcc libc6-dev)
	command -v pkg-config >/dev/null || missing+=(pkg-config)
	pkg-config --exists libsystemd 2>/dev/null || missing+=(libsystemd-dev)
	"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
	[[ -e $("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h ]] || missing+=(python3-dev)
	((${#missing[@]} == 0)) || fail "missing: apt-get install ${missing[*]}"
}

# A daemon that runs may leave what an older one could not go on with.
check_state() {
	[[ -z $DESTDIR && -e /run/lazypagesd/state-version ]] || return 0
	"$1/bin/python3" -I -m lazypagesd can-take-over >/dev/null || fail "nothing has been installed"
}

# What was built in the checkout is no part of it: a module that is gone there would stay.
copy_source() {
	tar --exclude=__pycache__ --exclude='*.so' --exclude=_native.c --exclude=_channel.c --exclude=_keeper.c \
		-c pyproject.toml README.md LICENSE lazypagesd | tar -x -C "$1"
}

make_environment() {
	local source=$1 environment=$2
	rm -rf "$environment"
	"$PYTHON" -m venv "$environment"
	"$environment/bin/python3" -m pip install -q --disable-pip-version-check --use-pep517 "$source[systemd]"
	# Nobody should install more into it.
	"$environment/bin/python3" -m pip uninstall -q -y setuptools pip
	find "$environment/bin" ! -type d ! -name 'python*' ! -name 'lazypages*' -delete
}

# An environment knows where it lies by the first lines of its programs, and nothing else that matters.
move_to() {
	local environment=$1 place=$2
	sed -i "1s,^#!$environment/,#!$place/," "$environment"/bin/lazypages*
	sed -i '/^command = /d' "$environment/pyvenv.cfg"
}

install_files() {
	local name
	install -d "$DESTDIR$PREFIX/bin"
	for name in "${COMMANDS[@]}"; do
		ln -sfn "../lib/lazypagesd/bin/$name" "$DESTDIR$PREFIX/bin/$name"
	done
	for name in "${UNITS[@]}"; do
		put "systemd/$name" "$PREFIX/lib/systemd/system/$name"
	done
	for name in "${CONFIGURATION[@]}"; do
		put "systemd/lazypagesd.$name.conf" "$PREFIX/lib/$name.d/lazypagesd.conf"
	done
	put systemd/lazypagesd.catalog "$CATALOG"
	put docs/reference/lazypagesd-service.md "$REFERENCE"
	for name in "${MANUALS[@]}"; do
		put "docs/man/$name" "$(manual_place "$name")"
	done
	for name in "${!COMPLETIONS[@]}"; do
		install -d "$DESTDIR${COMPLETIONS[$name]%/*}"
		"$DESTDIR$LIBDIR/bin/python3" -I -m lazypagesd.client.ctl completion "$name" >"$DESTDIR${COMPLETIONS[$name]}"
	done
}

# Where a manual page goes, by the number at the end of its name.
manual_place() {
	echo "$PREFIX/share/man/man${1##*.}/$1"
}

# Installs a file that may name directories of this installation.
put() {
	install -D -m 644 "$1" "$DESTDIR$2"
	sed -i "s,@LIBDIR@,$LIBDIR,g; s,@REFERENCE@,$REFERENCE,g" "$DESTDIR$2"
}

do_uninstall() {
	local name
	[[ -n $DESTDIR ]] || check_unused
	for name in "${COMMANDS[@]}"; do
		rm -f "$DESTDIR$PREFIX/bin/$name"
	done
	for name in "${UNITS[@]}"; do
		rm -f "$DESTDIR$PREFIX/lib/systemd/system/$name"
	done
	for name in "${CONFIGURATION[@]}"; do
		rm -f "$DESTDIR$PREFIX/lib/$name.d/lazypagesd.conf"
	done
	for name in "${MANUALS[@]}"; do
		rm -f "$DESTDIR$(manual_place "$name")"
	done
	for name in "${!COMPLETIONS[@]}"; do
		rm -f "$DESTDIR${COMPLETIONS[$name]}"
	done
	rm -f "$DESTDIR$CATALOG"
	rm -rf "${DESTDIR:?}$LIBDIR" "$DESTDIR${REFERENCE%/*}"
}

# Stopping is not ours to do: it may take its time, or be refused for the sake of processes that are not done.
check_unused() {
	local unit kept
	command -v systemctl >/dev/null || return 0
	for unit in "${UNITS[@]}"; do
		! systemctl -q is-active "$unit" 2>/dev/null || fail "$unit is active: systemctl disable --now ${UNITS[*]}"
	done
	kept=$(systemctl show -P NFileDescriptorStore lazypagesd.service 2>/dev/null || echo 0)
	((${kept:-0} == 0)) || fail "processes wait for pages still: systemctl start lazypagesd.service, and stop it later"
}

fail() {
	echo "install.sh: $1" >&2
	exit 1
}

case ${1:-} in
install | uninstall) "do_$1" ;;
*) fail "say install or uninstall" ;;
esac
