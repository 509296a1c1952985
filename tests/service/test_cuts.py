"""Hand-offs to a daemon that runs, of which one packet is cut, or comes with other descriptors:
that restore ends with a word, and another one beside it goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lazypagesd.proto import handoff_pb2 as pb
from tests.service.daemon import LONG_GRACE, wait_until
from tests.service.serving import (
    FINISHED,
    PROGRESS,
    RELEASE,
    Client,
    Server,
    opening,
    regions_of,
    session,
)
from tests.service.stage import Restored, Stage, handed_over, stage
from tests.support.victim import victim_program

__all__ = ["stage", "victim_program"]

pytestmark = pytest.mark.uffd


NAMES = "open", "add_session", "add_regions", "finished", "progress", "release"
NUMBERS = range(len(NAMES))
NR_FDS = {"add_session": 3}
LEFT_EARLY = "hand-off: the client closed the connection before it had finished"


class Case:
    """A process, and the packets by which it is handed over, each with its descriptors."""

    def __init__(self, server: Server, restored: Restored, pidfd: int) -> None:
        self._server = server
        self._restored = restored
        self._nr_errors = len(server.errors)
        self._nr_ended = server.log.count(": ended")
        first, *rest = regions_of(restored.image)
        requests = {
            "open": opening(),
            "add_session": session([first], more=True, pidfd=True),
            "add_regions": pb.Request(add_regions=pb.AddRegions(regions=rest)),
            "finished": FINISHED,
            "progress": PROGRESS,
            "release": RELEASE,
        }
        fds = {"add_session": (restored.fd, pidfd, restored.file)}
        self.packets = [(requests[name], fds.get(name, ())) for name in NAMES]

    def begin(self, nr_packets: int) -> Client:
        """Return a client that has sent so many of them."""
        client = self._server.client()
        for request, fds in self.packets[:nr_packets]:
            client.do(request, *fds)
        return client

    def see_refused(self, number: int, data: bytes, *fds: int) -> None:
        """Send something in the place of a packet: it is refused, and the log has why."""
        client = self.begin(number)
        [reason, *_] = client.refused_bytes(data, *fds)
        [error] = self.errors_at_end(number)
        assert f"hand-off: refused: {reason}" in error

    def errors_at_end(self, nr_packets: int) -> list[str]:
        """Do what a restore tool does when the hand-off has ended after so many packets: kill the
        process, unless it has finished.  Return what the daemon says of it."""
        if "finished" in NAMES[:nr_packets]:
            self._restored.check()
        self._restored.close()
        self._restored.victim.kill()
        self._wait_for_end(begun=nr_packets > 0)
        return self._server.errors[self._nr_errors :]

    def _wait_for_end(self, *, begun: bool) -> None:
        # A connection without a restore has no word at its end but the error.
        server = self._server
        ended, nr_errors = self._nr_ended + begun, self._nr_errors + (not begun)
        wait_until(
            lambda: server.log.count(": ended") == ended and len(server.errors) >= nr_errors,
            lambda: server.log,
        )


class Cases:
    """Cases of one daemon, which serves another process meanwhile, and keeps nothing open."""

    def __init__(self, stage: Stage, server: Server) -> None:
        self._stage = stage
        self._server = server
        self._other = stage.restored()
        self._client = handed_over(server, self._other)
        self._other.close()
        self._before = server.fds()
        self._nr_cases = 0

    @contextmanager
    def case(self) -> Iterator[Case]:
        """A further one."""
        self._nr_cases += 1
        restored = self._stage.restored()
        pidfd = os.pidfd_open(restored.victim.pid)
        yield Case(self._server, restored, pidfd)
        os.close(pidfd)
        self._server.wait_for_fds(self._before)
        self._other.check(60 + self._nr_cases, 1)

    def end(self) -> None:
        """See that the other one has been left alone."""
        assert self._nr_cases
        self._client.do(FINISHED)
        assert self._client.do(RELEASE).state.ended
        self._other.check()


@pytest.fixture
def cases(stage: Stage) -> Iterator[Cases]:
    """Cases, and in the end a look at who was served beside them."""
    cases = Cases(stage, stage.server(times=LONG_GRACE))
    yield cases
    cases.end()


@pytest.mark.parametrize("number", NUMBERS, ids=NAMES)
def test_packet_that_is_cut_is_refused(cases: Cases, number: int) -> None:
    """At its first byte, in the middle, or before its last: the client is told, and the log."""
    for part in (0.0, 0.5, 1.0):
        with cases.case() as case:
            request, fds = case.packets[number]
            data = request.SerializeToString()
            size = max(1, int(part * (len(data) - 1)))
            case.see_refused(number, data[:size], *fds)


@pytest.mark.parametrize("nr_packets", range(len(NAMES) + 1), ids=["nothing", *NAMES])
def test_connection_may_end_after_any_packet(cases: Cases, nr_packets: int) -> None:
    """Before `finished` that is an error, of which there is one line; later it is none."""
    with cases.case() as case:
        case.begin(nr_packets).close()
        errors = case.errors_at_end(nr_packets)
        assert len(errors) == ("finished" not in NAMES[:nr_packets])
        assert all(error.endswith(LEFT_EARLY) for error in errors)


@pytest.mark.parametrize("number", NUMBERS, ids=NAMES)
def test_packet_with_a_wrong_descriptor_is_refused(cases: Cases, number: int) -> None:
    """In the place of any, or behind the last."""
    for at in range(NR_FDS.get(NAMES[number], 0) + 1):
        with cases.case() as case, Path("/dev/null").open("rb") as wrong:
            request, fds = case.packets[number]
            others = *fds[:at], wrong.fileno(), *fds[at + 1 :]
            case.see_refused(number, request.SerializeToString(), *others)


def test_packet_without_a_descriptor_is_refused(cases: Cases) -> None:
    """Whichever is missing: those behind it are not taken for it."""
    number = NAMES.index("add_session")
    for at in range(NR_FDS["add_session"]):
        with cases.case() as case:
            request, fds = case.packets[number]
            case.see_refused(number, request.SerializeToString(), *fds[:at], *fds[at + 1 :])
