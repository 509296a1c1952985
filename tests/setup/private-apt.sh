# private-apt.sh: Debian's current release through this machine's mirror, leaving the system's packages alone.
#
# Sourced by the scripts beside it, which have die().  Packages come from the mirror that this machine's own apt uses,
# checked against the archive's keyring.  The package database is empty, so that a package comes with everything that
# it depends on, down to libc.

suite=trixie
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# private_apt_init WORK deb|deb-src: prepare WORK/ for private_apt, which leaves packages in WORK/archives/, and source
# where it is called.
private_apt_init() {
	[ -r "$keyring" ] || die "$keyring is not here (package debian-archive-keyring)"

	# The first archive that is a plain release (not -updates, not -security) has every suite of Debian.
	mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
		awk '$2 ~ /^[a-z]+$/ && $1 !~ /security/ && !found {print $1; found = 1}')
	[ -n "$mirror" ] || die "apt knows no Debian archive (apt-get indextargets)"

	private_apt_work=$1
	mkdir -p "$1"/{lists,archives}/partial
	echo "$2 [signed-by=$keyring] $mirror $suite main" >"$1/sources.list"
	: >"$1/status"
	private_apt update
}

private_apt() {
	local work=$private_apt_work
	apt-get -qq -y \
		-o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- \
		-o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status" \
		-o Dir::Cache="$work" -o Dir::Cache::archives="$work/archives" \
		-o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=1 \
		-o Acquire::Languages=none -o Acquire::Retries=3 -o APT::Update::Error-Mode=any \
		"$@" >"$work/log" 2>&1 || die "apt-get $1: $mirror $suite: $(tail -n 3 "$work/log")"
}
