"""Whole native hand-offs of which one packet is not what it was: each byte, each descriptor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from lazypagesd.handoff.packets import Refused
from tests.fuzz.test_native_handoff import RIGHT, Packet, converse, opened
from tests.handoff.test_criu import nr_fds

pytestmark = pytest.mark.uffd

# Nothing of the kind belongs anywhere in a hand-off.
WRONG = "file", "pipe", "silent", "empty directory"


@pytest.fixture
def descriptors() -> Iterator[dict[str, int]]:
    """What the packets name; the test leaves as many open as it found."""
    with opened() as fds:
        before = nr_fds()
        yield fds
        assert nr_fds() == before


@pytest.fixture(params=range(len(RIGHT)))
def script(request: pytest.FixtureRequest) -> list[Packet]:
    """A hand-off that is right."""
    return RIGHT[request.param]


def check_refused(script: list[Packet], descriptors: dict[str, int]) -> None:
    """See that *script* is refused, with reasons, and leaves nothing open."""
    before = nr_fds()
    with pytest.raises(Refused) as caught:
        converse(script, descriptors)
    assert all(caught.value.reasons)
    assert nr_fds() == before


def test_packet_cut_at_any_byte_is_refused(
    script: list[Packet], descriptors: dict[str, int]
) -> None:
    """Of no packet any beginning is taken for the whole."""
    for i, packet in enumerate(script):
        for length in range(1, len(packet.data)):
            cut = replace(packet, data=packet.data[:length])
            check_refused([*script[:i], cut, *script[i + 1 :]], descriptors)


def test_end_after_any_packet_leaves_nothing_open(
    script: list[Packet], descriptors: dict[str, int]
) -> None:
    """A hand-off may end anywhere, also in the middle of a list."""
    before = nr_fds()
    for i in range(len(script)):
        assert len(converse(script[:i], descriptors)) == i
        assert nr_fds() == before


def without_one(fds: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield *fds* without each of them."""
    for i in range(len(fds)):
        yield (*fds[:i], *fds[i + 1 :])


def with_a_wrong_one(fds: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield *fds* with a wrong one in the place of each of them, and behind the last."""
    for i in range(len(fds) + 1):
        for name in WRONG:
            yield (*fds[:i], name, *fds[i + 1 :])


def test_any_descriptor_missing_is_refused(
    script: list[Packet], descriptors: dict[str, int]
) -> None:
    """Those behind it would be taken for others: that is found, at the latest where it is used."""
    for i, packet in enumerate(script):
        for fds in without_one(packet.fds):
            check_refused([*script[:i], replace(packet, fds=fds), *script[i + 1 :]], descriptors)


def test_any_wrong_descriptor_is_refused(
    script: list[Packet], descriptors: dict[str, int]
) -> None:
    """Whatever the packet, and wherever among its descriptors it is."""
    for i, packet in enumerate(script):
        for fds in with_a_wrong_one(packet.fds):
            check_refused([*script[:i], replace(packet, fds=fds), *script[i + 1 :]], descriptors)
