"""A channel in place of a userfaultfd: a real process, its library, and the engine between."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lazypagesd.engine.session import End
from lazypagesd.images.mm import PAGE_SIZE
from lazypagesd.kernel.channel import UNKNOWN, Api, Offer, Type, protocol_of, request
from tests.engine.bed import Bed, at, check, check_moved, check_zero, negotiate
from tests.support.image import wrong_pages
from tests.support.victim import DEADLINE_S, Victim

OP = struct.Struct("=3Q")  # struct lpd_op
COPY, READ, END = 3, 16, 17  # enum lpd_op_kind
PAGEFAULT, FORK = 1, 2  # enum lpd_v2_type


def is_sending(pid: int) -> bool:
    """Whether a thread of a process waits for room in a socket."""
    return any(
        path.read_text().startswith("sock_") for path in Path(f"/proc/{pid}/task").glob("*/wchan")
    )


async def unmap(victim: Victim, page: int, nr_pages: int) -> None:
    await victim.do("chmunmap", at(page), nr_pages * PAGE_SIZE)


async def discard(victim: Victim, page: int, nr_pages: int) -> None:
    await victim.do("chdiscard", at(page), nr_pages * PAGE_SIZE)


async def move(victim: Victim, page: int, nr_pages: int, to: int) -> None:
    await victim.do("chmremap", at(page), nr_pages * PAGE_SIZE, at(to))


async def test_process_that_understands_less_is_asked_for_less(bed: Bed) -> None:
    """A request that is not understood is answered with zeros, and the next one is as good as
    the first."""
    victim, channel = bed.channel_to_open()
    for asked in (Offer(0xAC, 0, 0, 0), replace(request(Api.V2), features=0x7F), b"?"):
        channel.send(asked if isinstance(asked, bytes) else asked.pack())
        assert Offer.parse(channel.recv(64)) == UNKNOWN
    assert negotiate(channel, Api.V1) == Type.PAGEFAULT
    assert victim.call("rejoin") == 0


@pytest.mark.parametrize(
    ("requests", "error"), [([], errno.EPIPE), ([Offer(0xAC, 0, 0, 0)], errno.EINVAL)]
)
async def test_channel_that_closes_is_not_opened(
    bed: Bed, requests: list[Offer], error: int
) -> None:
    """A process that waits to be asked is told when nobody is going to, and why."""
    victim, channel = bed.channel_to_open()
    for asked in requests:
        channel.send(asked.pack())
        channel.recv(64)
    channel.close()
    with pytest.raises(OSError) as caught:
        victim.call("rejoin")
    assert caught.value.errno == error


async def test_process_that_executes_another_program_is_gone(bed: Bed) -> None:
    """The channel is not inherited, whatever flags it came with."""
    victim, image = bed.serve_channel([(0, 64)], [(0, 64)])
    await check(victim, image, 0)
    victim.exec()
    await bed.until_ended(bed.session, End.GONE)


async def test_no_fault_is_lost_when_the_socket_is_full(bed: Bed) -> None:
    """More threads than the socket has room for, each at memory of its own, before anybody
    reads: all of them are answered, whatever flags the socket came with."""
    victim, channel = bed.channel((0, 16 * 500))
    await victim.do("begin", at(0), PAGE_SIZE, 500, 16 * PAGE_SIZE)
    await bed.until(lambda: is_sending(victim.pid), "a full socket")
    image = bed.image((0, 16 * 500))
    bed.attach(victim, image, fd=channel.detach(), protocol=protocol_of(Api.V2))
    expected = b"".join(image.page(at(16 * i)) for i in range(500))
    assert wrong_pages(await victim.end_reading(), expected) == []


@pytest.mark.parametrize("api", list(Api))
async def test_every_page_is_right(bed: Bed, api: Api) -> None:
    """Pages of the image and holes between them read right, in no order."""
    victim, image = bed.serve_channel([(0, 200)], [(0, 70), (75, 90)], api=api)
    for page in (199, 0, 73, 164, 165, 69):
        await check(victim, image, page)
    await check(victim, image, 0, 200)


@pytest.mark.parametrize("api", list(Api))
async def test_rest_comes_unasked(bed: Bed, api: Api) -> None:
    """After the release everything is filled, holes are zero, and the process needs nobody."""
    victim, image = bed.serve_channel([(0, 5000)], [(100, 4000)], api=api)
    await check(victim, image, 2000)
    await bed.release()
    await check(victim, image, 0, 5000)
    assert bed.counters.pages_drain > 3000


@pytest.mark.parametrize("api", list(Api))
async def test_threads_that_fault_at_once_all_read_right(bed: Bed, api: Api) -> None:
    """A hundred threads, each with its pages and those of the next, read every byte right, while
    the rest is drained."""
    victim, image = bed.serve_channel([(0, 1616)], [(0, 1616)], api=api)
    await victim.do("begin", at(0), 32 * PAGE_SIZE, 100, 16 * PAGE_SIZE)
    bed.restore.release()
    expected = b"".join(image.bytes(at(16 * i), 32) for i in range(100))
    assert wrong_pages(await victim.end_reading(), expected) == []
    await bed.release()
    await check(victim, image, 0, 1616)


async def test_threads_at_one_page_all_get_it(bed: Bed) -> None:
    """Sixty-four threads that touch one page ask for it once."""
    victim, image = bed.serve_channel([(0, 16)], [(0, 16)])
    await victim.do("begin", at(3), PAGE_SIZE, 64, 0)
    assert wrong_pages(await victim.end_reading(), 64 * image.page(at(3))) == []
    await bed.until_counted(faults=16, nr_missing=0)


async def test_write_lands_on_top_of_the_page(bed: Bed) -> None:
    """A page that is first written to has the image's bytes beside what was written, and no other
    fill takes that away."""
    victim, image = bed.serve_channel([(0, 64)], [(0, 64)])
    await victim.do("write", at(1) + 100, 10, 0xAB)
    await bed.release()
    expected = bytearray(image.bytes(at(0), 64))
    expected[PAGE_SIZE + 100 : PAGE_SIZE + 110] = b"\xab" * 10
    assert wrong_pages(await victim.read(at(0), 64), bytes(expected)) == []


async def test_mappings_stay_few(bed: Bed) -> None:
    """Pages touched here and there make no mapping each, and none is left when all have come."""
    victim, image = bed.serve_channel([(0, 4096)], [(0, 4096)])
    before = await victim.do("mappings")
    for page in range(0, 4096, 64):
        await check(victim, image, page)
    assert await victim.do("mappings") - before <= 4 * 4096 // 64
    await bed.release()
    await check(victim, image, 0, 4096)
    assert await victim.do("mappings") - before <= 4


async def test_child_and_parent_read_their_own(bed: Bed) -> None:
    """After a fork both get what they miss, each from its own session, and what either writes or
    gives up is its own."""
    victim, image = bed.serve_channel([(0, 128)], [(0, 128)])
    await check(victim, image, 0, 16)
    await victim.write(at(0), 0x11)
    child = await victim.fork()
    await victim.write(at(1), 0x22)
    await child.write(at(64), 0x33)
    await discard(victim, 96, 8)
    assert await child.read(at(0)) == b"\x11" * PAGE_SIZE
    await bed.release()
    assert len(bed.restore.sessions) == 2
    await check(child, image, 1, 63)
    await check(child, image, 65, 63)
    await check(victim, image, 2, 94)
    await check_zero(victim, 96, 8)
    await check(victim, image, 104, 24)


async def test_forks_while_threads_fault_and_the_rest_is_drained(bed: Bed) -> None:
    """Children, and a child's child, that are forked in the midst of it all are right."""
    victim, image = bed.serve_channel([(0, 8192)], [(0, 8192)])
    await victim.do("begin", at(0), 512 * PAGE_SIZE, 8, 1024 * PAGE_SIZE)
    bed.restore.release()
    children = [await victim.fork() for _ in range(3)]
    children.append(await children[0].fork())
    expected = b"".join(image.bytes(at(1024 * i), 512) for i in range(8))
    assert wrong_pages(await victim.end_reading(), expected) == []
    await bed.release()
    for member in (victim, *children):
        await check(member, image, 0, 8192)


