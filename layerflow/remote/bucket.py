"""The bucket that ``LAYERFLOW_REMOTE`` names: objects are read, written, created if absent, and compared and swapped.

obstore is imported when a bucket is opened, and never without ``LAYERFLOW_REMOTE``.
"""

import functools
import hashlib
import importlib.util
import logging
import os
import random
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from layerflow import store
from layerflow.errors import ConfigError, UnreachableError, printed
from layerflow.remote.address import checked, opened
from layerflow.remote.causes import cause_of

log = logging.getLogger(__name__)

T = TypeVar("T")
#: Seconds before each further try of a request: an endpoint that stumbles is back by then. One that is away is asked
#: again at the next step.
RETRY_DELAYS = (1.0, 3.0)
#: Bytes that one request downloads or uploads.
_CHUNK = 8 * 2**20
#: The largest object that is read into memory: a receipt with 100,000 classes has 20 MB.
_MOST_BYTES = 64 * 2**20
#: Which state of an object something is: an ETag, and a version in some stores.
Tag = dict[str, str]


class Found(NamedTuple):
    """An object that was read."""

    content: bytes
    tag: Tag


def in_force() -> "Bucket | None":
    """The bucket that ``LAYERFLOW_REMOTE`` names, or nothing where it is not set.

    Raises:
        ConfigError: If it is no address of a bucket, or obstore is not installed.
    """
    address = os.environ.get("LAYERFLOW_REMOTE")
    return _opened(address.rstrip("/")) if address else None


@functools.cache
def _opened(address: str) -> "Bucket":
    return Bucket(address)


def forget() -> None:
    """Open the bucket anew the next time, with what the environment says then."""
    _opened.cache_clear()


os.register_at_fork(after_in_child=forget)


