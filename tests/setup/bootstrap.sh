#!/bin/bash
# Makes ready what the tests and the demo need: system packages, .venv/ with lazypagesd in it, a CRIU in .build/criu.
#
# Needs python3, and root for what has to be installed.  Does only what is not done yet, so it may be run at any time,
# also twice at once: the second waits for the first.  Without root it says what is missing and goes on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly BUILD=.build VENV=.venv
readonly OLDEST_PYTHON="3, 11"
readonly OLDEST_PIP="25, 1" # knows --group

main() {
	mkdir -p "$BUILD"
	exec 9>"$BUILD/bootstrap.lock"
	flock -n 9 || { echo "bootstrap: wait for another one" && flock 9; }
	install_packages
	make_venv
	install_project
	compile_project
	fetch_criu
	fetch_varlinkctl
}

# Says what is done, runs it, and shows its output only if it fails.
step() {
	local what=$1 log
	shift
	echo "bootstrap: $what"
	log=$(mktemp)
	if ! "$@" >"$log" 2>&1 9>&-; then
		cat "$log" >&2
		rm -f "$log"
		echo "bootstrap: could not $what" >&2
		return 1
	fi
	rm -f "$log"
}

install_packages() {
	local missing=()
	# What is asked for is what is needed, wherever it comes from; the package is what Debian has it in.
	has_compiler || missing+=(gcc libc6-dev)
	has_python_headers || missing+=(python3-dev)
	has_venv || missing+=(python3-venv)
	has_sanitizers || missing+=(gcc)
	[[ -x /lib/systemd/systemd ]] || missing+=(systemd)
	pkg-config --exists libsystemd 2>/dev/null || missing+=(libsystemd-dev pkg-config)
	command -v runc >/dev/null || missing+=(runc)
	command -v runsc >/dev/null || missing+=(runsc)
	command -v mandoc >/dev/null || missing+=(mandoc)
	command -v chromium >/dev/null || missing+=(chromium)
	((${#missing[@]})) || return 0
	mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
	if ! command -v apt-get >/dev/null || ((EUID != 0)); then
		echo "bootstrap: missing, and only root can install them with apt: ${missing[*]}" >&2
		return 0
	fi
	# The lists may be absent or too old; both show in an install that fails.
	step "install ${missing[*]}" apt_install "${missing[@]}"
}

apt_install() {
	apt_get install "$@" || { apt_get update && apt_get install "$@"; }
}

apt_get() {
	DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends "$@"
}

has_compiler() {
	echo '#include <stdio.h>' | gcc -E - >/dev/null 2>&1
}

has_sanitizers() {
	[[ $(gcc -print-file-name=libasan.so 2>/dev/null) == /* &&
		$(gcc -print-file-name=libtsan.so 2>/dev/null) == /* ]]
}

has_python_headers() {
	"$(find_python)" -c 'import os, sysconfig, sys
sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' 2>/dev/null
}

has_venv() {
	"$(find_python)" -c 'import ensurepip, venv' 2>/dev/null
}

# Prints the Python to use: the system's, unless it is too old and there is another.
find_python() {
	local name
	for name in python3 python3.14 python3.13 python3.12 python3.11; do
		if "$name" -c "import sys; sys.exit(sys.version_info < ($OLDEST_PYTHON))" 2>/dev/null; then
			command -v "$name"
			return
		fi
	done
	echo "bootstrap: no Python of at least version ${OLDEST_PYTHON/, /.} found" >&2
	return 1
}

make_venv() {
	if ! "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
		step "make $VENV" "$(find_python)" -m venv --clear "$VENV"
	fi
	if ! "$VENV/bin/python" -c "import pip, sys
sys.exit(tuple(map(int, pip.__version__.split('.')[:2])) < ($OLDEST_PIP))"; then
		step "upgrade pip" "$VENV/bin/python" -m pip install -q --upgrade pip
	fi
}

# Installs again when what the extension is built from, or what is depended on, has changed.
install_project() {
	local stamp=$VENV/lazypagesd.stamp state
	state=$(cat pyproject.toml lazypagesd/native/*.[ch] lazypagesd/native/build.py | sha256sum)
	if [[ -e $stamp && $(<"$stamp") == "$state" ]] && compgen -G "lazypagesd/native/_native*.so" >/dev/null; then
		return
	fi
	step "build lazypagesd and install it into $VENV" \
		"$VENV/bin/python" -m pip install -q -e . --group dev
	echo "$state" >"$stamp"
}

# As pip does with all that it installs but what is editable: each daemon of a test would compile itself otherwise, where
# PYTHONDONTWRITEBYTECODE is set.
compile_project() {
	"$VENV/bin/python" -m compileall -q lazypagesd
}

fetch_criu() {
	local fetch=tests/setup/get-criu.sh
	if [[ -n ${CRIU:-} || -x $BUILD/criu/criu || ! -e $fetch ]]; then
		return 0
	fi
	# Without it the tests that need it are skipped, which is for them to say.
	step "put CRIU into $BUILD/criu" bash "$fetch" "$BUILD/criu" || true
}

fetch_varlinkctl() {
	local fetch=tests/setup/get-program.sh
	if [[ -x $BUILD/varlinkctl/varlinkctl || ! -e $fetch ]]; then
		return 0
	fi
	step "put varlinkctl into $BUILD/varlinkctl" bash "$fetch" "$BUILD/varlinkctl" systemd usr/bin/varlinkctl || true
}

main "$@"
