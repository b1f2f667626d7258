"""Artifacts in the bucket of ``LAYERFLOW_REMOTE``: uploaded when they are finished, found there before a step runs.

``<step>/<key>/record.json`` says that an artifact is there, and is written last. Its files lie beside it, in a folder
named after the record's digest, so that two machines that make the same key at once can't mix their files. The first
record stays.

What this store knows of the bucket is in ``<store>/.remote/<bucket>/``: ``there`` has a mark for each artifact that was
uploaded, ``pending`` one for each that must be, and ``found`` the records of those that are in the bucket and not here.
A step whose record was found is `Cached`. Its files are downloaded when a step reads them.

What comes from a bucket is checked like what comes from a disk. Without ``LAYERFLOW_REMOTE`` nothing is done here.
"""

import contextlib
import hashlib
import json
import logging
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from layerflow import artifacts, store
from layerflow.artifacts import RECORD
from layerflow.errors import DamagedError, UnreachableError
from layerflow.records import Record
from layerflow.remote import bucket as buckets
from layerflow.remote.bucket import Bucket
from layerflow.remote.listed import listed, parts_in

log = logging.getLogger("layerflow")

#: Files that are transferred at a time.
_AT_ONCE = 8
#: Seconds for which a bucket that was away is not asked again: each step would wait for it otherwise.
AWAY_SECONDS = 60
_away_until: dict[str, float] = {}


def is_set() -> bool:
    """Whether there is a bucket.

    Raises:
        ConfigError: If what should name it does not, or obstore is not installed.
    """
    return buckets.in_force() is not None


def find(artifact: str, kind: type[Record]) -> tuple[Record, Path] | None:
    """The record of an artifact that is in the bucket, and the folder in which it now is.

    Args:
        artifact: Such as ``train_model/<key>``.
        kind: Class of the record.
    """
    bucket = buckets.in_force()
    if bucket is None or _is_away(bucket):
        return None
    try:
        found = bucket.get(f"{artifact}/{RECORD}")
    except UnreachableError as error:
        _note_away(bucket, error)
        return None
    if found is None:
        return None
    folder = bucket.state / "found" / artifact
    folder.mkdir(parents=True, exist_ok=True)
    with store.locked(f"found-{artifact.replace('/', '-')}"):
        store.write_atomically(folder / RECORD, found.content)
    if (record := artifacts.record_in(folder, kind)) is None:
        log.warning("%s/%s/%s is no record of this layerflow; the step runs", bucket.address, artifact, RECORD)
        shutil.rmtree(folder, ignore_errors=True)
        return None
    log.info("%s is in %s", artifact.partition("/")[0], bucket.address)
    return record, folder


def bring(artifact: str) -> Path | None:
    """Download an artifact, and those that it consists of, unless they are here.

    Returns:
        Its folder, if it was downloaded.

    Raises:
        DamagedError: If what is in the bucket is not what its record says, twice; the record there was removed then.
        UnreachableError: If the bucket can't be read.
    """
    bucket = buckets.in_force()
    if bucket is None or not re.fullmatch(r"[a-z_]+/[^/.][^/]*", artifact):
        return None
    return _bring(bucket, artifact)


def bring_newest(dataset: str) -> None:
    """Download the version of a dataset that was uploaded last, with its packs: only what is new is read then.

    A failure is a warning: everything is read then.
    """
    bucket = buckets.in_force()
    if bucket is None or _is_away(bucket):
        return
    try:
        found = bucket.get(_newest(dataset))
        named = found.content.decode() if found else ""
        if re.fullmatch(r"load_data/[^/.][^/]*", named):
            _bring(bucket, named)
    except (DamagedError, ValueError) as error:
        log.warning("the newest version of %s in %s can't be used: %s", dataset, bucket.address, error)
    except UnreachableError as error:
        _note_away(bucket, error)


def keep(artifact: str, anew: bool = False) -> None:
    """Upload a finished artifact unless it was, and what could not be uploaded before. A failure is a warning.

    Args:
        anew: Whether it takes the place of the one in the bucket.
    """
    bucket = buckets.in_force()
    if bucket is None or (_mark(bucket, "there", artifact).exists() and not anew):
        return
    pending = _mark(bucket, "pending", artifact)
    pending.parent.mkdir(parents=True, exist_ok=True)
    store.write_atomically(pending, b"anew" if anew else b"")
    flush()


def flush() -> None:
    """Upload what is pending, the oldest first. A bucket that is away is left alone until later."""
    bucket = buckets.in_force()
    if bucket is None or _is_away(bucket):
        return
    for artifact, pending in _pending(bucket):
        try:
            _upload(bucket, artifact, pending.read_bytes() == b"anew")
        except FileNotFoundError:  # it was collected, or another process was quicker
            pending.unlink(missing_ok=True)
        except UnreachableError as error:
            _note_away(bucket, error)
            return
        else:
            there = _mark(bucket, "there", artifact)
            there.parent.mkdir(parents=True, exist_ok=True)
            there.touch()
            pending.unlink(missing_ok=True)