class Bucket:
    """A bucket, or the part of it below a prefix.

    Args:
        address: Such as ``s3://bucket/prefix``.

    Raises:
        ConfigError: If it is no address of a bucket, or obstore is not installed.
    """

    def __init__(self, address: str) -> None:
        self.address = checked(address)
        if importlib.util.find_spec("obstore") is None:
            raise ConfigError(
                f"LAYERFLOW_REMOTE {self.address} needs obstore, which is not installed; install it with "
                "`pip install 'layerflow[cloud]'`, or in a clone with `make cloud`."
            )
        import obstore
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        self._api, self._store = obstore, opened(self.address)
        self._errors, self._conflicts = (BaseError, OSError), (AlreadyExistsError, PreconditionError)
        parts = urlsplit(self.address)
        self._folder = Path(unquote(parts.path)) if parts.scheme == "file" else None

    @property
    def state(self) -> Path:
        """The folder of what the store in force knows of the bucket."""
        return store.root() / ".remote" / hashlib.sha256(self.address.encode()).hexdigest()[:12]

    def get(self, path: str) -> Found | None:
        """An object, or nothing if it isn't there."""

        def read() -> Found:
            found = self._api.get(self._store, path)
            if found.meta["size"] > _MOST_BYTES:
                raise _TooLargeError
            return Found(bytes(found.bytes()), _tag(found.meta))

        return self._tried("read", path, read, missing=None)

    def size(self, path: str) -> int | None:
        """Bytes of an object, or nothing if it isn't there."""
        return self._tried("read", path, lambda: self._api.head(self._store, path)["size"], missing=None)

    def put(self, path: str, content: bytes) -> None:
        """Write an object, whatever is there."""
        self._tried("write", path, lambda: self._api.put(self._store, path, content))

    def upload(self, file: Path, path: str) -> None:
        """Write a file as an object, in parts where it is large. The object appears whole or not at all."""
        self._tried("write", path, lambda: self._api.put(self._store, path, file, chunk_size=_CHUNK, max_concurrency=4))

    def download(self, path: str, file: Path) -> bool:
        """Write an object to a file, in requests of a bounded size. Says whether it was there."""
        if (size := self.size(path)) is None:
            return False
        with file.open("wb") as stream:
            for start in range(0, size, _CHUNK):
                end = min(start + _CHUNK, size)
                request = functools.partial(self._api.get_range, self._store, path, start=start, end=end)
                part = self._tried("read", path, request, missing=None)
                if part is None:
                    return False
                stream.write(part)
        return True

    def create(self, path: str, content: bytes) -> Tag | None:
        """Write an object unless it is there; its tag, or nothing if another is there. ``content`` is the caller's own.

        An object with this very content is the caller's: the answer to an earlier try was lost.
        """
        return self._conditional(path, content, "create")

    def swap(self, path: str, content: bytes, tag: Tag) -> Tag | None:
        """Replace an object that still has this tag; its new tag, or nothing if it was replaced meanwhile."""
        return self._conditional(path, content, tag)

    def names(self, folder: str) -> list[str]:
        """The objects below a folder, in order of name, relative to it."""

        def listed() -> list[str]:
            found = [each["path"] for chunk in self._api.list(self._store, folder) for each in chunk]
            return sorted(path.removeprefix(f"{folder}/") for path in found if path.startswith(f"{folder}/"))

        return self._tried("list", folder, listed, missing=[])

    def folders(self, folder: str) -> list[str]:
        """The folders in a folder, in order of name."""

        def listed() -> list[str]:
            found = self._api.list_with_delimiter(self._store, folder)["common_prefixes"]
            return sorted(path.rpartition("/")[2] for path in found)

        return self._tried("list", folder, listed, missing=[])

    def copy(self, path: str, to: str) -> None:
        """Copy an object inside the bucket."""
        self._tried("write", to, lambda: self._api.copy(self._store, path, to))

    def delete(self, paths: Iterable[str]) -> None:
        """Remove objects, in any order; one that isn't there counts as removed."""
        every = list(paths)
        for some in [[path] for path in every] if self._folder else [every] if every else []:
            self._tried("delete", some[0], functools.partial(self._api.delete, self._store, some), missing=None)

    def _conditional(self, path: str, content: bytes, condition: Any) -> Tag | None:
        def write() -> Tag | None:
            try:
                with self._alone(path):
                    if self._folder is None or condition == "create":
                        return _tag(self._api.put(self._store, path, content, mode=condition))
                    if _tag(self._api.head(self._store, path)) != condition:
                        return None
                    return _tag(self._api.put(self._store, path, content))
            except self._conflicts:
                return None

        if written := self._tried("write", path, write, missing=None):
            return written
        there = self.get(path)
        return there.tag if there and there.content == content else None

    def _alone(self, path: str) -> AbstractContextManager[Any]:
        """A folder can't compare and swap by itself: whoever does holds a lock in it."""
        if self._folder is None:
            return nullcontext()
        locks = self._folder / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        return FileLock(locks / f"{path.replace('/', '-')}.lock")

    def _tried(self, verb: str, path: str, request: Callable[[], T], missing: Any = ...) -> T:
        """Make a request, again after a pause where it failed.

        Args:
            missing: What to return if the object isn't there; default: that is a failure, of a bucket that isn't there.

        Raises:
            UnreachableError: If the last try failed too.
        """
        for delay in (*RETRY_DELAYS, None):
            try:
                return request()
            except FileNotFoundError as error:
                if missing is not ...:
                    return missing
                cause: str = cause_of(error)
            except _TooLargeError:
                cause, delay = f"the object is larger than {_MOST_BYTES:,} bytes", None
            except self._errors as error:
                cause = cause_of(error)
            if delay is None:
                break
            log.debug("%s: %s %s failed: %s", self.address, verb, path, cause)
            time.sleep(delay * random.uniform(0.7, 1.3))
        raise UnreachableError(
            f"The remote {self.address} must let this process {verb} {printed(path)}, and {cause}; {_ADVICE}."
        ) from None


class _TooLargeError(Exception):
    pass


_ADVICE = "check the address, the credentials in the environment, and the bucket's policy, and re-run the command"


def _tag(written: Any) -> Tag:
    return {name: written[name] for name in ("e_tag", "version") if written[name]}
