#!/bin/bash
# get-criu.sh PREFIX: put a current CRIU at PREFIX/criu, leaving the system's packages alone.
#
# Older releases of CRIU refuse to start on newer kernels.  get-program.sh says how it is done; running it again does
# nothing.
set -euo pipefail

"$(dirname "${BASH_SOURCE[0]}")/get-program.sh" "$1" criu usr/sbin/criu
echo "CRIU $("$1/criu" --version | awk '/^Version:/ {print $2}') at $(readlink -f "$1")/criu"
