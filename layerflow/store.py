"""One folder, content-addressed: ``<store>/<step>/<key>/`` holds what a step made.

A step writes into a hidden sibling, which is fsynced and renamed: a folder that exists is complete. Beside the
step's files lie ``record.json`` (the step's record and the SHA-256 of each file) and ``result.json`` (Prefect's
own record of the task's result), so that deleting the folder makes the step run again.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import BaseFileLock, FileLock, Timeout

from layerflow.errors import DamagedError, StoreError
from layerflow.records import Record

R = TypeVar("R", bound=Record)
log = logging.getLogger(__name__)

#: Written beside a step's files, and not part of them.
_RECORD, _RESULT = "record.json", "result.json"
#: Seconds after which a checkpoint is of no use: a training that nobody continued in thirty days.
_FORGET_SECONDS = 30 * 24 * 3600
#: Files whose digest was right in this process, by path, with what ``stat`` said then.
_checked: dict[Path, tuple[int, int, str]] = {}


def root() -> Path:
    """The store in force, absolute: ``LAYERFLOW_STORE``, or ``./store``."""
    return Path(os.environ.get("LAYERFLOW_STORE") or "store").expanduser().absolute()


def path(relative: str) -> Path:
    """The absolute path of what a record names."""
    return root() / relative


def folder_of(step: str, key: str) -> Path:
    """Where the artifact of ``step`` with ``key`` is, or will be."""
    return root() / step / key


def ensure_writable() -> None:
    """Make the store's folder, or say in one sentence why it can't be written.

    Raises:
        StoreError: If the folder can't be made or a file in it can't be written.
    """
    probe = root() / f".writable-{os.getpid()}"
    try:
        root().mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise StoreError(
            f"The store {root()} must be a folder that can be written; the system says: {error.strerror}. "
            "Set LAYERFLOW_STORE to one that can."
        ) from error


def sha256(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below ``folder``, by POSIX path relative to it, in order of path."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): sha256(file) for file in files}


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


def write_atomically(file: Path, content: bytes) -> None:
    """Write ``file`` whole or not at all, and durably: sibling, fsync, rename, fsync of the folder.

    The caller holds a lock that keeps other writers of ``file`` away; a sibling that is there is a dead one's.
    """
    sibling = file.with_name(f".{file.name}.partial")
    try:
        with sibling.open("wb") as stream:
            stream.write(content)
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
    file.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(file)


def sweep() -> None:
    """Remove what dead runs left half done, and checkpoints that nobody came back to; what is being made stays."""
    for work in root().glob("*/.*.working"):
        step, key = work.parent.name, work.name.removeprefix(".").removesuffix(".working")
        with locked_if_free(f"{step}-{key}") as free:
            if free:
                shutil.rmtree(work, ignore_errors=True)
    for checkpoint in root().glob("checkpoints/*"):
        with locked_if_free(f"training-{checkpoint.name}") as free:
            if free and time.time() - checkpoint.stat().st_mtime > _FORGET_SECONDS:
                shutil.rmtree(checkpoint, ignore_errors=True)


def make(step: str, key: str, kind: type[R], build: Callable[[Path], R]) -> R:
    """Return the record of ``step`` with ``key``, building its artifact unless it is already there.

    Args:
        step: Name of the step, the folder's name.
        key: Digest of all that the artifact depends on.
        kind: Class of the record.
        build: Fills the empty folder that it is given, and returns the record.
    """
    final = folder_of(step, key)
    work = final.with_name(f".{key}.working")
    with locked(f"{step}-{key}"):
        if sound(final):
            return kind.model_validate(_read_record(final)["record"])
        shutil.rmtree(work, ignore_errors=True)  # what a dead run left
        work.mkdir(parents=True)
        try:
            record = build(work).model_copy(update={"folder": f"{step}/{key}"})
            content = {"record": record.model_dump(mode="json"), "files": digests(work)}
            (work / _RECORD).write_text(json.dumps(content, indent=2))
            sync(work)
        except BaseException:  # a full disk above all: nobody reads what is half done
            shutil.rmtree(work, ignore_errors=True)
            raise
        work.rename(final)
        sync_entry(final.parent)
        return record


def find(step: str, key: str, kind: type[R]) -> R | None:
    """The record of ``step`` with ``key`` and Prefect's beside it, if both are there; checks no digest."""
    folder = folder_of(step, key)
    if not (folder / _RESULT).exists() or not (folder / _RECORD).exists():
        return None
    return kind.model_validate(_read_record(folder)["record"])


def sound(folder: Path) -> bool:
    """Whether ``folder`` holds an artifact whose every byte is as stored; a damaged one is set aside."""
    try:
        check(folder)
    except FileNotFoundError:
        return False
    except DamagedError as error:
        log.warning("%s", error)
        return False
    return True


def check(folder: Path) -> None:
    """Compare every file of an artifact with its digest.

    Raises:
        FileNotFoundError: If there is no such artifact.
        DamagedError: If a file is missing or changed; the artifact was then set aside, so that it is made again.
    """
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    try:
        files = _read_record(folder)["files"]
        wrong = [name for name, digest in files.items() if not _has_digest(folder / name, digest)]
    except (OSError, ValueError, KeyError):
        wrong = [_RECORD]
    if (folder / _RESULT).exists() and not _is_json(folder / _RESULT):
        (folder / _RESULT).unlink()  # Prefect's record was cut off in the writing; ours is whole
    if wrong:
        aside = folder.with_name(f".damaged-{folder.name}-{time.time_ns()}")
        folder.rename(aside)
        raise DamagedError(
            f"{wrong[0]} in {folder} is not as it was stored; the folder was set aside as {aside.name}, "
            "and the next run makes it again."
        )


def _has_digest(file: Path, digest: str) -> bool:
    """Whether ``file`` has this digest; an unchanged file is read once a process."""
    try:
        stat = file.stat()
    except FileNotFoundError:
        return False
    seen = (stat.st_size, stat.st_mtime_ns, digest)
    if _checked.get(file) == seen:
        return True
    if sha256(file) != digest:
        return False
    _checked[file] = seen
    return True


def _read_record(folder: Path) -> dict[str, dict[str, str]]:
    return json.loads((folder / _RECORD).read_text())


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text())
    except ValueError:
        return False
    return True
