"""Publishing from several machines into the bucket of ``LAYERFLOW_REMOTE``.

The bucket's ledger is the truth, and the store's a copy of it. Whoever changes a model holds a lease on it, takes over
what others did, and does what they would do without a bucket. Three things go to the bucket first: a number is claimed
by an object that only one machine can create; the ledger is compared and swapped; and a version is uploaded out of
sight, and copied to its number once the ledger lists it, ``saved_model.pb`` last. Whatever dies in between, a number
without its ``saved_model.pb`` is not a version, and the next publication removes it.

Without ``LAYERFLOW_REMOTE`` nothing is done here but to hold the store's lock.
"""

import json
import logging
import re
import shutil
import uuid
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path

from layerflow import store
from layerflow.errors import DamagedError, RegistryError, UnreachableError
from layerflow.registry import ledger as ledgers
from layerflow.registry import shared
from layerflow.registry.layout import home, is_version
from layerflow.registry.ledger import LEDGER, Ledger
from layerflow.registry.shared import COMMIT, STAGING, state
from layerflow.remote import bucket as buckets
from layerflow.remote.bucket import Bucket, Tag
from layerflow.remote.lease import Lease

log = logging.getLogger(__name__)

#: The objects that claim numbers. They are never removed: no number is given twice.
_CLAIMS = ".claims"
#: What may be the name of a model; anything else in the bucket is somebody else's.
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_sessions: dict[str, "_Session"] = {}


@contextmanager
def changing(name: str) -> Iterator[None]:
    """Hold the lock of a model, and with a bucket its lease; what others did there is known here then.

    Raises:
        UnreachableError: If the bucket can't be reached; nothing is changed then.
        RegistryError: If the bucket has another history of the model than this store.
    """
    with store.locked(f"models-{name}"):
        bucket = buckets.in_force()
        if bucket is None:
            yield
            return
        with Lease(bucket, f"leases/models-{name}") as lease:
            session = _Session(bucket, name, lease)
            session.begin()
            _sessions[name], ledgers.swaps[name] = session, session.swap
            try:
                yield
            finally:
                del _sessions[name], ledgers.swaps[name]


def refresh(name: str) -> None:
    """Take over what others published of a model, unless somebody changes it just now. A failure is a warning."""
    bucket = buckets.in_force()
    if bucket is None:
        return
    with store.locked_if_free(f"models-{name}") as free:
        try:
            if free:
                _take_over(bucket, name)
        except UnreachableError as error:
            log.warning("%s What this store knows of %s is used.", error, name)


def refresh_all() -> None:
    """``refresh`` all models of the bucket."""
    bucket = buckets.in_force()
    if bucket is None:
        return
    try:
        found = bucket.folders("models")
    except UnreachableError as error:
        log.warning("%s What this store knows of it is used.", error)
        return
    for name in found:
        if re.fullmatch(_NAME, name):
            refresh(name)


def claimed(name: str, number: int) -> int:
    """The first number from ``number`` on that nobody else can get."""
    session = _sessions.get(name)
    while session and not session.claim(number):
        number += 1
    return number


def stage(name: str, number: int, folder: Path) -> None:
    """Upload a version, out of sight of servers."""
    if session := _sessions.get(name):
        shared.upload(session.bucket, folder, f"{session.home}/{STAGING}{number}")


def show(name: str, number: int, folder: Path) -> None:
    """Let the version that was uploaded from a folder appear under its number; the ledger lists it."""
    if session := _sessions.get(name):
        session.show(number, folder)
        session.ensure_last()


def remove(name: str, number: int) -> None:
    """Remove a version from the bucket; the ledger no longer lists it."""
    if session := _sessions.get(name):
        session.ensure_held()
        shared.remove(session.bucket, f"{session.home}/{number}")
        shutil.rmtree(state(session.bucket, name) / str(number), ignore_errors=True)