async def test_child_of_a_v1_process_dies_rather_than_read_zeros(bed: Bed) -> None:
    """v1 cannot tell of a fork: a child that touches what is missing gets SIGSEGV."""
    victim, image = bed.serve_channel([(0, 64)], [(0, 64)], api=Api.V1)
    child = await victim.fork()
    with pytest.raises(EOFError):
        await child.read(at(0))
    await check(victim, image, 0, 64)


async def test_what_was_given_up_is_zero(bed: Bed) -> None:
    """Discarded pages are zero, whether they were there, half of a neighbourhood, or missing."""
    victim, image = bed.serve_channel([(0, 128)], [(0, 128)])
    await check(victim, image, 0, 16)
    await discard(victim, 8, 16)
    await discard(victim, 64, 16)
    await check_zero(victim, 8, 16)
    await bed.release()
    await check(victim, image, 0, 8)
    await check(victim, image, 24, 40)
    await check_zero(victim, 64, 16)
    await check(victim, image, 80, 48)


async def test_what_was_unmapped_is_not_filled(bed: Bed) -> None:
    """Parts of neighbourhoods that are unmapped keep the others from nothing; what is mapped there
    later is the process's own."""
    victim, image = bed.serve_channel([(0, 128)], [(0, 128)])
    await check(victim, image, 0, 16)
    await unmap(victim, 10, 30)
    await victim.do("mmap", at(10), 30 * PAGE_SIZE)
    await bed.release()
    await check(victim, image, 0, 10)
    await check_zero(victim, 10, 30)
    await check(victim, image, 40, 88)


