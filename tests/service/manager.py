"""A service manager as systemd is one, as far as descriptors go: it stores them, and passes them
to the daemon that it starts next."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lazypagesd.engine.recorder import MEMFD_NAME as RECORDER_NAME
from lazypagesd.kernel import fdpass
from lazypagesd.kernel.descriptors import target
from lazypagesd.proto import handoff_pb2 as pb
from tests.service.daemon import DEADLINE_S, command_with, members, wait_until
from tests.service.serving import Client

FIRST_FD = 3
CAPACITY = 10_000
# Flight recorders, which a daemon has in store for as long as it runs.
NR_RECORDERS = len(os.sched_getaffinity(0))

# What a child does before it becomes the daemon: put what is passed where it is looked for, which
# may be where another one still is.
PREPARE = """
import fcntl, os, sys
fds = [int(fd) for fd in sys.argv[1].split(",")]
aside = [fcntl.fcntl(fd, fcntl.F_DUPFD, 3 + len(fds) + max(fds)) for fd in fds]
for i, fd in enumerate(aside):
    os.dup2(fd, 3 + i)
os.closerange(3 + len(fds), 3 + 3 * len(fds) + max(fds))
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


class Manager:
    """A daemon that is started again and again, with what its predecessors have stored."""

    def __init__(
        self,
        directory: Path,
        *,
        capacity: int = CAPACITY,
        times: Mapping[str, float] | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        self.directory = directory
        self.path = directory / "handoff.socket"
        self.admin_path = directory / "admin.socket"
        self.stored: dict[str, int] = {}
        self.status = ""
        self.log_path = directory / "log"
        self.capacity = capacity
        self.command = command or command_with(times or {})
        self._nr_ready = 0
        self._changed = threading.Condition()
        self._clients: list[Client] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(os.fspath(self.path))
        self._listener.listen(64)
        self._admin = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._admin.bind(os.fspath(self.admin_path))
        self._admin.listen(64)
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind(f"\0{directory}/notify")
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        self.process = self._spawn()

    # ---- the daemon ----

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self._changed:
            sockets = {"handoff": self._listener.fileno(), "admin": self._admin.fileno()}
            passed = {**sockets, **self.stored}
        environment = {
            "NOTIFY_SOCKET": f"@{self.directory}/notify",
            "RUNTIME_DIRECTORY": os.fspath(self.directory),
            "LAZYPAGESD_FDSTORE": str(self.capacity),
            "LISTEN_FDS": str(len(passed)),
            "LISTEN_FDNAMES": ":".join(passed),
        }
        fds = list(passed.values())
        prepare = [sys.executable, "-c", PREPARE, ",".join(map(str, fds))]
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                [*prepare, *self.command, "serve", "-v"],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env=os.environ | environment,
                pass_fds=fds,
                process_group=0,
            )

    def wait_ready(self, number: int = 1) -> None:
        """Return when the daemon, of so many that were started, is ready."""
        with self._changed:
            is_ready = self._changed.wait_for(lambda: self._nr_ready >= number, DEADLINE_S)
        assert is_ready, self.log

    def kill(self) -> None:
        """Kill the daemon, and wait until its keeper has stored what it had."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE_S)
        # As systemd waits until nobody is left in the service's cgroup: its keeper is.
        wait_until(lambda: not members(self.process.pid), lambda: "the keeper to end")

    def kill_all(self) -> None:
        """Kill the daemon and its keeper at the same moment."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.kill()

    def restart(self, command: Sequence[str] | None = None) -> None:
        """Start the next one, by another *command* from now on, and wait until it is ready."""
        number = self._nr_ready + 1
        self.begin_restart(command)
        self.wait_ready(number)

    def begin_restart(self, command: Sequence[str] | None = None) -> None:
        """Do the same, and wait for nothing."""
        self.command = command or self.command
        self._settle()
        self.process = self._spawn()

    def kill_and_restart(self) -> None:
        """Do both."""
        self.kill()
        self.restart()

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """Start the next daemon whenever one dies, until the block ends."""
        over = threading.Event()

        def follow() -> None:
            while True:
                self.process.wait()
                wait_until(lambda: not members(self.process.pid), lambda: "the keeper to end")
                if over.is_set():
                    return
                self._settle()
                self.process = self._spawn()

        thread = threading.Thread(target=follow)
        thread.start()
        try:
            yield
        finally:
            over.set()
            self.process.kill()
            thread.join()

    # ---- what it tells ----

    def _settle(self) -> None:
        # What was sent before is handled before this.
        readable, writable = os.pipe()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(f"\0{self.directory}/notify")
            socket.send_fds(sock, [b"BARRIER=1"], [writable])
        os.close(writable)
        assert os.read(readable, 1) == b""
        os.close(readable)

    def _listen(self) -> None:
        while True:
            data, fds, _flags, _address = socket.recv_fds(self._notified, 4096, 16)
            if data == b"END":
                return
            with self._changed:
                self._handle(data.decode(), list(fds))
                self._changed.notify_all()

    def _handle(self, text: str, fds: list[int]) -> None:
        fields = dict(line.split("=", 1) for line in text.splitlines())
        if "FDSTORE" in fields:
            assert fields["FDPOLL"] == "0"
            self._remove(fields["FDNAME"])
            if len(self.stored) < self.capacity:
                self.stored[fields["FDNAME"]] = fds.pop()
        elif "FDSTOREREMOVE" in fields:
            self._remove(fields["FDNAME"])
        self.status = fields.get("STATUS", self.status)
        self._nr_ready += "READY" in fields
        fdpass.close_all(fds)

    def _remove(self, name: str) -> None:
        if (fd := self.stored.pop(name, None)) is not None:
            os.close(fd)

    # ---- for tests ----

    @property
    def log(self) -> str:
        """What was logged so far, by all daemons."""
        return self.log_path.read_text()

    def wait_for_log(self, pattern: str) -> None:
        """Return when something in the log matches."""
        wait_until(
            lambda: re.search(pattern, self.log) is not None,
            lambda: f"{pattern!r} in the log: {self.log}",
        )

    def recorders(self) -> list[int]:
        """Return the stored flight recorders, by number; they stay the manager's."""
        with self._changed:
            named = {target(fd): fd for fd in self.stored.values()}
        return [fd for name, fd in sorted(named.items()) if RECORDER_NAME in name]

    def wait_for_nothing_stored(self) -> None:
        """Return when the daemon has dropped all that it had stored, but its recorders."""

        def is_done() -> bool:
            with self._changed:
                return len(self.stored) == len(self.recorders())

        wait_until(is_done, lambda: f"{self.stored} to be dropped: {self.log}")

    def client(self) -> Client:
        """Connect."""
        self._clients.append(Client(self.path))
        return self._clients[-1]

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Do nothing of what the daemon asks for meanwhile."""
        with self._changed:
            yield

    def nr_waiting(self) -> int:
        """Return how many threads wait for a page of those userfaultfds that are stored."""
        lines = [
            line
            for fd in self.stored.values()
            for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
            if line.startswith("pending:")
        ]
        return sum(int(line.split()[1]) for line in lines)

    def state_of(self, name: str) -> int:
        """Return the stored memfd that is the state of a process; it stays the manager's."""
        [found] = [
            fd
            for fd in self.stored.values()
            if f"lazypagesd-session:{name} " in os.fspath(Path(f"/proc/self/fd/{fd}").readlink())
        ]
        return found

    def close(self) -> None:
        """End the daemon, and let go of all that is stored."""
        self.process.kill()
        self.process.wait(DEADLINE_S)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(f"\0{self.directory}/notify")
            sock.send(b"END")
        self._thread.join(DEADLINE_S)
        for client in self._clients:
            client.close()
        self._notified.close()
        self._listener.close()
        self._admin.close()
        fdpass.close_all(self.stored.values())
        print(self.log)


class Numbered:
    """A client whose requests have numbers, and that skips answers that come again."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.nr_sent = 0

    def close(self) -> None:
        """Leave."""
        self.client.close()

    def send(self, request: pb.Request, *fds: int) -> None:
        """Send a request, under the next number."""
        self.nr_sent += 1
        numbered = pb.Request(number=self.nr_sent)
        numbered.MergeFrom(request)
        self.client.send(numbered, *fds)

    def answer(self) -> pb.Answer:
        """Return the answer to it."""
        while (answer := self.client.answer()).number not in (0, self.nr_sent):
            pass
        return answer

    def do(self, request: pb.Request, *fds: int) -> pb.Answer:
        """Send a request, which is carried out."""
        self.send(request, *fds)
        answer = self.answer()
        assert answer.accepted, answer
        return answer