class _Session:
    """The work of one machine on a model, while it holds the lease."""

    def __init__(self, bucket: Bucket, name: str, lease: Lease) -> None:
        self.bucket, self.name, self.home, self._lease = bucket, name, f"models/{name}", lease
        self._tag: Tag | None = None

    def begin(self) -> None:
        """Take over what others did, and remove what dead machines left half done."""
        while True:
            found = _take_over(self.bucket, self.name)
            if found is None:
                self._seed()
                return
            self._tag, ledger, objects = found
            if self._recover(ledger, objects):
                break
        for each in [ledger.waiting, *(closed.question for closed in ledger.closed)]:
            folder = store.root() / "candidates" / self.name / f"candidate-{each.number if each else 0}"
            if each and not folder.is_dir():
                folder.parent.mkdir(parents=True, exist_ok=True)
                try:
                    shared.download(self.bucket, folder)
                except DamagedError as error:  # the answer reports it
                    log.warning("%s", error)

    def swap(self, content: bytes) -> None:
        """Replace the bucket's ledger by one that follows it.

        Raises:
            UnreachableError: If another machine has replaced it, or may.
        """
        self.ensure_held()
        path, last = f"{self.home}/{LEDGER}", self._tag
        tag = self.bucket.swap(path, content, last) if last else self.bucket.create(path, content)
        if tag is None:
            raise self._was_overtaken()
        self._tag = tag
        known = state(self.bucket, self.name) / LEDGER
        known.parent.mkdir(parents=True, exist_ok=True)
        store.write_atomically(known, content)

    def claim(self, number: int) -> bool:
        """Whether the number is this machine's from now on."""
        content = json.dumps({"claim": uuid.uuid4().hex}).encode()
        return self.bucket.create(f"{self.home}/{_CLAIMS}/{number}", content) is not None

    def show(self, number: int, folder: Path) -> None:
        """Let a version appear that was uploaded from a folder."""
        source, to = f"{self.home}/{STAGING}{number}", f"{self.home}/{number}"
        shared.show(self.bucket, folder, source, to, self.ensure_held)

    def ensure_last(self) -> None:
        """See that the bucket's ledger is the one that this machine wrote last.

        Raises:
            UnreachableError: If it is not: another machine may have taken the new version for a dead one's.
        """
        found = self.bucket.get(f"{self.home}/{LEDGER}")
        if found is None or found.tag != self._tag:
            raise self._was_overtaken()

    def ensure_held(self) -> None:
        """See that nobody else works on the model.

        Raises:
            UnreachableError: If somebody may.
        """
        if not self._lease.is_held:
            raise self._was_overtaken()

    def _was_overtaken(self) -> UnreachableError:
        return UnreachableError(
            f"{self.bucket.address}/{self.home} must stay as it is while this machine publishes, and another one took "
            "over; re-run the command, which decides again."
        )

    def _recover(self, ledger: Ledger, objects: list[str]) -> bool:
        """Remove what dead machines left half published or half removed, unless one of them was not dead after all.

        Returns:
            Whether none was: what it published must be taken over then.
        """
        claims = {file.partition("/")[2] for file in objects if file.startswith(f"{_CLAIMS}/")}
        tops = {file.partition("/")[0] for file in objects}
        for top in sorted(top for top in tops if top.startswith(STAGING)):
            shared.remove(self.bucket, f"{self.home}/{top}")
        if ledger.published is None:
            return True
        torn = {number for number in ledger.published if str(number) in tops and f"{number}/{COMMIT}" not in objects}
        if torn:
            self._write(ledger, ledger.published.keys() - torn)
            # A machine that was suspended may have made it a version meanwhile. From now on it can't: `ensure_last`.
            late = {number for number in torn if self.bucket.size(f"{self.home}/{number}/{COMMIT}") is not None}
            if late:
                self._write(ledger, ledger.published.keys() - torn | late)
                return False
        for top in sorted(top for top in tops if is_version(top)):
            number = int(top)
            if number in torn or (number not in ledger.published and top in claims):
                shared.remove(self.bucket, f"{self.home}/{number}")
        named = [ledger.waiting, *(each.question for each in ledger.closed)]
        needed = {f"candidate-{each.number}" for each in named if each}
        for folder in self.bucket.folders(f"candidates/{self.name}"):
            if folder not in needed:
                shared.remove(self.bucket, f"candidates/{self.name}/{folder}")
        return True

    def _write(self, ledger: Ledger, numbers: Set[int]) -> None:
        """Replace the ledger by one that lists these versions of it alone."""
        listed = {number: entry for number, entry in (ledger.published or {}).items() if number in numbers}
        left = ledger.model_copy(update={"published": listed})
        self.swap(ledgers.as_text(left))
        ledgers.write_here(self.name, left)

    def _seed(self) -> None:
        """Upload what this store has of a model that the bucket has nothing of."""
        if ledgers.read_either(home(self.name)) is None:
            return
        ledger = ledgers.read_ledger(self.name)
        if ledger.published is None and ledger.highest:
            raise RegistryError(
                f"{home(self.name) / LEDGER} must have the digests of the versions to be uploaded. It has none, of an "
                "earlier layerflow; publish or roll back once without LAYERFLOW_REMOTE."
            )
        for number in sorted(ledger.published or {}):
            if (folder := home(self.name) / str(number)).is_dir():
                self.claim(number)
                shared.upload(self.bucket, folder, f"{self.home}/{STAGING}{number}")
                self.show(number, folder)
        if ledger.waiting:
            shared.keep_folder(store.root() / "candidates" / self.name / f"candidate-{ledger.waiting.number}")
        self.swap(ledgers.as_text(ledger))
        _take_over(self.bucket, self.name)


def _take_over(bucket: Bucket, name: str) -> tuple[Tag, Ledger, list[str]] | None:
    """Make this store's ledger and list of versions those of the bucket; nothing if the bucket has no such model.

    Returns:
        The tag of the bucket's ledger, the ledger, and the objects of the model.

    Raises:
        DamagedError: If the bucket's ledger can't be read.
        RegistryError: If this store has versions of another history.
    """
    found = bucket.get(f"models/{name}/{LEDGER}")
    if found is None:
        return None
    folder = state(bucket, name)
    folder.mkdir(parents=True, exist_ok=True)
    unread = folder / ".unread.json"
    store.write_atomically(unread, found.content)
    try:
        ledger = ledgers.read_file(unread, digested=True)
    except ValueError as error:
        raise DamagedError(
            f"{bucket.address}/models/{name}/{LEDGER} must be the ledger of the versions. It can't be read; restore an "
            "earlier state of that object."
        ) from error
    published, last = ledger.published or {}, folder / LEDGER
    try:
        before = ledgers.read_file(last, digested=True).published or {}
    except (OSError, ValueError):
        shared.require_same_history(bucket, name, {number: each.sums for number, each in published.items()})
        before = {}
    ledgers.write_here(name, ledger)
    objects = bucket.names(f"models/{name}")
    there = {number for number in published if f"{number}/{COMMIT}" in objects}
    shared.note(bucket, name, there, before.keys() - published.keys())
    unread.replace(last)
    return found.tag, ledger, objects
