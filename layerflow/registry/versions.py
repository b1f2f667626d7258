"""Published models: ``<store>/models/<name>/<N>/``, the layout that TF Serving serves the highest number of.

A version appears whole or not at all, is never rewritten, and its number is never given again. Whoever changes
something holds the lock ``models-<name>``. The ledger beside the versions knows what a version can't vouch for itself:
which folders are versions, and what their bytes were when they were published.
"""

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from layerflow import checksums, store
from layerflow.checksums import DIGESTS, write_digests
from layerflow.errors import DamagedError, RegistryError, VerificationError, did_you_mean
from layerflow.records import Profile
from layerflow.registry import receipt as receipts
from layerflow.registry.receipt import RECEIPT as RECEIPT
from layerflow.registry.receipt import REPORT as REPORT
from layerflow.registry.receipt import identity as identity

log = logging.getLogger(__name__)

#: The copy is written first: it knows all that the ledger knows, and stands in for a damaged one.
_LEDGER, _COPY = ".ledger.json", ".ledger.json.bak"
#: Hidden folders in which a version is put together or taken apart: TF Serving and we look at plain numbers only.
_STAGING, _REMOVING = ".staging-", ".removing-"
#: TF Serving reads version numbers as signed 64-bit integers, and passes over what does not fit.
_MOST = 2**63 - 1


class Published(BaseModel):
    """What a version was when it was published: SHA-256 of its list of digests, and which model it is, if known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sums: str
    model: str | None = None


class Ledger(BaseModel):
    """What the versions that are there can't tell: numbers that were given, rolled-back models, published digests.

    ``published`` is none in the ledger of a layerflow that did not keep digests yet; the next publication adds them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    highest: int = Field(0, ge=0, le=_MOST)
    rolled_back: tuple[str, ...] = ()
    published: dict[int, Published] | None = None


def home(name: str) -> Path:
    """The folder of all versions of a model."""
    return store.root() / "models" / name


def folders() -> list[str]:
    """The folders of models, in order of name, whether or not a version is in them."""
    models = store.root() / "models"
    found = [folder.name for folder in models.iterdir() if folder.is_dir()] if models.is_dir() else []
    return sorted(name for name in found if not name.startswith(".") and name.isprintable())


def names() -> list[str]:
    """The models that have a published version, in order of name."""
    return [name for name in folders() if versions(name)]


def the_name(name: str | None) -> str:
    """``name``, or that of the only published model.

    Raises:
        RegistryError: If there is no such model, none at all, or a choice of several.
    """
    published = names()
    if name in published:
        return str(name)
    if not published:
        raise RegistryError(f"A model must be published in {store.root()} first. There is none; run layerflow retrain.")
    known = f"one of {', '.join(published)}"
    if name:
        raise RegistryError(f"--name must be {known}. Received: {name}{did_you_mean(name, published)}")
    if len(published) > 1:
        raise RegistryError(f"Several models are published; say which with --name: {known}.")
    return published[0]


def versions(name: str) -> list[int]:
    """The published versions of a model, newest first; where the ledger can't be read, those that receipts tell of."""
    return _told_apart(name)[0]


def strays(name: str) -> list[int]:
    """Folders with a plain number for a name that are not versions, highest first."""
    return _told_apart(name)[1]


def _told_apart(name: str) -> tuple[list[int], list[int]]:
    """The numbered folders of a model that are versions, and those that are not.

    A version has an entry in the ledger. Where the ledger keeps no digests (it is of an earlier layerflow, or lost),
    a version is a number that the ledger gave, or a folder with a receipt that names this very number.
    """
    folders = home(name).iterdir() if home(name).is_dir() else []
    found = sorted((int(each.name) for each in folders if _is_version(each.name) and each.is_dir()), reverse=True)
    ledger = known_ledger(name)
    if ledger.published is None:
        known = {number for number in found if number <= ledger.highest or receipt_of(name, number)}
    else:
        known = set(ledger.published)
    return [number for number in found if number in known], [number for number in found if number not in known]


