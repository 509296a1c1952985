"""What the library of a channel does when who serves it has been replaced: it says it again."""

from __future__ import annotations

import asyncio
import os
import socket
import struct

import pytest

from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.kernel.channel import UNKNOWN, Api, Offer, Type, request
from tests.engine.bed import Bed, at, negotiate
from tests.support.victim import Victim

OP = struct.Struct("=3Q")  # struct lpd_op
MESSAGE = struct.Struct("=2Q")  # struct lpd_v2_message
WAKE, COPY, READ = 2, 3, 16  # enum lpd_op_kind
FORK, REMAP, REMOVE, UNMAP, ARGUMENT = range(2, 7)  # enum lpd_v2_type
EVERYTHING = OP.pack(WAKE, 0, 1 << 47)
NR_PAGES = 64
SIZE = 16 * PAGE_SIZE


async def told(channel: socket.socket) -> list[tuple[int, int]]:
    """Return the messages of the next packet."""
    packet = await asyncio.to_thread(channel.recv, 4096)
    return list(MESSAGE.iter_unpack(packet))


def read(number: int) -> bytes:
    """Return what says that the event of a number has been read."""
    return OP.pack(READ, number, 0)


async def told_again(
    channel: socket.socket, victim: Victim, command: str, *args: int
) -> list[tuple[int, int]]:
    """Let the process change its mappings, and say that twice; return how it said it."""
    doing = asyncio.create_task(victim.do(command, *args))
    packet = await told(channel)
    number = packet[-1][1]
    # Of an earlier event and of none, which are not waited for.
    channel.send(read(number - 1))
    channel.send(EVERYTHING)
    assert await told(channel) == packet
    channel.send(read(number))
    assert await doing == 0
    return packet


async def test_event_is_told_again_under_its_number(bed: Bed) -> None:
    """A WAKE before its READ has come brings the same packet once more, and no READ but its own
    lets the process go on."""
    victim, channel = bed.channel((0, NR_PAGES))
    changes = [
        ("chdiscard", (at(0), SIZE), [(REMOVE, at(0)), (ARGUMENT, at(16))]),
        ("chmunmap", (at(16), SIZE), [(UNMAP, at(16)), (ARGUMENT, at(32))]),
        (
            "chmremap",
            (at(32), SIZE, at(1000)),
            [(REMAP, at(32)), (ARGUMENT, at(1000)), (ARGUMENT, SIZE)],
        ),
    ]
    for number, (command, args, event) in enumerate(changes, 1):
        packet = await told_again(channel, victim, command, *args)
        assert packet == [*event, (ARGUMENT, number)]


async def test_fork_is_told_again_with_its_descriptor(bed: Bed) -> None:
    """The child's channel comes each time; the child has numbers of its own."""
    victim, channel = bed.channel((0, NR_PAGES))
    await told_again(channel, victim, "chdiscard", at(0), SIZE)
    forking = asyncio.create_task(victim.fork())
    packets = []
    for _ in range(2):
        packet, fds, _, _ = await asyncio.to_thread(socket.recv_fds, channel, 4096, 2)
        packets.append((list(MESSAGE.iter_unpack(packet)), os.fstat(fds[0]).st_ino))
        if len(packets) == 1:
            os.close(fds[0])
            channel.send(EVERYTHING)
    assert packets[0] == packets[1]
    assert packets[0][0] == [(FORK, 0), (ARGUMENT, 2)]
    channel.send(read(2))
    child = await forking
    with socket.socket(fileno=fds[0]) as of_child:
        first = await told_again(of_child, child, "chdiscard", at(16), SIZE)
        assert first[-1] == (ARGUMENT, 1)


async def test_wake_while_nothing_is_told_repeats_nothing(bed: Bed) -> None:
    """An event that has been read is told no more."""
    victim, channel = bed.channel((0, NR_PAGES))
    await told_again(channel, victim, "chdiscard", at(0), SIZE)
    channel.send(EVERYTHING)
    packet = await told_again(channel, victim, "chdiscard", at(16), SIZE)
    assert packet[-1] == (ARGUMENT, 2)


@pytest.mark.parametrize("api", list(Api))
async def test_exchange_is_answered_again(bed: Bed, api: Api) -> None:
    """A daemon that does not know what its predecessor has been answered asks once more, and is
    told the same; of anything else nothing is understood any more."""
    victim, channel = bed.channel((0, NR_PAGES), api=api)
    types = negotiate(channel, api)
    assert types == (sum(Type) if api is Api.V2 else Type.PAGEFAULT)
    other = Api.V1 if api is Api.V2 else Api.V2
    channel.send(request(other).pack())
    assert Offer.parse(channel.recv(64)) == UNKNOWN
    victim.begin_reading(at(3))
    assert (await asyncio.to_thread(channel.recv, 4096))[-8:]
    channel.send(OP.pack(COPY, at(0), SIZE) + b"x" * SIZE)
    assert await victim.end_reading() == b"x" * PAGE_SIZE
