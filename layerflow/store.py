"""One folder, content-addressed: ``<store>/<step>/<key>/`` holds what a step made.

A step writes into a hidden sibling, which is fsynced and renamed: a folder that exists is complete. Beside the
step's files are ``record.json`` (the step's record, the SHA-256 of each file, and a SHA-256 of both) and
``result.json`` (Prefect's own record of the task's result), so that deleting the folder makes the step run again.

Both are checked like any other file: ``record.json`` against its own digest and against what it says about its files,
``result.json`` against ``record.json``. A digest in the same file detects damage and careless edits; it is no
signature.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from filelock import BaseFileLock, FileLock, Timeout

from layerflow.checksums import digests, sha256
from layerflow.errors import DamagedError, StoreError, printed
from layerflow.records import Record

R = TypeVar("R", bound=Record)
log = logging.getLogger(__name__)
#: Written beside a step's files, and not part of them.
_RECORD, _RESULT = "record.json", "result.json"
#: How Prefect writes ``result.json``. It would import what another serializer names, and unpickle with it.
_SERIALIZER = {
    "type": "json",
    "jsonlib": "json",
    "object_encoder": "prefect.serializers.prefect_json_object_encoder",
    "object_decoder": "prefect.serializers.prefect_json_object_decoder",
    "dumps_kwargs": {},
    "loads_kwargs": {},
}
#: What opening a file that isn't there raises. Any other OSError, such as too many open files, says nothing about it.
_NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
#: What reading JSON of any shape can raise.
_UNREADABLE = (*_NO_FILE, ValueError, TypeError, KeyError, AttributeError, RecursionError)
#: Seconds after which a checkpoint is of no use: a training that nobody continued in thirty days.
_FORGET_SECONDS = 30 * 24 * 3600
#: Files whose digest was right in this process, by path, with what ``stat`` said then.
_checked: dict[Path, tuple[int, int, str]] = {}


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
            f"LAYERFLOW_STORE must name a folder. {printed(place)} names the home of nobody; set another."
        ) from error


def path(relative: str) -> Path:
    """The absolute path of what a record names.

    Raises:
        DamagedError: If it would be outside the store.
    """
    if not _is_below(relative):
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
            f"The store {root()} must be a folder that can be written; the system says: {error.strerror}. "
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
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreError(f"{file.parent} must be a folder. It is a file; delete it and re-run the command.") from error
    if file.is_dir():
        raise StoreError(f"{file} must be a lock file. It is a folder; delete it and re-run the command.")
    return FileLock(file)


def sweep() -> None:
    """Remove what dead runs left half done, and checkpoints that nobody came back to; what is being made stays."""
    for work in root().glob("*/.*.working"):
        step, key = work.parent.name, work.name.removeprefix(".").removesuffix(".working")
        with locked_if_free(f"{step}-{key}") as free:
            if free:
                shutil.rmtree(work, ignore_errors=True)
    for checkpoint in root().glob("checkpoints/*"):
        fingerprint = checkpoint.name.partition("-")[0]  # a shorter training has a folder, and no lock, of its own
        with locked_if_free(f"training-{fingerprint}") as free:
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
        if (found := _sound(final, kind)) is not None:
            return found
        shutil.rmtree(work, ignore_errors=True)  # what a dead run left
        work.mkdir(parents=True)
        try:
            record = build(work).model_copy(update={"folder": f"{step}/{key}"})
            content = {"kind": _name_of(record), "record": record.model_dump(mode="json"), "files": digests(work)}
            (work / _RECORD).write_text(json.dumps(content | {"digest": _digest(content)}, indent=2))
            sync(work)
        except BaseException:  # a full disk above all: nobody reads what is half done
            shutil.rmtree(work, ignore_errors=True)
            raise
        work.rename(final)
        sync_entry(final.parent)
        return record


def find(step: str, key: str, kind: type[R]) -> R | None:
    """The record of ``step`` with ``key``, if Prefect's is beside it and agrees.

    Checks the record and no other file. A damaged record is not found; ``make``, which holds the lock, sets it aside.
    """
    folder = folder_of(step, key)
    if not (folder / _RESULT).exists():
        return None
    try:
        record, _ = _read(folder, kind)
    except _UNREADABLE:
        return None
    return record if _keep_if_agreed(folder / _RESULT, record) else None


def sound(folder: Path) -> bool:
    """Whether ``folder`` holds an artifact whose every byte is as stored; a damaged one is set aside."""
    return _sound(folder, Record) is not None


def _sound(folder: Path, kind: type[R]) -> R | None:
    try:
        record = check(folder, kind)
    except FileNotFoundError:
        return None
    except DamagedError as error:
        log.warning("%s", error)
        return None
    assert isinstance(record, kind)
    return record


def check(folder: Path, kind: type[Record] = Record) -> Record:
    """Compare the record and every file of an artifact with their digests, and return the record.

    Prefect's record is removed where it doesn't agree with ours: the step's task then runs, and finds ours.

    Raises:
        FileNotFoundError: If there is no such artifact.
        DamagedError: If a file is missing or changed; the artifact was then set aside, so that it is made again.
        OSError: If a file can't be read just now; the artifact stays.
    """
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    try:
        record, files = _read(folder, kind)
    except _UNREADABLE:
        raise _set_aside(folder, _RECORD) from None
    for name, digest in files.items():
        if not _has_digest(folder / name, digest):
            raise _set_aside(folder, name)
    _keep_if_agreed(folder / _RESULT, record)
    return record


def check_record(record: Record) -> None:
    """``check`` the artifact of ``record``, and that the record is the one that was stored with it.

    Raises:
        DamagedError: If something was changed, or the artifact is gone.
    """
    folder = path(record.folder)
    if not folder.is_dir():
        raise DamagedError(
            f"{folder} must hold what an earlier step made; it is gone. Re-run the command, which makes it again."
        )
    if _digest(check(folder).model_dump(mode="json")) != _digest(record.model_dump(mode="json")):
        (folder / _RESULT).unlink(missing_ok=True)
        raise DamagedError(
            f"The record of {folder} that a step was given must be the one in its {_RECORD}. It is another; re-run "
            "the command, which takes the stored one."
        )


def _set_aside(folder: Path, wrong: str) -> DamagedError:
    """Move a damaged artifact out of the way, and return what to say or raise."""
    aside = folder.with_name(f".damaged-{folder.name}-{time.time_ns()}")
    folder.rename(aside)
    return DamagedError(
        f"{wrong} in {folder} is not as it was stored; the folder was set aside as {aside.name}, "
        "and the next run makes it again."
    )


def _read(folder: Path, kind: type[R]) -> tuple[R, dict[str, str]]:
    """The record in ``folder`` and the digest of each file, where both are what was stored there.

    Raises:
        ValueError: If they are not; or another of ``_UNREADABLE``.
    """
    content = _parse((folder / _RECORD).read_bytes())
    digest = content.pop("digest")
    kinds = {_name_of(each): each for each in Record.__subclasses__()}
    record, files = kinds[content["kind"]].model_validate(content["record"]), content["files"]
    if not isinstance(record, kind):
        raise TypeError(kind)
    right = (
        content.keys() == {"kind", "record", "files"}
        and digest == _digest(content)
        and record.folder == f"{folder.parent.name}/{folder.name}"
        and all(_is_below(name) for name in files)
        and record.matches(files)
    )
    if not right:
        raise ValueError("not as it was stored")
    return record, files


def _keep_if_agreed(result: Path, record: Record) -> bool:
    """Whether Prefect's record of a result is there and is ``record``; one that isn't is removed."""
    if not result.exists():
        return False
    try:
        content = _parse(result.read_bytes())
        value = _parse(content["result"])
        agreed = (
            content.keys() == {"metadata", "result"}
            and content["metadata"]["serializer"] == _SERIALIZER
            and value.keys() == {"__class__", "data"}
            and value["__class__"] == _name_of(record)
            and _digest(value["data"]) == _digest(record.model_dump(mode="json"))
        )
    except _UNREADABLE:
        agreed = False
    if not agreed:
        log.warning("%s does not agree with %s beside it; it was removed", result, _RECORD)
        result.unlink(missing_ok=True)
    return agreed


def _parse(text: str | bytes) -> Any:
    """JSON without a key that is there twice, of which two readers could take different ones."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(content := dict(pairs)) != len(pairs):
            raise ValueError("a key is there twice")
        return content

    return json.loads(text, object_pairs_hook=unique)


def _digest(content: Any) -> str:
    """SHA-256 of the JSON of a value: equal for what is equal, and for what is not a number too."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _name_of(record: Record | type[Record]) -> str:
    kind = record if isinstance(record, type) else type(record)
    return f"{kind.__module__}.{kind.__qualname__}"


def _is_below(relative: str) -> bool:
    """Whether a POSIX path stays inside the folder that it is relative to."""
    return not relative.startswith("/") and ".." not in PurePosixPath(relative).parts and "\0" not in relative


def _has_digest(file: Path, digest: str) -> bool:
    """Whether ``file`` has this digest; an unchanged file is read once a process."""
    try:
        stat = file.stat()
        seen = (stat.st_size, stat.st_mtime_ns, digest)
        if _checked.get(file) == seen:
            return True
        if sha256(file) != digest:
            return False
    except _NO_FILE:
        return False
    _checked[file] = seen
    return True