def champion_of(name: str) -> int | None:
    """The version in service, the highest. What is wrong beside it is logged.

    Raises:
        DamagedError: As ``read_ledger`` says: nothing must be published then.
    """
    read_ledger(name)
    for complaint in complaints(name):
        log.warning("%s", complaint)
    return next(iter(versions(name)), None)


def complaints(name: str) -> list[str]:
    """What is wrong with the ledger of a model and with the folders beside its versions, a sentence each."""
    found, file = [], home(name) / _LEDGER
    try:
        if _ledger_and_file(name)[1].name == _COPY:
            state = "is damaged" if file.exists() else "is missing"
            found.append(f"{file} {state}; its copy is used, and the next publication rewrites it.")
    except DamagedError as error:
        found.append(str(error))
    return [*found, *(stray_sentence(name, number) for number in strays(name))]


def stray_sentence(name: str, number: int) -> str:
    """What is wrong with a stray folder, and what to do about it."""
    highest = number > max(versions(name), default=0)
    served = ", and a server that follows the highest number serves it" if highest else ""
    return (
        f"{home(name) / str(number)} is not a version that layerflow published{served}; move it out of {home(name)}, "
        "or restore the ledger that lists it from a backup."
    )


def folder_of(name: str, version: int) -> Path:
    """The folder of a published version.

    Raises:
        RegistryError: If there is no such version.
    """
    published = versions(name)
    if version not in published:
        there = ", ".join(map(str, sorted(published))) or "none"
        raise RegistryError(f"The version of {name} must be one that is published ({there}). Received: {version}")
    return home(name) / str(version)


def receipt_of(name: str, version: int) -> dict[str, Any] | None:
    """The receipt that a version carries, or nothing where it has none that can be read and names this version."""
    try:
        receipt = receipts.read(home(name) / str(version) / RECEIPT)
    except (OSError, ValueError):
        return None
    return receipt if receipt["version"] == version else None


def damage(name: str, version: int, ledger: Ledger | None = None) -> str | None:
    """What of a version is not as it was published, or nothing if every byte is.

    The ledger's digest decides; where it has none, the version's own files vouch for each other.
    """
    ledger = ledger or read_ledger(name)
    if ledger.published is None:
        return receipts.damage(home(name) / str(version))
    return _damage(home(name) / str(version), ledger.published.get(version))


def _damage(folder: Path, entry: Published | None) -> str | None:
    if entry is None:
        return f"{folder.name} is not a version that layerflow published"
    if not (folder / DIGESTS).is_file():
        return f"{DIGESTS} is missing"
    if checksums.sha256(folder / DIGESTS) != entry.sums:
        return f"{DIGESTS} is not the list that was published"
    return receipts.damage(folder)


def provenance(folder: Path) -> str:
    """Compare any exported model with its own receipt and with the ledger beside it, and say what that proves.

    Raises:
        VerificationError: If its files, its receipt and the ledger disagree.
        DamagedError: If there is a ledger beside it that can't be read.
    """
    folder = folder.resolve()
    either = _read_either(folder.parent) if _is_version(folder.name) else None
    ledger = either[0] if either else Ledger()
    if ledger.published is not None:
        found, told = _damage(folder, ledger.published.get(int(folder.name))), "the ledger has the digest of its list"
    elif (folder / RECEIPT).exists():
        found = receipts.damage(folder)
        told = "no digest of it in a ledger: its files vouch only for each other"
    else:
        return "no receipt: this export was not published, and its files vouch only for each other"
    if found:
        raise VerificationError(f"The model in {folder} must be as its receipt and the ledger say: {found}.")
    return f"files and classes are those of its receipt; {told}"


def report_of(name: str, version: int) -> Path:
    """The report that a version carries.

    Raises:
        RegistryError: If there is no such version, or it carries none.
    """
    report = folder_of(name, version) / REPORT
    if not report.is_file():
        raise RegistryError(f"{report} must be the report of a run. There is none; another version may have one.")
    return report


