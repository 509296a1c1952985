"""``lazypagesd serve`` as a subprocess, and a client written from the protocol's description
alone: a socket, and the messages."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lazypagesd.proto import handoff_pb2 as pb
from tests.service.daemon import DEADLINE_S, command_with, wait_until
from tests.support.descriptors import descriptors
from tests.support.image import Image

PAGE_SIZE = 4096


class Server:
    """One run of ``lazypagesd serve``, which is ready when this has been made."""

    def __init__(
        self,
        directory: Path,
        *options: str,
        times: Mapping[str, float] | None = None,
        nr_sockets: int = 5,
    ) -> None:
        self.directory = directory
        self.path = directory / "handoff.socket"
        self._log = directory / "log"
        self._clients: list[Client] = []
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            address = f"\0{directory}/notify"
            notified.bind(address)
            notified.settimeout(DEADLINE_S)
            with self._log.open("ab") as log:
                self.process = subprocess.Popen(
                    [*command_with(times or {}), "serve", "-v", "--no-keeper", *options],
                    stdin=subprocess.DEVNULL,
                    stderr=log,
                    env=os.environ
                    | {
                        "RUNTIME_DIRECTORY": os.fspath(directory),
                        "NOTIFY_SOCKET": f"@{address[1:]}",
                    },
                )
            self._wait_ready(notified)
        named = "--runtime-dir" in options
        runtime_dir = Path(options[options.index("--runtime-dir") + 1]) if named else directory
        self._wait_answering(runtime_dir / "admin.socket")
        # The socket that said so is closed a moment later; the listeners stay, asyncio's pair, and
        # what its status is told through.
        wait_until(
            lambda: self.nr_sockets() == nr_sockets,
            lambda: f"{nr_sockets} sockets of {self.fds()}",
        )

    def _wait_ready(self, notified: socket.socket) -> None:
        try:
            assert notified.recv(64) == b"READY=1", self.log
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def _wait_answering(self, path: Path) -> None:
        # Which it does when it has brought in what it needs for that, and opens nothing more.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asker:
            asker.settimeout(DEADLINE_S)
            asker.connect(os.fspath(path))
            asker.sendall(b'{"method": "org.varlink.service.GetInfo"}\0')
            assert asker.recv(1), self.log

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text()

    @property
    def errors(self) -> list[str]:
        """The errors in its log."""
        return re.findall("^(?:\\(.*\\) )?Error: (.*)$", self.log, flags=re.MULTILINE)

    def wait_for_log(self, text: str) -> None:
        """Return when *text* is in the log."""
        wait_until(lambda: text in self.log, lambda: f"{text!r} in the log: {self.log}")

    def fds(self) -> list[str]:
        """Return what it has open."""
        return sorted(descriptors(self.process.pid).values())

    def nr_sockets(self) -> int:
        """Return how many of them are sockets."""
        return sum(fd.startswith("socket:") for fd in self.fds())

    def wait_for_fds(self, expected: list[str]) -> None:
        """Return when it has open what it had before."""
        wait_until(lambda: self.fds() == expected, lambda: f"{self.fds()} is not {expected}")

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Return its exit code, or minus the signal."""
        return self.process.wait(DEADLINE_S)

    def client(self) -> Client:
        """Connect."""
        self._clients.append(Client(self.path))
        return self._clients[-1]

    def close(self) -> None:
        """Kill it, if it still runs, and close its clients; print the log for pytest to show."""
        self.process.kill()
        self.process.wait(DEADLINE_S)
        for client in self._clients:
            client.close()
        print(self.log)


class Client:
    """A restore tool."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.socket.connect(os.fspath(path))  # which waits for room in the backlog
        except OSError:
            self.socket.close()
            raise
        self.socket.settimeout(DEADLINE_S)

    def send(self, request: pb.Request, *fds: int) -> None:
        """Send a request."""
        socket.send_fds(self.socket, [request.SerializeToString()], fds)

    def answer(self) -> pb.Answer:
        """Return the answer to it."""
        data = self.socket.recv(1 << 16)
        assert data, "hung up"
        return pb.Answer.FromString(data)

    def do(self, request: pb.Request, *fds: int) -> pb.Answer:
        """Send a request, which is carried out."""
        self.send(request, *fds)
        answer = self.answer()
        assert answer.accepted, answer
        assert not answer.refused
        return answer

    def refused(self, request: pb.Request, *fds: int) -> list[str]:
        """Send a request, which is not, so that the daemon hangs up; return why."""
        return self.refused_bytes(request.SerializeToString(), *fds)

    def refused_bytes(self, data: bytes, *fds: int) -> list[str]:
        """The same of any packet."""
        socket.send_fds(self.socket, [data], fds)
        answer = self.answer()
        assert not answer.accepted
        assert self.socket.recv(1) == b""
        self.close()
        return list(answer.refused)

    def close(self) -> None:
        """Leave."""
        self.socket.close()


def opening(version: int = 1, **fields: object) -> pb.Request:
    """Return what comes first."""
    return pb.Request(open=pb.Open(version=version, **fields))  # type: ignore[arg-type]


def session(regions: Iterable[pb.Region] = (), **fields: object) -> pb.Request:
    """Return an add_session."""
    return pb.Request(
        add_session=pb.AddSession(regions=regions, **fields)  # type: ignore[arg-type]
    )


def regions_of(image: Image) -> Sequence[pb.Region]:
    """Return where the pages of *image* are."""
    return [
        pb.Region(start=part.start, nr_pages=part.nr_pages, offset=part.key * PAGE_SIZE)
        for part in image.parts
    ]


FINISHED = pb.Request(finished=pb.Finished())
PROGRESS = pb.Request(progress=pb.Progress())
RELEASE = pb.Request(release=pb.Release())
ABORT = pb.Request(abort=pb.Abort())
