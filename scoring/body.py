"""A request's body, read within limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from scoring.asgi import Receive
from scoring.errors import BodyTooLarge, TooSlow


class ClientLeft(Exception):
    """The client closed the connection before its body was whole."""


class Body:
    """Reads at most `limit` bytes, within `timeout` seconds in all."""

    def __init__(
        self, receive: Receive, headers: Mapping[bytes, bytes], limit: int, timeout: float
    ) -> None:
        self._receive = receive
        self._limit = limit
        self._timeout = timeout
        self._length = int(headers.get(b"content-length", b"0"))
        self._expects_continue = headers.get(b"expect", b"").lower() == b"100-continue"
        self.complete = self._length == 0 and b"transfer-encoding" not in headers

    async def read(self) -> bytes:
        """The whole body. Raises BodyTooLarge as soon as that is known, TooSlow, ClientLeft."""
        if self._length > self._limit:
            raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._timeout):
                while not self.complete:
                    chunk = await self._next()
                    size += len(chunk)
                    if size > self._limit:
                        raise self._too_large()
                    chunks.append(chunk)
        except TimeoutError:
            raise TooSlow(f"the body did not arrive within {self._timeout:g} s") from None
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def discard(self) -> None:
        """Read on and forget, for a client that sends all before it looks for an answer.

        Closing at once would reset the connection, and the client would never see the answer.
        """
        if self._expects_continue:
            return
        try:
            async with asyncio.timeout(self._timeout):
                while not self.complete:
                    await self._next()
        except (TimeoutError, ClientLeft):
            pass

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        self.complete = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"the body is larger than {self._limit} bytes")
