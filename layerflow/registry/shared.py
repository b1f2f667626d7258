"""Versions and candidates in the bucket of ``LAYERFLOW_REMOTE``, under the names that they have in the store.

Of each version in the bucket this store keeps the receipt and the list of digests, in
``<store>/.remote/<bucket>/models/<name>/<N>/``. A version is downloaded when its model is read. Without
``LAYERFLOW_REMOTE`` nothing is done here.
"""

import logging
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from layerflow import checksums, store
from layerflow.checksums import DIGESTS
from layerflow.errors import DamagedError, RegistryError, UnreachableError
from layerflow.registry.layout import RECEIPT, SIGNATURE, home, is_version
from layerflow.remote import bucket as buckets
from layerflow.remote.bucket import Bucket

log = logging.getLogger(__name__)

#: What this store keeps of a version that it has not downloaded.
KEPT = (RECEIPT, DIGESTS)
#: The object without which nothing loads a SavedModel: a version is there with it, and is gone without it.
COMMIT = "saved_model.pb"
#: Where a version is uploaded to, out of a server's sight.
STAGING = ".staging-"
_BRINGING = ".bringing-"
#: Files that are transferred at a time.
_AT_ONCE = 8


def place(name: str, number: int) -> Path:
    """The folder of a version, or of what this store keeps of one that it has not downloaded."""
    folder, bucket = home(name) / str(number), buckets.in_force()
    return folder if folder.is_dir() or bucket is None else state(bucket, name) / str(number)


def state(bucket: Bucket, name: str) -> Path:
    """The folder of what this store knows of a model in the bucket."""
    return bucket.state / "models" / name


def names() -> list[str]:
    """The models of which this store knows versions in the bucket."""
    bucket = buckets.in_force()
    found = (bucket.state / "models").glob("[!.]*") if bucket else ()
    return sorted(folder.name for folder in found if folder.is_dir() and folder.name.isprintable())


def known(name: str) -> set[int]:
    """The versions of a model that this store knows to be in the bucket."""
    bucket = buckets.in_force()
    found = state(bucket, name).glob("[!.]*") if bucket else ()
    return {int(folder.name) for folder in found if is_version(folder.name)}


def note(bucket: Bucket, name: str, there: set[int], removed: set[int]) -> None:
    """Take over which versions of a model the bucket has.

    Args:
        there: Those that it has. Of a new one, what is ``KEPT`` is downloaded.
        removed: Those that another machine removed since this store asked last; they are removed here.
    """
    folder = state(bucket, name)
    for number in known(name) - there:
        shutil.rmtree(folder / str(number))
    for number in removed:
        if (gone := home(name) / str(number)).is_dir():
            removing = gone.with_name(f".removing-{number}")
            gone.rename(removing)
            shutil.rmtree(removing)
    for number in sorted(there - known(name)):
        new = folder / f".{number}"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        load_files(bucket, f"models/{name}/{number}", new, KEPT)
        new.rename(folder / str(number))


def require_same_history(bucket: Bucket, name: str, sums: dict[int, str]) -> None:
    """See that the versions in this store, which has not seen the bucket yet, are versions in the bucket.

    Args:
        sums: What the bucket's ledger has of each version: SHA-256 of its list of digests.

    Raises:
        RegistryError: If one is not.
    """
    for folder in home(name).iterdir() if home(name).is_dir() else ():
        if not is_version(folder.name) or not (folder / DIGESTS).is_file():
            continue
        if sums.get(int(folder.name)) != checksums.sha256(folder / DIGESTS):
            raise RegistryError(
                f"{folder} must be a version in {bucket.address}/models/{name}, because a model has one history. "
                f"It is not; move {home(name)} away to use those of the bucket, or set LAYERFLOW_REMOTE to an empty "
                "prefix."
            )


def bring(name: str, number: int) -> None:
    """Download a version, whole or not at all, unless it is here.

    Raises:
        DamagedError: If its files are not those of its list of digests.
        UnreachableError: If the bucket can't be read.
    """
    bucket, final = buckets.in_force(), home(name) / str(number)
    if bucket is None or final.is_dir() or number not in known(name):
        return
    download(bucket, final)
    log.info("version %d of %s was downloaded from %s", number, name, bucket.address)


