"""What a descriptor says of itself, and of the address space behind it."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

import pytest

from lazypagesd.kernel.uffd import Feature, describe
from lazypagesd.native import lib
from tests.native.toucher import PAGE, UFFDIO_API, Toucher
from tests.native.waiting import wait_readable

pytestmark = pytest.mark.uffd

UFFD_API = 0xAA
EVENTS = Feature.EVENT_FORK | Feature.EVENT_REMAP | Feature.EVENT_REMOVE | Feature.EVENT_UNMAP


def negotiate(fd: int, features: int = 0) -> None:
    fcntl.ioctl(fd, UFFDIO_API, struct.pack("3Q", UFFD_API, features, 0))


def test_what_is_no_userfaultfd_is_not_described() -> None:
    """Any other descriptor is told from a userfaultfd, one of the kernel's own too."""
    for fd in os.eventfd(0), os.open("/dev/null", os.O_RDONLY), os.memfd_create("[userfaultfd]"):
        assert describe(fd) is None
        os.close(fd)


def test_descriptor_before_its_api_call_is_not_negotiated(userfaultfd: int) -> None:
    """A userfaultfd on which UFFDIO_API is still to be called says so."""
    found = describe(userfaultfd)
    assert found is not None
    assert (found.negotiated, found.features, found.blocking) == (False, Feature(0), False)


@pytest.mark.parametrize(
    "features", [Feature(0), Feature.EVENT_REMAP | Feature.EVENT_UNMAP, Feature.SIGBUS]
)
def test_features_are_those_that_were_negotiated(userfaultfd: int, features: Feature) -> None:
    """After UFFDIO_API a descriptor names the features that were asked for, even if none was."""
    negotiate(userfaultfd, features)
    found = describe(userfaultfd)
    assert found is not None
    assert (found.negotiated, found.features) == (True, features)


def test_blocking_descriptor_says_so(userfaultfd: int) -> None:
    """A descriptor that cannot be polled is known by its flag."""
    negotiate(userfaultfd)
    os.set_blocking(userfaultfd, True)
    found = describe(userfaultfd)
    assert found is not None
    assert found.blocking


def test_descriptor_of_another_process_is_described() -> None:
    """A descriptor that was handed over tells the same as one's own."""
    with Toucher(1) as toucher:
        assert toucher.uffd is not None
        found = describe(toucher.uffd)
        assert found is not None
        assert (found.negotiated, found.features, found.blocking) == (True, EVENTS, False)


def test_address_space_lives_as_long_as_its_process() -> None:
    """The probe says 0 until the process has ended."""
    with Toucher(1) as toucher:
        assert toucher.uffd is not None
        assert lib.lpd_uffd_probe(toucher.uffd) == 0
        toucher.kill()
        assert lib.lpd_uffd_probe(toucher.uffd) == -errno.ESRCH
        assert lib.lpd_uffd_registered(toucher.uffd, toucher.arena, PAGE) == -errno.ESRCH


def test_address_space_with_an_unread_event_is_changing() -> None:
    """From munmap() until its event has been read the probe says EAGAIN."""
    with Toucher(4) as toucher:
        uffd = toucher.uffd
        assert uffd is not None
        assert lib.lpd_uffd_probe(uffd) == 0
        command = toucher.start("munmap", toucher.arena, PAGE)
        wait_readable(uffd, "the event")
        assert lib.lpd_uffd_probe(uffd) == -errno.EAGAIN
        assert lib.lpd_uffd_registered(uffd, toucher.arena, PAGE) == -errno.EAGAIN
        os.read(uffd, 32)
        assert toucher.result(command) == 0
        assert lib.lpd_uffd_probe(uffd) == 0


def test_registered_tells_what_is_from_what_is_not() -> None:
    """A page is registered until it is unmapped, whether it is present or not; nothing else is."""
    with Toucher(4) as toucher:
        uffd = toucher.uffd
        assert uffd is not None
        assert lib.lpd_uffd_zeropage(uffd, toucher.arena, PAGE) == PAGE
        places = [toucher.arena, toucher.arena + PAGE, toucher.reserved]
        assert [lib.lpd_uffd_registered(uffd, place, PAGE) for place in places] == [
            1,
            1,
            0,
        ]
        command = toucher.start("munmap", toucher.arena + PAGE, PAGE)
        wait_readable(uffd, "the event")
        os.read(uffd, 32)
        assert toucher.result(command) == 0
        assert [lib.lpd_uffd_registered(uffd, place, PAGE) for place in places] == [
            1,
            0,
            0,
        ]


def test_probes_fill_nothing() -> None:
    """Asking whether a page is registered leaves it absent."""
    with Toucher(1) as toucher:
        uffd = toucher.uffd
        assert uffd is not None
        assert lib.lpd_uffd_registered(uffd, toucher.arena, PAGE) == 1
        assert lib.lpd_uffd_probe(uffd) == 0
        assert lib.lpd_uffd_zeropage(uffd, toucher.arena, PAGE) == PAGE
        assert lib.lpd_uffd_zeropage(uffd, toucher.arena, PAGE) == -errno.EEXIST