async def test_what_was_moved_is_filled_where_it_is(bed: Bed) -> None:
    """Pages that are moved, there or missing, are right at the new place; and moved once more, to
    where others were."""
    victim, image = bed.serve_channel([(0, 128)], [(0, 128)])
    await check(victim, image, 0, 16)
    await move(victim, 8, 40, 300)
    await check_moved(victim, image, 303, 20, origin=11)
    await move(victim, 310, 20, 100)
    await bed.release()
    await check(victim, image, 0, 8)
    await check(victim, image, 48, 52)
    await check_moved(victim, image, 300, 10, origin=8)
    await check_moved(victim, image, 100, 20, origin=18)
    await check(victim, image, 120, 8)


async def test_moves_beside_faults_and_drain(bed: Bed) -> None:
    """Pages that keep moving while the rest is drained and touched end up where they belong."""
    victim, image = bed.serve_channel([(0, 4096)], [(0, 4096)])
    bed.restore.release()
    for i in range(40):
        await move(victim, 0, 1024, 10000 + 2000 * (i % 2))
        await move(victim, 10000 + 2000 * (i % 2), 1024, 0)
    await check(victim, image, 0, 4096)
    await bed.release()
    await check(victim, image, 0, 4096)


async def test_v1_cannot_tell_of_a_move(bed: Bed) -> None:
    """Without REMAP a move is refused, and nothing has happened."""
    victim, image = bed.serve_channel([(0, 32)], [(0, 32)], api=Api.V1)
    with pytest.raises(OSError) as caught:
        await move(victim, 0, 16, 100)
    assert caught.value.errno == errno.EOPNOTSUPP
    await check(victim, image, 0, 32)


async def test_system_call_on_missing_memory_fails(bed: Bed) -> None:
    """It gets EFAULT, and no signal; once the memory has been populated, it is done."""
    victim, image = bed.serve_channel([(0, 64)], [(0, 64)])
    with pytest.raises(OSError) as caught:
        await victim.do("syscall", at(20), 2 * PAGE_SIZE)
    assert caught.value.errno == errno.EFAULT
    await victim.do("chpopulate", at(20), 2 * PAGE_SIZE)
    assert await victim.do("syscall", at(20), 2 * PAGE_SIZE) == 2 * PAGE_SIZE
    await check(victim, image, 0, 64)


async def test_fault_that_is_none_of_ours_is_fatal(bed: Bed) -> None:
    """A process that touches what is not mapped dies as it would without a channel."""
    victim, _ = bed.serve_channel([(0, 16)], [(0, 16)])
    with pytest.raises(EOFError):
        await victim.read(at(1000))
    await bed.until_ended(bed.session, End.GONE)


