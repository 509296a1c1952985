"""Which messages a channel that was handed over is going to carry: v2's if it can, else v1's."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from lazypagesd.handoff.native import Session
from lazypagesd.handoff.packets import Refused
from lazypagesd.kernel.channel import (
    CLOSED,
    MAPPING_TYPES,
    PACKET_MAX,
    Api,
    Type,
    ask,
    is_message,
    protocol_of,
    refusal,
    understand,
)

# How long a process may take to say what it understands.
ANSWER_TIMEOUT_S = 10.0


async def agree(session: Session) -> int:
    """Return which protocol *session* is to be served with: LPD_PROTOCOL_...

    Raises Refused if the process at the other end of its channel says nothing, or nothing that it
    can be served exactly with.
    """
    return protocol_of(await _api(session.fd, session.channel) if session.channel else None)


async def _api(fd: int, needed: Type) -> Api:
    sock = socket.socket(fileno=fd)
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            api, types = await _exchange(sock)
    except TimeoutError:
        raise _refused([f"no answer to the api exchange within {ANSWER_TIMEOUT_S:g} s"]) from None
    except ConnectionError as error:
        raise _refused([str(refusal(CLOSED).strerror)]) from error
    except OSError as error:
        raise _refused([str(error.strerror)]) from error
    finally:
        sock.detach()
    if reasons := reasons_against(api, needed & ~types):
        raise _refused(reasons)
    return api


def _refused(reasons: list[str]) -> Refused:
    return Refused([f"the channel cannot be served: {reason}" for reason in reasons])


async def _exchange(sock: socket.socket) -> tuple[Api, Type]:
    for api in Api.V2, Api.V1:
        ask(sock, api)
        if types := understand(api, await _answer(sock)):
            return api, types
    raise refusal("the process understands neither v2 nor v1")


# What is said before the answer is said again behind it.
async def _answer(sock: socket.socket) -> bytes:
    while is_message(packet := await _receive(sock)):
        pass
    return packet


async def _receive(sock: socket.socket) -> bytes:
    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sock, readable.set)
    try:
        while True:
            await readable.wait()
            readable.clear()
            # Somebody who has a copy may have taken it.
            with contextlib.suppress(BlockingIOError):
                return sock.recv(PACKET_MAX + 1, socket.MSG_DONTWAIT)
    finally:
        loop.remove_reader(sock)


def reasons_against(api: Api, missing: Type) -> list[str]:
    """Return why a process that can do what *missing* messages tell of cannot do without them."""
    reasons = []
    if Type.FORK in missing:
        reasons.append(f"{api.name} without FORK: say never_forks if the process never does")
    if mappings := missing & MAPPING_TYPES:
        reasons.append(f"{api.name} without {mappings.name}: say never_changes_mappings if so")
    return reasons