def pending() -> set[str]:
    """The artifacts that must still be uploaded, to whichever bucket."""
    return {"/".join(mark.parts[-2:]) for mark in (store.root() / ".remote").glob("*/pending/*/[!.]*")}


def forget(before: float) -> None:
    """Forget what was noted before a time, in seconds since the epoch. The bucket is asked again; uploads stay due."""
    for entry in (store.root() / ".remote").glob("*/*/*/[!.]*"):
        with contextlib.suppress(FileNotFoundError):  # another process was quicker
            if entry.parts[-3] in ("there", "found") and entry.stat().st_mtime < before:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _pending(bucket: Bucket) -> list[tuple[str, Path]]:
    times = dict[Path, float]()
    for mark in (bucket.state / "pending").glob("*/[!.]*"):
        with contextlib.suppress(FileNotFoundError):  # another process was quicker
            times[mark] = mark.stat().st_mtime
    return [("/".join(mark.parts[-2:]), mark) for mark in sorted(times, key=lambda each: times[each])]


def _upload(bucket: Bucket, artifact: str, anew: bool) -> None:
    """Upload an artifact: the parts that it consists of, its files, and its record last."""
    folder = store.root() / artifact
    content = (folder / RECORD).read_bytes()
    if artifacts.record_in(folder, Record) is None:
        raise FileNotFoundError(folder)
    if parts := parts_in(folder):
        there = {name.partition("/")[0] for name in bucket.names("packs") if name.endswith(f"/{RECORD}")}
        for part in parts:
            if part.rpartition("/")[2] not in there:
                _upload(bucket, part, anew=False)
    if not anew and bucket.size(f"{artifact}/{RECORD}") is not None:
        return
    files, beside = listed(content)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda name: bucket.upload(folder / name, f"{artifact}/{beside}/{name}"), files))
    if anew:
        bucket.put(f"{artifact}/{RECORD}", content)
    else:
        bucket.create(f"{artifact}/{RECORD}", content)
    if artifact.startswith("load_data/"):
        bucket.put(_newest(json.loads(content)["record"]["name"]), artifact.encode())


def _newest(dataset: str) -> str:
    """The object that names the version of a dataset that was uploaded last."""
    return f"newest/{hashlib.sha256(dataset.encode()).hexdigest()[:32]}"


def _bring(bucket: Bucket, artifact: str) -> Path | None:
    final = store.root() / artifact
    if final.is_dir():
        return None
    step, key = artifact.split("/")
    work = final.with_name(f".{key}.working")
    with store.locked(f"{step}-{key}"):
        for last in (False, True):
            if final.is_dir():
                return None
            try:
                _download(bucket, artifact, work / artifact)
            except DamagedError as error:
                shutil.rmtree(work, ignore_errors=True)
                if last:
                    raise _uncommitted(bucket, artifact, error) from error
                continue
            except BaseException:  # a full disk above all: nobody reads what is half done
                shutil.rmtree(work, ignore_errors=True)
                raise
            break
        (work / artifact).rename(final)
        store.sync_entry(final.parent)
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(bucket.state / "found" / artifact, ignore_errors=True)
    there = _mark(bucket, "there", artifact)
    there.parent.mkdir(parents=True, exist_ok=True)
    there.touch()
    log.info("%s was downloaded from %s", artifact, bucket.address)
    return final


def _download(bucket: Bucket, artifact: str, to: Path) -> None:
    """Download an artifact, check every byte, and flush it to the disk.

    Raises:
        DamagedError: If something is missing or not as the record says.
    """
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    found = bucket.get(f"{artifact}/{RECORD}")
    if found is None:
        raise DamagedError(f"{RECORD} is missing")
    (to / RECORD).write_bytes(found.content)
    files, beside = listed(found.content)

    def load(name: str) -> None:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        if not bucket.download(f"{artifact}/{beside}/{name}", to / name):
            raise DamagedError(f"{name} is missing")

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(load, files))
    for part in parts_in(to):
        artifacts.sound(store.path(part))  # a damaged one here is set aside, and says nothing of the bucket
        _bring(bucket, part)
    artifacts.check(to)
    store.sync(to)


def _uncommitted(bucket: Bucket, artifact: str, error: Exception) -> DamagedError:
    """Take a damaged artifact out of the bucket, so that it is made again, and return what to raise."""
    shutil.rmtree(bucket.state / "found" / artifact, ignore_errors=True)
    with contextlib.suppress(UnreachableError):
        bucket.delete([f"{artifact}/{RECORD}"])
    return DamagedError(
        f"{bucket.address}/{artifact} must be as it was uploaded, and {error}; its record was removed there. Re-run "
        "the command, which makes it again."
    )


def _is_away(bucket: Bucket) -> bool:
    return time.monotonic() < _away_until.get(bucket.address, 0)


def _note_away(bucket: Bucket, error: UnreachableError) -> None:
    _away_until[bucket.address] = time.monotonic() + AWAY_SECONDS
    log.warning("%s The run goes on without it, and uploads later.", error)


def _mark(bucket: Bucket, kind: str, artifact: str) -> Path:
    return bucket.state / kind / artifact