def download(bucket: Bucket, final: Path) -> None:
    """Download a folder of the store that has a list of digests, and check every byte.

    Raises:
        DamagedError: If its files are not those of its list.
        UnreachableError: If the bucket can't be read.
    """
    source = _path_of(final)
    work = final.with_name(f"{_BRINGING}{final.name}")
    with store.locked(f"bring-{source.replace('/', '-')}"):
        if final.is_dir():
            return
        shutil.rmtree(work, ignore_errors=True)
        try:
            (work / DIGESTS).parent.mkdir(parents=True)
            if not bucket.download(f"{source}/{DIGESTS}", work / DIGESTS):
                raise _is_damaged(bucket, source, f"{DIGESTS} is missing")
            try:
                files = list(checksums.listed(work))
            except (OSError, ValueError):
                raise _is_damaged(bucket, source, f"{DIGESTS} can't be read") from None
            if not all(file and store.is_below(file) and file != DIGESTS for file in files):
                raise _is_damaged(bucket, source, f"{DIGESTS} names files outside of it")
            load_files(bucket, source, work, files)
            if damage := checksums.damage(work):
                raise _is_damaged(bucket, source, damage)
            load_files(bucket, source, work, [SIGNATURE])  # where it is signed; the list can't have it
            store.sync(work)
            work.rename(final)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    store.sync_entry(final.parent)


def load_files(bucket: Bucket, source: str, to: Path, files: Iterable[str]) -> None:
    """Download objects into a folder, those that are there."""

    def load(file: str) -> None:
        (to / file).parent.mkdir(parents=True, exist_ok=True)
        if not bucket.download(f"{source}/{file}", to / file):
            (to / file).unlink(missing_ok=True)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(load, files))


def upload(bucket: Bucket, folder: Path, to: str) -> None:
    """Upload all files of a folder."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda file: bucket.upload(file, f"{to}/{file.relative_to(folder).as_posix()}"), files))


def show(bucket: Bucket, folder: Path, source: str, to: str, ensure: Callable[[], None]) -> None:
    """Copy what was uploaded of a folder to where servers look, its ``COMMIT`` last.

    Args:
        ensure: Called before each step; raises if this machine must not go on.
    """
    files = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    ensure()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda file: bucket.copy(f"{source}/{file}", f"{to}/{file}"), set(files) - {COMMIT}))
    ensure()
    bucket.copy(f"{source}/{COMMIT}", f"{to}/{COMMIT}")
    bucket.delete(f"{source}/{file}" for file in files)


def remove(bucket: Bucket, folder: str) -> None:
    """Remove all objects of a folder, its ``COMMIT`` first: nobody loads what is half removed."""
    files = bucket.names(folder)
    bucket.delete(f"{folder}/{file}" for file in files if file == COMMIT)
    bucket.delete(f"{folder}/{file}" for file in files if file != COMMIT)


def keep_folder(folder: Path) -> None:
    """Upload a folder of the store to where it is in the bucket."""
    if bucket := buckets.in_force():
        upload(bucket, folder, _path_of(folder))


def keep_files(*files: Path) -> None:
    """Upload files that people read later. A failure is a warning: the decision holds without them."""
    if bucket := buckets.in_force():
        try:
            for file in files:
                bucket.upload(file, _path_of(file))
        except UnreachableError as error:
            log.warning("%s The receipt is kept in this store alone.", error)


def bring_files(folder: Path) -> None:
    """Download the files of a folder of receipts, unless it is here."""
    bucket = buckets.in_force()
    if bucket and not folder.is_dir():
        found = [file for file in bucket.names(_path_of(folder)) if store.is_below(file)]
        load_files(bucket, _path_of(folder), folder, found)


def _path_of(place: Path) -> str:
    return place.relative_to(store.root()).as_posix()


def _is_damaged(bucket: Bucket, source: str, damage: str) -> DamagedError:
    return DamagedError(
        f"{bucket.address}/{source} must be as it was published, and {damage}; restore it from an earlier state of the "
        "bucket, or use another version."
    )
