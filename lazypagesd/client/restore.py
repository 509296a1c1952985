"""One restore as an object: each method is a request, and waits for its answer."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from lazypagesd.client import messages
from lazypagesd.client.messages import (
    SOCKET_PATH,
    Conversation,
    Pace,
    Packet,
    Progress,
    Refused,
    Region,
)
from lazypagesd.proto import handoff_pb2 as pb

__all__ = ["SOCKET_PATH", "Pace", "Progress", "Refused", "Region", "Restore"]


class Restore:
    """A connection to the daemon, and the restore that it stands for.

    Every method raises Refused with the daemon's reasons, and OSError where it cannot be reached
    any more.  Before `finished` either fails the restore: kill its processes.  Descriptors stay
    the caller's, who may close them when the method has returned.
    """

    def __init__(self, sock: socket.socket, name: str) -> None:
        """Use `open` or `attach` instead."""
        self._socket = sock
        self._conversation = Conversation(name)
        self.name = name
        self.id = 0

    @classmethod
    def open(
        cls,
        name: str = "",
        path: Path = SOCKET_PATH,
        *,
        images_fd: int | None = None,
        pace: Pace = Pace.EAGER,
    ) -> Self:
        """Begin a restore that people are told of as *name*.

        *images_fd* is a directory of CRIU's images, for add_session() with *image_pid* and for
        serve_criu().
        """
        return cls._connect(path, name, messages.opening(name, images_fd, pace))

    @classmethod
    def attach(cls, number: int, path: Path = SOCKET_PATH) -> Self:
        """Reach the restore whose `id` is *number*, for progress(), set_pace() and release()."""
        return cls._connect(path, f"restore {number}", messages.attaching(number))

    @classmethod
    def _connect(cls, path: Path, name: str, first: Packet) -> Self:
        restore = cls(connected(path), name)
        try:
            answer = restore._ask(first)
        except BaseException:
            restore.close()
            raise
        restore.name, restore.id = answer.restore, answer.id
        restore._conversation.name = restore.name
        return restore

    def add_session(
        self,
        userfaultfd: int,
        *,
        regions: Iterable[Region] = (),
        files: Sequence[int] = (),
        image_pid: int | None = None,
        pidfd: int | None = None,
        never_forks: bool = False,
        never_changes_mappings: bool = False,
        channel: bool = False,
    ) -> None:
        """Hand one address space over; its faults are answered when this returns.

        Its bytes are in *files* as *regions* say, which ascend by their addresses, or those of
        process *image_pid* in the images; the rest is zero.  A process that *never_forks* or
        *never_changes_mappings* needs a userfaultfd without the events that would tell.

        With *channel* the descriptor is one end of a channel (lazypagesd.client.channel), in whose
        process open() has to be called meanwhile, if it was not before.
        """
        for packet in messages.session(
            userfaultfd,
            regions,
            files,
            image_pid=image_pid,
            pidfd=pidfd,
            never_forks=never_forks,
            never_changes_mappings=never_changes_mappings,
            channel=channel,
        ):
            self._ask(packet)

    def finished(self) -> None:
        """Say that all processes are in place: what is missing is filled from now on."""
        self._ask(messages.FINISHED)

    def set_pace(self, pace: Pace) -> None:
        """Fill what nobody waits for at another pace from now on."""
        self._ask(messages.pacing(pace))

    def progress(self) -> Progress:
        """Return how far it is."""
        return messages.progress_of(self._ask(messages.PROGRESS))

    def release(self) -> Progress:
        """Wait until the processes need the daemon no more."""
        self.begin_release()
        return self.end_release()

    def begin_release(self) -> None:
        """Ask for it and go on; the next call must be `end_release`.

        It waits no more when `fileno` has become readable.
        """
        self._send(messages.RELEASE)

    def end_release(self) -> Progress:
        """Wait for what begin_release() has asked for."""
        return messages.progress_of(self._receive())

    def fileno(self) -> int:
        """Return the connection's descriptor, which stays its own, to wait for an answer."""
        return self._socket.fileno()

    def abort(self) -> None:
        """Give the restore up, before `finished`: kill its processes now."""
        self._ask(messages.ABORT)

    def serve_criu(self, listener_fd: int) -> None:
        """Let ``criu restore --lazy-pages`` connect to a socket that listens; it may begin when
        this returns."""
        self._ask(messages.listener(listener_fd))

    def close(self) -> None:
        """Leave.  A restore that has not finished fails."""
        self._socket.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave."""
        self.close()

    def _ask(self, packet: Packet) -> pb.Answer:
        self._send(packet)
        return self._receive()

    def _send(self, packet: Packet) -> None:
        # Where it has left already, the end is what is received next.
        with contextlib.suppress(BrokenPipeError):
            socket.send_fds(self._socket, [self._conversation.encode(packet)], packet.fds)

    def _receive(self) -> pb.Answer:
        answer = None
        while answer is None:
            try:
                data = self._socket.recv(messages.PACKET_MAX)
            except ConnectionResetError:  # it has left without reading the request
                data = b""
            answer = self._conversation.take(data)
        return answer


def connected(path: Path) -> socket.socket:
    """Return a socket that is connected to a daemon."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.connect(os.fspath(path))
    except OSError as error:
        sock.close()
        # A path that is too long is one without errno and strerror.
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from error
    return sock
