"""One folder for everything: where it is, and how it is written to and locked."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from filelock import BaseFileLock, FileLock, Timeout

from layerflow.errors import DamagedError, StoreError, printed

log = logging.getLogger(__name__)


def root() -> Path:
    """The store in force, absolute: ``LAYERFLOW_STORE``, or ``./store``.

    Raises:
        StoreError: If it is below the home folder of a user who does not exist.
    """
    place = os.environ.get("LAYERFLOW_STORE") or "store"
    try:
        return Path(place).expanduser().absolute()
    except RuntimeError as error:
        raise StoreError(
            f"LAYERFLOW_STORE must name a folder. {printed(place)} names a user who doesn't exist; set another."
        ) from error


def path(relative: str) -> Path:
    """The absolute path of what a record names.

    Raises:
        DamagedError: If it would be outside the store.
    """
    if not is_below(relative):
        raise DamagedError(
            f"A record must name a path inside the store. Received: {relative[:200]!r}; delete that record's folder, "
            "and the next run makes it again."
        )
    return root() / relative


def folder_of(step: str, key: str) -> Path:
    """Where the artifact of ``step`` with ``key`` is, or will be."""
    return root() / step / key


def ensure_writable() -> None:
    """Make the store's folder, or say in one sentence why it can't be written.

    Raises:
        StoreError: If the folder can't be made, a file in it can't be written, or its path is no text.
    """
    try:
        str(root()).encode()
    except UnicodeEncodeError as error:  # what the server keeps, and what a receipt says, is text
        raise StoreError(
            f"The store's path must be text in UTF-8. {printed(str(root()))} is not; set LAYERFLOW_STORE to another."
        ) from error
    probe = root() / f".writable-{os.getpid()}"
    try:
        root().mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise StoreError(
            f"The store {root()} must be a folder that can be written; received: {error.strerror}. "
            "Set LAYERFLOW_STORE to one that can."
        ) from error


def sync(folder: Path) -> None:
    """Flush every file and folder below ``folder``, and the folder itself, to the disk."""
    for entry in [*folder.rglob("*"), folder]:
        sync_entry(entry)


def sync_entry(entry: Path) -> None:
    """Flush one file, or one folder's list of names, to the disk."""
    handle = os.open(entry, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(file: Path, *parts: bytes) -> None:
    """Write ``file`` whole or not at all, and durably: sibling, fsync, rename, fsync of the folder.

    The caller holds a lock that keeps other writers of ``file`` away; a sibling that is there is a dead one's.
    """
    sibling = file.with_name(f".{file.name}.partial")
    try:
        with sibling.open("wb") as stream:
            stream.writelines(parts)
            stream.flush()
            os.fsync(stream.fileno())
        sibling.replace(file)
    finally:
        sibling.unlink(missing_ok=True)
    sync_entry(file.parent)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the store's lock ``name``; another process waits. The system frees it when its holder dies."""
    with _lock(name):
        yield


@contextmanager
def locked_if_free(name: str) -> Iterator[bool]:
    """Hold the store's lock ``name`` where nobody else does, and say whether it is so."""
    lock = _lock(name)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _lock(name: str) -> BaseFileLock:
    file = root() / ".locks" / f"{name}.lock"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreError(f"{file.parent} must be a folder. It is a file; delete it and re-run the command.") from error
    if file.is_dir():
        raise StoreError(f"{file} must be a lock file. It is a folder; delete it and re-run the command.")
    return FileLock(file)


def remove_leftovers() -> None:
    """Remove what dead runs left half done; what is being made stays."""
    for work in [*root().glob("*/.*.working"), *root().glob("*/.*.replaced")]:
        step, key = work.parent.name, Path(work.name.removeprefix(".")).stem
        with locked_if_free(f"{step}-{key}") as free:
            if free:
                shutil.rmtree(work, ignore_errors=True)


def is_below(relative: str) -> bool:
    """Whether a POSIX path stays inside the folder that it is relative to."""
    return not relative.startswith("/") and ".." not in PurePosixPath(relative).parts and "\0" not in relative