def profile_in_service(name: str, data_digest: str | None = None) -> Profile | None:
    """Figures of the data on which the highest version was trained, where its receipt holds them.

    Nothing where those are the data with ``data_digest``: there is nothing to compare.
    """
    champion = next(iter(versions(name)), None)
    receipt = receipt_of(name, champion) if champion else None
    try:
        if receipt is None or receipt["data"]["digest"] == data_digest:
            return None
        return Profile.model_validate(receipt["checked"]["profile"])
    except (KeyError, TypeError, ValidationError):  # published before there were such figures
        return None


def model_digest(name: str, version: int) -> str | None:
    """Which model is in a version, by the ledger or else by its receipt; nothing where neither tells."""
    entry = (known_ledger(name).published or {}).get(version)
    if entry and entry.model:
        return entry.model
    receipt = receipt_of(name, version)
    return identity(receipt) if receipt else None


def predecessor(name: str) -> int | None:
    """The version that a rollback restores: the newest with a receipt, another model, and not rolled back itself."""
    champion, *older = versions(name) or [0]
    unwanted = {model_digest(name, champion), None, *known_ledger(name).rolled_back}
    wanted = (version for version in older if model_digest(name, version) not in unwanted)
    return next((version for version in wanted if receipt_of(name, version)), None)


def read_ledger(name: str) -> Ledger:
    """The ledger of a model, or its copy where the ledger is damaged; empty for a new model.

    Raises:
        DamagedError: If neither can be read, or there are versions and neither exists.
    """
    return _ledger_and_file(name)[0]


def _ledger_and_file(name: str) -> tuple[Ledger, Path]:
    """``read_ledger``, and the file that it is from."""
    if found := _read_either(home(name)):
        return found
    folders = home(name).iterdir() if home(name).is_dir() else []
    if any(_is_version(each.name) and receipt_of(name, int(each.name)) for each in folders):
        raise _lost(home(name))  # an empty one would let a rolled-back model return
    return Ledger(), home(name) / _LEDGER


def known_ledger(name: str) -> Ledger:
    """``read_ledger`` for those who only look: an empty one where none can be read."""
    try:
        return read_ledger(name)
    except DamagedError:
        return Ledger()


def _read_either(folder: Path) -> tuple[Ledger, Path] | None:
    """The ledger in ``folder`` or its copy, with its file. One without a digest counts where the other has none either.

    Raises:
        DamagedError: If there are such files and none can be read.
    """
    damaged = False
    for digested in (True, False):
        for file in (folder / _LEDGER, folder / _COPY):
            try:
                return _read(file, digested), file
            except FileNotFoundError:
                continue
            except (OSError, ValueError):
                damaged = True
    if damaged:
        raise _lost(folder)
    return None


def _lost(folder: Path) -> DamagedError:
    return DamagedError(
        f"{folder / _LEDGER} must hold the numbers that were given, the rolled-back models and the digests of the "
        "versions, and neither it nor its copy can be read; restore it from a backup of the store, or rebuild it "
        "as docs/operations.md shows."
    )


def _read(file: Path, digested: bool) -> Ledger:
    """A ledger, whose digest of itself must be right where it has one; ``digested``: it must have one.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is no ledger.
    """
    content = receipts.read_json(file)
    digest = content.pop("digest", None) if isinstance(content, dict) else None
    if digest != _digest(content) and (digested or digest is not None):
        raise ValueError(f"{file} does not have its digest")
    return Ledger.model_validate(content)


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_ledger(name: str, ledger: Ledger) -> None:
    """Replace the ledger of a model and its copy."""
    home(name).mkdir(parents=True, exist_ok=True)
    content = ledger.model_dump(mode="json")
    text = json.dumps({**content, "digest": _digest(content)}, indent=2)
    for file in (_COPY, _LEDGER):
        store.write_atomically(home(name) / file, text.encode())


