"""How many requests are read and computed at once."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request

T = TypeVar("T")
#: Requests that compute at once: one per processor.
_AT_ONCE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
#: Requests in work or waiting: with bodies of 32 MiB they need 2 GiB at most. Seconds in which a body must arrive.
_MOST, _SECONDS = 64, 30
#: Bytes of a request.
_MOST_BYTES = 32 * 2**20


class Turns:
    """Lets one request per processor compute, and so many wait. TensorFlow itself uses all processors for one."""

    def __init__(self) -> None:
        self._admitted = 0
        self._threads = anyio.CapacityLimiter(_AT_ONCE)

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """Count a request, from before its body is read until its answer is there.

        Raises:
            HTTPException: 503, if there are too many.
        """
        if self._admitted >= _MOST:
            raise HTTPException(503, f"{_MOST} requests are waiting; ask again later.", {"Retry-After": "1"})
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    async def body_of(self, request: Request) -> bytes:
        """The body of a request.

        Raises:
            HTTPException: 408, if it takes too long; 413, if it is too large.
        """
        content = bytearray()
        try:
            async with asyncio.timeout(_SECONDS):
                async for part in request.stream():
                    content += part
                    if len(content) > _MOST_BYTES:
                        raise HTTPException(
                            413, f"A request must have at most {_MOST_BYTES:,} bytes; send fewer images."
                        )
        except TimeoutError:
            raise HTTPException(408, f"The body must arrive within {_SECONDS} seconds. It did not.") from None
        return bytes(content)

    async def take(self, work: Callable[..., T], *arguments: object) -> T:
        """Compute in a thread, once it is this request's turn."""
        return await anyio.to_thread.run_sync(work, *arguments, limiter=self._threads)