async def test_protection_of_the_process_stays_its_own(bed: Bed) -> None:
    """A write to what has come and was made read-only since is no fault of ours."""
    victim, image = bed.serve_channel([(0, 16)], [(0, 16)])
    await check(victim, image, 0, 16)
    await victim.do("mprotect", at(0), PAGE_SIZE, 1)
    await check(victim, image, 0, 16)
    with pytest.raises(EOFError):
        await victim.write(at(0), 0x11)


async def test_process_without_its_daemon_dies_rather_than_read_zeros(bed: Bed) -> None:
    """When the channel is closed before the end, what has come stays, and what has not is
    SIGSEGV."""
    victim, image = bed.serve_channel([(0, 64)], [(0, 64)])
    await check(victim, image, 0, 16)
    bed.restore.abandon()
    async with asyncio.timeout(10):
        await bed.restore.wait_ended()
    await check(victim, image, 0, 16)
    with pytest.raises(EOFError):
        await victim.read(at(32))


async def test_process_that_is_killed_is_gone(bed: Bed) -> None:
    """The end of the process is seen at once."""
    victim, image = bed.serve_channel([(0, 64)], [(0, 64)])
    await check(victim, image, 0)
    victim.kill()
    await bed.until_ended(bed.session, End.GONE)


async def test_threads_wait_for_a_source_to_be_mended(bed: Bed) -> None:
    """Faults that are held are asked for anew when they are retried, and read right."""
    victim, image = bed.serve_channel([(0, 16)], [(0, 16)])
    content = image.path.read_bytes()
    os.truncate(image.path, 0)
    await victim.do("begin", at(3), PAGE_SIZE, 4, 0)
    await bed.until_counted(held=16)
    image.path.write_bytes(content)
    bed.session.retry()
    assert wrong_pages(await victim.end_reading(), 4 * image.page(at(3))) == []
    await check(victim, image, 0, 16)


async def test_what_was_sent_before_the_end_still_comes(bed: Bed) -> None:
    """A thread that asks for a page when the channel has been closed already, with that page and
    the last word still to be taken from it, gets the page."""
    for _ in range(10):
        victim, channel = bed.channel((0, 128))
        os.kill(victim.pid, signal.SIGSTOP)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        channel.setblocking(False)
        for page in range(64):
            channel.send(OP.pack(COPY, at(page), PAGE_SIZE) + bytes([page]) * PAGE_SIZE)
        channel.send(OP.pack(END, 0, 0))
        channel.close()
        reading = asyncio.create_task(victim.read(at(0), 128))
        os.kill(victim.pid, signal.SIGCONT)
        expected = b"".join(bytes([page]) * PAGE_SIZE for page in range(64))
        assert wrong_pages(await reading, expected + bytes(64 * PAGE_SIZE)) == []


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: os.open("/dev/null", os.O_RDWR), id="file"),
        pytest.param(lambda: socket.socket(type=socket.SOCK_STREAM).detach(), id="stream"),
        pytest.param(
            lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).detach(), id="loose end"
        ),
    ],
)
async def test_child_that_is_no_channel_is_let_go_of(bed: Bed, make: Callable[[], int]) -> None:
    """A process that says that such a descriptor is its child's gets no session for it, and is
    served as before."""
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    image = bed.image((0, 16))
    with theirs:
        theirs.settimeout(DEADLINE_S)
        session = bed.attach_fd(ours.detach(), image, protocol=protocol_of(Api.V2))
        lie = make()
        socket.send_fds(theirs, [struct.pack("=2Q", FORK, 0)], [lie])
        os.close(lie)
        assert OP.unpack(await asyncio.to_thread(theirs.recv, 64))[0] == READ
        theirs.send(struct.pack("=2Q", PAGEFAULT, at(3)))
        packet = await asyncio.to_thread(theirs.recv, 2 * PAGE_SIZE)
        assert packet == OP.pack(COPY, at(3), PAGE_SIZE) + image.page(at(3))
        assert bed.restore.sessions == [session]
    await bed.until_ended(session, End.GONE)
