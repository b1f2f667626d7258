"""How many requests are read and computed at once, and what of them is held."""

import asyncio
import os
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

T = TypeVar("T")
#: Requests that compute at once: one per processor, of which TensorFlow uses all for one. So many may wait.
_AT_ONCE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_MOST = 64
#: Bytes of a request, and of all that are held; seconds in which a body must arrive.
_MOST_BYTES, _MOST_HELD, _SECONDS = 32 * 2**20, 2**30, 30
_LATER = {"Retry-After": "1"}


class Turns:
    """Reads bodies, holds them up to a limit, and lets one request per processor compute."""

    def __init__(self) -> None:
        self._held = self._waiting = 0
        self._threads = anyio.CapacityLimiter(_AT_ONCE)

    @asynccontextmanager
    async def body_of(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request, unpacked, which counts as held until the answer is there.

        Raises:
            HTTPException: 408, if it takes too long; 413, if it is too large; 415, if it is packed in an unknown way;
                503, if too much is held.
        """
        packing = request.headers.get("content-encoding", "identity").lower()
        if packing not in ("identity", "gzip"):
            raise HTTPException(415, "A body must come as it is, or packed by gzip.")
        content = bytearray()
        try:
            await self._read(request, content)
            yield _unpacked(content) if packing == "gzip" else bytes(content)
        finally:
            self._held -= len(content)

    async def _read(self, request: Request, content: bytearray) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                async for part in request.stream():
                    content += part
                    self._held += len(part)
                    if len(content) > _MOST_BYTES:
                        raise _too_large()
                    if self._held > _MOST_HELD:
                        raise HTTPException(503, "Too many large requests arrive; ask again later.", _LATER)
        except TimeoutError:
            raise HTTPException(408, f"The body must arrive within {_SECONDS} seconds. It did not.") from None
        except ClientDisconnect:
            raise HTTPException(400, "The body must arrive. The client has gone.") from None

    async def take(self, work: Callable[[], T]) -> T:
        """Compute in a thread, once it is this request's turn.

        Raises:
            HTTPException: 503, if too many wait.
        """
        if self._waiting >= _MOST:
            raise HTTPException(503, f"{_MOST} requests are waiting; ask again later.", _LATER)
        self._waiting += 1
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._threads)
        finally:
            self._waiting -= 1


def _too_large() -> HTTPException:
    return HTTPException(413, f"A request must have at most {_MOST_BYTES:,} bytes; send fewer images.")


def _unpacked(content: bytearray) -> bytes:
    unpacking = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        body = unpacking.decompress(content, _MOST_BYTES)
    except zlib.error as error:
        raise HTTPException(400, f"The body must be packed by gzip. It is not: {error}.") from None
    if unpacking.unconsumed_tail:
        raise _too_large()
    return body