def next_version(name: str) -> int:
    """The number after all that were ever given, whatever became of them, and after any stray folder's.

    Raises:
        RegistryError: If there is no higher number.
    """
    entries = home(name).iterdir() if home(name).is_dir() else []
    there = [int(entry.name) for entry in entries if _is_version(entry.name)]
    highest = max([read_ledger(name).highest, *there])
    if highest >= _MOST:
        raise RegistryError(
            f"A version of {name} must have a number below {_MOST}; move {home(name) / str(highest)} away."
        )
    return highest + 1


def _with_digests(name: str, ledger: Ledger) -> dict[int, Published]:
    """The digests of the versions; of a ledger without any they are taken from the versions as they are now."""
    if ledger.published is not None:
        return ledger.published
    found = {}
    for version in versions(name):
        sums = home(name) / str(version) / DIGESTS
        found[version] = Published(
            sums=checksums.sha256(sums) if sums.is_file() else "", model=model_digest(name, version)
        )
    return found


def publish(name: str, version: int, source: Path, receipt: dict[str, Any], report: str | None = None) -> Path:
    """Publish the model in ``source`` with ``receipt`` and ``report`` as ``version``, and return its folder.

    Args:
        name: Name of the model.
        version: What ``next_version`` gave, under the same lock.
        source: An export, or another version; its own receipt and report are left behind.
        receipt: Of this version; holds the digests that the model must have, as ``receipt["export"]["files"]``.
        report: An HTML page, if there is one.

    Raises:
        DamagedError: If the copy is not, byte for byte, what was exported.
    """
    final = home(name) / str(version)
    staging = home(name) / f"{_STAGING}{version}"
    clear(name)
    ledger = read_ledger(name)
    ledger = ledger.model_copy(update={"highest": version, "published": _with_digests(name, ledger)})
    write_ledger(name, ledger)
    try:
        shutil.copytree(source, staging)
        for beside in (RECEIPT, REPORT):
            (staging / beside).unlink(missing_ok=True)
        if write_digests(staging) != receipt["export"]["files"]:
            raise DamagedError(f"The copy of {source} is not what was exported; it was not published.")
        (staging / RECEIPT).write_text(json.dumps(receipt, indent=2))
        if report is not None:
            (staging / REPORT).write_text(report, encoding="utf-8")
        entry = Published(sums=write_digests(staging)[DIGESTS], model=identity(receipt))
        store.sync(staging)
        # Before the version appears: a version without its digest in the ledger is not one.
        published = {**(ledger.published or {}), version: entry}
        write_ledger(name, ledger.model_copy(update={"published": published}))
        staging.rename(final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    store.sync_entry(home(name))
    return final


def prune(name: str, keep: int) -> None:
    """Remove all but the newest ``keep`` versions, never the champion nor the one it can be rolled back to."""
    published = versions(name)
    needed = {*published[: max(keep, 1)], predecessor(name)}
    for version in published:
        if version not in needed:
            removing = home(name) / f"{_REMOVING}{version}"
            (home(name) / str(version)).rename(removing)
            store.sync_entry(home(name))
            ledger = read_ledger(name)
            if ledger.published is not None:
                kept = {number: entry for number, entry in ledger.published.items() if number != version}
                write_ledger(name, ledger.model_copy(update={"published": kept}))
            shutil.rmtree(removing)
            log.info("removed version %d of %s: registry.keep is %d", version, name, keep)


def clear(name: str) -> None:
    """Remove what dead processes left half published or half removed; the caller holds the lock, so they are dead."""
    for kind in (_STAGING, _REMOVING):
        for folder in home(name).glob(f"{kind}*"):
            shutil.rmtree(folder, ignore_errors=True)


def sweep(name: str) -> None:
    """``clear``, unless somebody is publishing just now."""
    if home(name).is_dir():
        with store.locked_if_free(f"models-{name}") as free:
            if free:
                clear(name)


def _is_version(text: str) -> bool:
    return text.isascii() and text.isdecimal() and text == str(int(text)) and 0 < int(text) <= _MOST
