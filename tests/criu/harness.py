"""A bed: one victim, its checkpoint, the daemon that serves it and the restores of it.

Some facts about CRIU that this rests on: a dump kills the process; a process that has its own
session and no descriptor that leads anywhere needs no option to be dumped; the restored process
has its old pid, so many restores at a time need a pid namespace each; ``criu restore -d`` returns
when the process runs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.criu.daemon import Daemon
from tests.criu.waiting import DEADLINE_S, wait_until

# What a restore in a pid namespace of its own runs as pid 1: the victim's directory becomes one of
# its own, and the namespace outlives CRIU.
_NAMESPACE = """
mount --bind "$1" "$2"; result=$3; shift 3
"$@"
echo $? >"$result.part"; mv "$result.part" "$result"
exec sleep infinity
"""

_RESTORE = ("restore", "--lazy-pages")


@dataclass(frozen=True, slots=True)
class Tally:
    """What a victim says that it saw: see struct tally in victim.h."""

    nr_pages: int
    nr_wrong: int
    wrong: str

    @classmethod
    def read(cls, path: Path) -> Tally:
        """Return what is in *path*."""
        nr_pages, nr_wrong, addr, key, word = path.read_text().split()
        return cls(int(nr_pages), int(nr_wrong), f"word at {addr} (key {key}) was {word}")


class Bed:
    """Directories and processes of one test; `close` ends and removes all of them."""

    def __init__(self, criu: Path, command: list[str], directory: Path) -> None:
        self.criu = criu
        self.command = command
        self.directory = directory
        self.images = directory / "images"
        self.work = directory / "work"
        self.out = directory / "out"
        for path in (self.images, self.work, self.out):
            path.mkdir(parents=True)
        self.pid = 0
        self._children: list[subprocess.Popen[bytes]] = []
        self._daemons: list[Daemon] = []
        self._nr_restores = 0

    def start(self, victim: Path, *args: object) -> None:
        """Start *victim* and return when its memory is filled."""
        with (self.directory / "victim.log").open("wb") as stderr:
            process = subprocess.Popen(
                [victim, self.out, *map(str, args)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
                cwd="/",
            )
        self._children.append(process)
        self.pid = process.pid
        ready = self.out / "ready"
        wait_until(lambda: ready.exists() or process.poll() is not None, "victim's memory")
        assert process.poll() is None, f"victim ended with {process.returncode}"

    def dump(self) -> None:
        """Write the victim's checkpoint and see it die."""
        run = self._criu("dump", "-t", str(self.pid), "-o", "dump.log")
        assert run.returncode == 0, f"criu dump: exit code {run.returncode}"
        self._children[0].wait(DEADLINE_S)
        # Its children die with it, but keep their pids until init has reaped them.
        pids = [path.stem.removeprefix("core-") for path in self.images.glob("core-*.img")]
        wait_until(lambda: not any(Path("/proc", pid).exists() for pid in pids), "end of all")

    def daemon(self, *options: str) -> Daemon:
        """Start the daemon and return when it is ready for a restore."""
        daemon = self.daemon_unready(*options)
        daemon.wait_ready()
        return daemon

    def daemon_unready(self, *options: str) -> Daemon:
        """Start the daemon, whatever becomes of it."""
        daemon = Daemon(
            [*self.command, "-D", os.fspath(self.images), "-W", os.fspath(self.work), *options],
            self.directory / f"daemon-{len(self._daemons)}.out",
        )
        self._daemons.append(daemon)
        return daemon

    def restore(self) -> None:
        """Restore the victim, which runs when this returns."""
        assert self.try_restore() == 0, "criu restore failed"

    def restore_options(self) -> list[str]:
        """Return CRIU's options for one more restore in the background."""
        number = self._nr_restores
        self._nr_restores += 1
        return ["-d", "-o", f"restore-{number}.log", "--pidfile", f"restored-{number}.pid"]

    def try_restore(self) -> int:
        """Restore the victim and return CRIU's exit code."""
        return self._criu(*_RESTORE, *self.restore_options()).returncode

    def start_restore_in_pid_namespace(self, work: Path | None = None) -> NamespacedRestore:
        """Begin a restore that has a pid namespace and a directory for its results of its own.

        Its work directory is the bed's, or *work*.
        """
        out = self.directory / f"out-{self._nr_restores}"
        out.mkdir()
        result = self.directory / f"restore-{self._nr_restores}.rc"
        namespace: list[str | Path] = [
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]
        script: list[str | Path] = ["sh", "-c", _NAMESPACE, "sh", out, self.out, result]
        criu: list[str | Path] = [
            self.criu,
            *_RESTORE,
            *self.restore_options(),
            "-D",
            self.images,
            "-W",
            work or self.work,
        ]
        process = subprocess.Popen(
            [*namespace, *script, *criu],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        self._children.append(process)
        return NamespacedRestore(out, result)

    def go(self) -> None:
        """Tell the victim to look at its memory, now or as soon as it runs."""
        (self.out / "go").touch()

    def tally(self, name: str) -> Tally:
        """Wait for what the victim's process *name* has to say."""
        path = self.out / name
        root = Path(f"/proc/{self.pid}")
        wait_until(lambda: path.exists() or not root.exists(), f"result of {name}")
        assert path.exists(), f"the victim ended without a result of {name}"
        return Tally.read(path)

    def close(self) -> None:
        """Kill and remove everything; print the logs, which pytest shows of a test that failed."""
        for daemon in self._daemons:
            daemon.close()
        for process in self._children:
            process.kill()
            process.wait(DEADLINE_S)
        self._kill_restored()
        logs = [
            *self.work.glob("*.log"),
            *self.directory.glob("daemon-*.out"),
            self.directory / "victim.log",
        ]
        for log in filter(Path.exists, logs):
            tail = log.read_text(errors="replace").splitlines()[-30:]
            print(f"--- {log.name}", *tail, sep="\n")
        shutil.rmtree(self.directory)

    def _kill_restored(self) -> None:
        # The victim leads a process group of its own, and so does what is restored of it.
        for pid_file in self.work.glob("restored-*.pid"):
            pid = int(pid_file.read_text())
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if os.fsencode(self.out) in command.split(b"\0"):
                    os.killpg(pid, signal.SIGKILL)

    def _criu(self, *args: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [self.criu, *args, "-D", self.images, "-W", self.work],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=DEADLINE_S,
            check=False,
        )


@dataclass(frozen=True, slots=True)
class NamespacedRestore:
    """A restore under way in a pid namespace of its own."""

    out: Path
    result: Path

    def wait(self) -> int:
        """Return CRIU's exit code, when it has one."""
        wait_until(self.result.exists, "criu restore in a pid namespace")
        return int(self.result.read_text())

    def tally(self, name: str) -> Tally:
        """Wait for what the restored process *name* has to say."""
        path = self.out / name
        wait_until(path.exists, f"result of {name}")
        return Tally.read(path)
