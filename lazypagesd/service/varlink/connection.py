"""One client's connection: its calls, answered one after the other.

Nothing that a client does or leaves undone costs more than what is bounded here: a call has a
length, and a time to arrive in once it has begun; a reply has a time to be read in.
"""

from __future__ import annotations

import asyncio
import json
import logging
import select
import socket
from collections.abc import Mapping
from contextlib import aclosing
from typing import Generic

from lazypagesd.service.varlink.errors import CallError, invalid_parameter
from lazypagesd.service.varlink.service import Call, Caller, Service

log = logging.getLogger(__name__)

# No call needs a hundredth of it.
MESSAGE_MAX = 1 << 16
# What may wait for the client to read it, before we wait as well.
BUFFER_MAX = 1 << 16
# How long the rest of a call may take, and the client to make room.
PATIENCE_S = 10.0


class NoMessage(Exception):
    """What came is none."""


def decode(message: bytes) -> object:
    """Return what is in a message, or raise NoMessage."""
    try:
        return json.loads(message)
    except (ValueError, RecursionError) as error:
        raise NoMessage(str(error)) from None


class Connection(Generic[Caller]):
    """Owns its socket from open() until serve() has returned."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        service: Service[Caller],
        caller: Caller,
    ) -> None:
        """Use `open`."""
        self._reader = reader
        self._writer = writer
        self._service = service
        self._caller = caller

    @classmethod
    async def open(
        cls, sock: socket.socket, service: Service[Caller], caller: Caller
    ) -> Connection[Caller]:
        """Prepare to answer the calls of *caller* that come by *sock*.  Takes ownership of it."""
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=MESSAGE_MAX)
        writer.transport.set_write_buffer_limits(high=BUFFER_MAX)
        return cls(reader, writer, service, caller)

    async def serve(self) -> None:
        """Answer calls until the client leaves, or does what cannot be answered."""
        try:
            while (message := await self._receive()) is not None:
                await self._answer(decode(message))
            await self._flush()
        except (
            OSError,  # among them TimeoutError
            NoMessage,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
        ) as error:
            log.debug("admin: a client is hung up on: %s", str(error) or type(error).__name__)
        finally:
            # What it has not read by now it will not.
            self._writer.transport.abort()

    async def _flush(self) -> None:
        # Who has no further call may still read the answers to those before, in his time.
        self._writer.close()
        async with asyncio.timeout(PATIENCE_S):
            await self._writer.wait_closed()

    @property
    def _has_left(self) -> bool:
        # A hang-up is what both directions are closed by: who only calls no more still listens.
        poller = select.poll()
        poller.register(self._writer.get_extra_info("socket"), 0)
        return bool(poller.poll(0))

    async def _receive(self) -> bytes | None:
        # Between two calls it may take as long as it likes.
        if not (first := await self._reader.read(1)):
            return None
        if first == b"\0":
            raise NoMessage("an empty message")
        async with asyncio.timeout(PATIENCE_S):
            return first + (await self._reader.readuntil(b"\0"))[:-1]

    async def _answer(self, message: object) -> None:
        call: Call | None = None
        try:
            if not isinstance(message, dict):
                raise invalid_parameter("method")
            call = Call.of(message)
            async with aclosing(self._service.answer(self._caller, call)) as replies:
                async for parameters, continues in replies:
                    if parameters is None:
                        if self._has_left:
                            raise ConnectionResetError("it has left")
                        continue
                    reply: dict[str, object] = {"parameters": parameters}
                    await self._send(call, reply | ({"continues": True} if continues else {}))
        except CallError as error:
            await self._send(call, {"error": error.name, "parameters": error.parameters})

    async def _send(self, call: Call | None, reply: Mapping[str, object]) -> None:
        if call is not None and call.oneway:
            return
        self._writer.write(json.dumps(reply, separators=(",", ":")).encode() + b"\0")
        async with asyncio.timeout(PATIENCE_S):
            await self._writer.drain()
        # Who reads as fast as we write is not to keep everybody else waiting.
        await asyncio.sleep(0)
