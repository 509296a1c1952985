"""GET /metrics, where the configuration says: for a Prometheus that collects by HTTP.

Only of this machine: a unix socket, or the loopback.  Nothing is kept of a connection but its
first request, which has a length and a time to come in.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST

from lazypagesd.service.metrics.address import Address

log = logging.getLogger(__name__)

REQUEST_MAX = 8192
PATIENCE_S = 10.0
CONNECTIONS_MAX = 32


class Exporter:
    """Answers GET /metrics by what *text* returns, from start() to close()."""

    def __init__(self, address: Address, text: Callable[[], Awaitable[str]]) -> None:
        """Prepare to listen at *address*."""
        self._address = address
        self._text = text
        self._server: asyncio.Server | None = None
        self._nr_connections = 0

    async def start(self) -> None:
        """Listen; raises OSError, with the address."""
        address = self._address
        try:
            if address.path is not None:
                # Which removes a socket that was left there, and nothing else.
                self._server = await asyncio.start_unix_server(
                    self._serve, address.path, limit=REQUEST_MAX
                )
            else:
                self._server = await asyncio.start_server(
                    self._serve, address.host, address.port, limit=REQUEST_MAX
                )
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), str(address)) from error

    def close(self) -> None:
        """Listen no more."""
        if self._server is None:
            return
        self._server.close()
        if self._address.path is not None:
            self._address.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._nr_connections += 1
        try:
            if self._nr_connections <= CONNECTIONS_MAX:
                async with asyncio.timeout(PATIENCE_S):
                    await self._answer(await reader.readuntil(b"\r\n\r\n"), writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.debug("metrics: a client is hung up on: %s", str(error) or type(error).__name__)
            # Or it would be kept until it has read what it does not read.
            writer.transport.abort()
        finally:
            self._nr_connections -= 1
            writer.close()

    async def _answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        words = head.split(b"\r\n")[0].split()
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            reply = response("400 Bad Request", "this is no request of HTTP/1\n")
        elif words[0] not in (b"GET", b"HEAD"):
            reply = response("405 Method Not Allowed", "only GET is\n", "Allow: GET, HEAD")
        elif words[1].partition(b"?")[0] != b"/metrics":
            reply = response("404 Not Found", "there is /metrics\n")
        else:
            reply = response("200 OK", await self._text(), f"Content-Type: {CONTENT_TYPE_LATEST}")
        if words and words[0] == b"HEAD":
            reply = reply.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        # All of it is to be gone in time.
        writer.transport.set_write_buffer_limits(0)
        writer.write(reply)
        await writer.drain()


def response(status: str, text: str, *headers: str) -> bytes:
    """Return an answer, after which the connection is closed."""
    body = text.encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body
