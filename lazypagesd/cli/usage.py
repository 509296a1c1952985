"""What ``--help`` says.  A test holds it and docs/reference/ to the same options."""

from __future__ import annotations

USAGE = """\
Usage: lazypagesd [OPTIONS] lazy-pages [OPTIONS]
       lazypagesd serve [OPTIONS]
       lazypagesd can-take-over [OPTIONS]

Feeds memory, page by page, to processes that are being restored while they already run.

Commands:
  lazy-pages     take the place of `criu lazy-pages` for one restore
  serve          stay, and serve whatever restore tools hand over
  can-take-over  ask, before an upgrade, whether this version can go on where `serve` is

Options:
  -h, --help     say this; `lazypagesd COMMAND --help` says more
  -V, --version  say the version
"""

LAZY_PAGES_USAGE = """\
Usage: lazypagesd lazy-pages -D DIR [OPTIONS]

Takes the place of `criu lazy-pages`: waits for one `criu restore --lazy-pages`, then feeds the
restored processes their memory from the images in DIR, first what they touch, then the rest, and
ends when they have it all.

Examples:
  Restore what was dumped into /var/lib/ckpt; the first command returns when the second may start:
    lazypagesd lazy-pages -D /var/lib/ckpt -d --pidfile lazy.pid -o lazy.log -v
    criu restore --lazy-pages -D /var/lib/ckpt -d
  The same, with the socket, the log and the pid file in a directory of their own:
    lazypagesd lazy-pages -D /var/lib/ckpt -W /run/restore -d -o lazy.log -v
    criu restore --lazy-pages -D /var/lib/ckpt -W /run/restore -d
  In the foreground, for a program that waits for a byte on a pipe, its descriptor 3:
    lazypagesd lazy-pages -D /var/lib/ckpt --status-fd 3
  At 64 MiB a second, to leave the disk to others:
    lazypagesd lazy-pages -D /var/lib/ckpt --drain 64M -d

Where things are:
  -D, --images-dir DIR      the images of the checkpoint (default: the current directory)
  -W, --work-dir DIR        where lazy-pages.socket is made, and the files below that are given as
                            relative paths (default: the images' own directory)

Filling:
      --drain PACE          how fast to fill what nobody waits for: eager, as fast as it goes
                            (default); lazy, never; or bytes a second, such as 64M, and less while
                            the machine is short of memory or its disks are busy

Running:
  -d, --daemon              go to the background once a restore can connect
      --pidfile FILE        with --daemon: write the daemon's pid to FILE, which must not exist
      --status-fd FD        once a restore can connect: write a zero byte to FD and close it
      --action-script FILE  once a restore can connect: run FILE, with
                            CRTOOLS_SCRIPT_ACTION=status-ready; may be repeated
      --no-keeper           start no process that goes on if this one dies

Logging:
  -o, --log-file FILE       log to FILE instead of stderr; - is stdout
  -v, --verbosity[=NUM]     log more with each v, or as much as NUM says: 1 errors, 2 warnings
                            (default), 3 information, and statistics at the end, 4 everything

Configuration:
      --config FILE         read options from FILE, not from /etc/criu/default.conf and
                            ~/.criu/default.conf
      --no-default-config   do not read those two

  -h, --help                say this
  -V, --version             say the version

Refused: --page-server (not supported yet), --stream.  Ignored with a warning: --auto-dedup (the
images stay whole). Every other option of criu is accepted and has no effect, as with criu itself.

Exit code: 0 when every page was delivered, 1 on an error.
"""

SERVE_USAGE = """\
Usage: lazypagesd serve [OPTIONS]

Stays in the foreground, and feeds memory to the processes whose userfaultfds restore tools hand
over at handoff.socket, until a signal ends it; what has finished is filled first.

Options:
      --runtime-dir DIR  where handoff.socket is made (default: $RUNTIME_DIRECTORY, else
                         /run/lazypagesd); a socket that systemd passes takes its place
      --config FILE      read settings from FILE (default: /etc/lazypagesd.toml, if it is there)
      --no-keeper        start no process that goes on if this one dies
  -v, --verbose          log more: once for information and statistics, twice for everything
  -h, --help             say this
  -V, --version          say the version

Exit code: 0 after a signal, 1 when it could not begin.
"""

CAN_TAKE_OVER_USAGE = """\
Usage: lazypagesd can-take-over [OPTIONS]

Says whether this version of lazypagesd can go on with the restores of the `lazypagesd serve` that
runs, if that is stopped now.  An upgrade, or downgrade, asks the version that is to be installed.

Options:
      --runtime-dir DIR  the one of that daemon (default: $RUNTIME_DIRECTORY, else /run/lazypagesd)
  -h, --help             say this
  -V, --version          say the version

Exit code: 0 when it can, 1 when it cannot or does not know.
"""
