"""What a step made, and its record: ``<store>/<step>/<key>/``, content-addressed.

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
import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

from layerflow import uses
from layerflow.checksums import digests, sha256
from layerflow.errors import DamagedError
from layerflow.parts import PARTS, parts_of
from layerflow.records import Record
from layerflow.store import folder_of, is_below, locked, path, root, sync, sync_entry

log = logging.getLogger(__name__)


R = TypeVar("R", bound=Record)
#: Written beside a step's files, and not part of them.
RECORD, _RESULT = "record.json", "result.json"
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
#: Files whose digest was right in this process, by path, with what ``stat`` said then.
_checked: dict[Path, tuple[int, int, str]] = {}


def make(
    step: str,
    key: str,
    kind: type[R],
    build: Callable[[Path], R],
    inputs: dict[str, Any] | None = None,
    anew: bool = False,
) -> R:
    """Return the record of ``step`` with ``key``, building its artifact unless it is already there.

    Args:
        step: Name of the step, the folder's name.
        key: Digest of all that the artifact depends on.
        kind: Class of the record.
        build: Fills the empty folder that it is given, and returns the record.
        inputs: What ``key`` is the digest of, for ``step_inputs.nearest`` to compare with.
        anew: Whether to build it even so, and to put it in the place of what is there.
    """
    final = folder_of(step, key)
    work = final.with_name(f".{key}.working")
    uses.note(root(), f"{step}/{key}")
    with locked(f"{step}-{key}"):
        if (found := _sound(final, kind)) is not None and not anew:
            return found
        shutil.rmtree(work, ignore_errors=True)  # what a dead run left
        work.mkdir(parents=True)
        try:
            record = build(work).model_copy(update={"folder": f"{step}/{key}"})
            content = {
                "kind": _name_of(record),
                "record": record.model_dump(mode="json"),
                "inputs": json.loads(json.dumps(inputs)),
                "files": digests(work),
            }
            (work / RECORD).write_text(json.dumps(content | {"digest": _digest(content)}, indent=2))
            sync(work)
        except BaseException:  # a full disk above all: nobody reads what is half done
            shutil.rmtree(work, ignore_errors=True)
            raise
        replaced = final.with_name(f".{key}.replaced")
        if found:
            final.rename(replaced)
        work.rename(final)
        sync_entry(final.parent)
        shutil.rmtree(replaced, ignore_errors=True)
        return record


def find(step: str, key: str, kind: type[R]) -> R | None:
    """The record of ``step`` with ``key``, if Prefect's is beside it and agrees.

    Checks the record and no other file. A damaged record is not found; ``make``, which holds the lock, sets it aside.
    """
    folder = folder_of(step, key)
    if not (folder / _RESULT).exists():
        return None
    uses.note(root(), f"{step}/{key}")
    record = record_in(folder, kind)
    return record if record is not None and _keep_if_agreed(folder / _RESULT, record) else None


def record_in(folder: Path, kind: type[R]) -> R | None:
    """The record of an artifact, for those who only look: it is checked, and no other file."""
    try:
        return _read(folder, kind)[0]
    except _UNREADABLE:
        return None


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


def are_sound(folder: Path, names: Collection[str] = ()) -> bool:
    """Whether these files of an artifact, by default all of its own, are as stored, for those who only look.

    It is noted as used by nobody. A damaged one is set aside.
    """
    try:
        files = _read(folder, Record)[1]
        if wrong := next((name for name in names or files if not _has_digest(folder / name, files[name])), None):
            log.warning("%s", _set_aside(folder, wrong))
    except _UNREADABLE:  # it was collected, or is set aside by whoever needs it
        return False
    return wrong is None


def check(folder: Path, kind: type[Record] = Record) -> Record:
    """Compare the record and every file of an artifact and of its parts with their digests, and return the record.

    Prefect's record is removed where it doesn't agree with ours: the step's task then runs, and finds ours.

    Raises:
        FileNotFoundError: If there is no such artifact.
        DamagedError: If a file is missing or changed; the artifact was then set aside, so that it is made again.
        OSError: If a file can't be read just now; the artifact stays.
    """
    record = _check_alone(folder, kind)
    try:
        parts = parts_of(folder)
    except _UNREADABLE:
        raise _set_aside(folder, PARTS) from None
    for part in parts:
        try:
            _check_alone(path(part), Record)
        except (FileNotFoundError, DamagedError) as error:
            log.warning("%s", error)
            raise _set_aside(folder, part) from None
    _keep_if_agreed(folder / _RESULT, record)
    return record


def _check_alone(folder: Path, kind: type[Record]) -> Record:
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    uses.note(root(), f"{folder.parent.name}/{folder.name}")
    try:
        record, files = _read(folder, kind)
    except _UNREADABLE:
        raise _set_aside(folder, RECORD) from None
    for name, digest in files.items():
        if not _has_digest(folder / name, digest):
            raise _set_aside(folder, name)
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
            f"The record of {folder} that a step was given must be the one in its {RECORD}. It is another; re-run "
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
    content = _parse((folder / RECORD).read_bytes())
    digest = content.pop("digest")
    kinds = {_name_of(each): each for each in Record.__subclasses__()}
    record, files = kinds[content["kind"]].model_validate(content["record"]), content["files"]
    if not isinstance(record, kind):
        raise TypeError(kind)
    right = (
        content.keys() | {"inputs"} == {"kind", "record", "inputs", "files"}  # an earlier layerflow kept no inputs
        and digest == _digest(content)
        and record.folder == f"{folder.parent.name}/{folder.name}"
        and all(is_below(name) for name in files)
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
        log.warning("%s does not agree with %s beside it; it was removed", result, RECORD)
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
    """SHA-256 of the JSON of a value: equal values have equal digests, NaN too."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _name_of(record: Record | type[Record]) -> str:
    kind = record if isinstance(record, type) else type(record)
    return f"{kind.__module__}.{kind.__qualname__}"


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
