"""A lock in a bucket: held by one machine at a time, and free again some time after its holder has died.

No clock is compared with another one. The holder writes the object anew every few seconds. Whoever waits takes it over
once it has not changed for ``SECONDS`` by their own clock. A holder that was suspended finds that the lease is lost.
What it writes then is compared and swapped, so that it can't undo what its successor did.
"""

import json
import logging
import random
import threading
import time
import uuid
from types import TracebackType

from layerflow.errors import UnreachableError
from layerflow.remote.bucket import Bucket, Tag

log = logging.getLogger(__name__)

#: For how long a lease holds that is not renewed: longer than an endpoint takes to recover, short enough to wait for.
SECONDS = 30.0
#: Seconds between two looks at a lease that another machine holds.
_POLL = 0.5


class Lease:
    """The lease ``path`` of a bucket, as a context manager; it waits for its turn.

    Raises:
        UnreachableError: If the bucket can't be reached.
    """

    def __init__(self, bucket: Bucket, path: str) -> None:
        self._bucket, self._path, self._holder = bucket, path, uuid.uuid4().hex
        self._tag: Tag | None = None
        self._until, self._count = 0.0, 0
        self._ended = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True)

    @property
    def is_held(self) -> bool:
        """Whether nobody can have taken it over yet, with a second to spare for a request."""
        return time.monotonic() < self._until - min(1.0, SECONDS / 4)

    def __enter__(self) -> "Lease":
        seen, since, told = None, 0.0, False
        while True:
            found = self._bucket.get(self._path)
            if found is None:
                if self._write(None):
                    break
                continue
            if found.tag != seen:
                seen, since = found.tag, time.monotonic()
            if _holder_of(found.content) is None or time.monotonic() - since >= SECONDS:
                if self._write(found.tag):
                    break
                continue
            if not told:
                log.info("waiting for another machine, which holds %s in %s", self._path, self._bucket.address)
                told = True
            time.sleep(min(_POLL, SECONDS / 4) * random.uniform(0.5, 1))
        self._renewing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._renewing.join()
        if self._tag is not None:
            try:
                self._bucket.swap(self._path, json.dumps({"holder": None, "was": self._holder}).encode(), self._tag)
            except UnreachableError as unreachable:  # it ends by itself
                log.debug("%s", unreachable)

    def _write(self, tag: Tag | None) -> bool:
        """Write the lease as ours, in place of the one with this tag; says whether it was still there."""
        self._count += 1
        content = json.dumps({"holder": self._holder, "renewal": self._count}).encode()
        began = time.monotonic()
        if tag is None:
            written = self._bucket.create(self._path, content)
        else:
            written = self._bucket.swap(self._path, content, tag)
        self._tag, self._until = written, began + SECONDS if written else 0.0
        return written is not None

    def _renew(self) -> None:
        while not self._ended.wait(SECONDS / 4):
            try:
                if not (self._tag and self._write(self._tag)) and not self._recovered():
                    log.warning("%s in %s was taken over by another machine", self._path, self._bucket.address)
                    return
            except UnreachableError as error:
                log.warning("%s", error)

    def _recovered(self) -> bool:
        """Whether the lease is ours all the same: the answer to an earlier renewal was lost."""
        found = self._bucket.get(self._path)
        return found is not None and _holder_of(found.content) == self._holder and self._write(found.tag)


def _holder_of(content: bytes) -> str | None:
    """Who holds a lease; nothing if it was given back. What can't be read counts as held, until it stays unchanged."""
    try:
        holder = json.loads(content)["holder"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return "?"
    return None if holder is None else str(holder)
