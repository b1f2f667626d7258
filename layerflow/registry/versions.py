"""Published models: ``<store>/models/<name>/<N>/``, the layout that TF Serving serves the highest number of.

A version appears whole or not at all, is never rewritten, and its number is never given again. Whoever changes
something holds the lock ``models-<name>``. The ledger beside the versions knows what a version can't vouch for itself:
which folders are versions, and what their bytes were when they were published.
"""

import logging
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from layerflow import checksums, store
from layerflow.checksums import DIGESTS
from layerflow.errors import DamagedError, RegistryError, VerificationError, did_you_mean
from layerflow.findings import Profile
from layerflow.registry import receipt as receipts
from layerflow.registry import shared
from layerflow.registry.layout import RECEIPT, REPORT, SIGNATURE, folders, home, is_version
from layerflow.registry.ledger import (
    COPY,
    LEDGER,
    Ledger,
    Published,
    known_ledger,
    ledger_and_file,
    read_either,
    read_ledger,
)
from layerflow.registry.model_identity import model_identity

log = logging.getLogger(__name__)


def names() -> list[str]:
    """The models that have a published version, in order of name."""
    return [name for name in sorted({*folders(), *shared.names()}) if numbers(name)]


def the_name(name: str | None) -> str:
    """``name``, or that of the only published model.

    Raises:
        RegistryError: If there is no such model, none at all, or a choice of several.
    """
    published = names()
    if name in published:
        return str(name)
    if not published:
        raise RegistryError(f"A model must be published in {store.root()} first. None is; run layerflow retrain.")
    known = f"one of {', '.join(published)}"
    if name:
        raise RegistryError(f"--name must be {known}. Received: {name}{did_you_mean(name, published)}")
    if len(published) > 1:
        raise RegistryError(f"Several models are published; say which with --name: {known}.")
    return published[0]


def numbers(name: str) -> list[int]:
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
    here = {int(each.name) for each in folders if is_version(each.name) and each.is_dir()}
    found = sorted(here | shared.known(name), reverse=True)
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
    return next(iter(numbers(name)), None)


def complaints(name: str) -> list[str]:
    """What is wrong with the ledger of a model and with the folders beside its versions, a sentence each."""
    found, file = [], home(name) / LEDGER
    try:
        if ledger_and_file(name)[1].name == COPY:
            state = "is damaged" if file.exists() else "is missing"
            found.append(f"{file} {state}; its copy is used, and the next publication rewrites it.")
    except DamagedError as error:
        found.append(str(error))
    return [*found, *(stray_sentence(name, number) for number in strays(name))]


def stray_sentence(name: str, number: int) -> str:
    """What is wrong with a stray folder, and what to do about it."""
    highest = number > max(numbers(name), default=0)
    served = ", and a server that follows the highest number serves it" if highest else ""
    return (
        f"{home(name) / str(number)} is not a version that layerflow published{served}; move it out of {home(name)}, "
        "or restore the ledger that lists it from a backup."
    )


def require(name: str, version: int) -> None:
    """See that a version is published.

    Raises:
        RegistryError: If there is no such version.
    """
    published = numbers(name)
    if version not in published:
        there = ", ".join(map(str, sorted(published))) or "none"
        raise RegistryError(f"The version of {name} must be one that is published ({there}). Received: {version}")


def folder_of(name: str, version: int) -> Path:
    """The folder of a published version, which is downloaded if only the bucket has it.

    Raises:
        RegistryError: If there is no such version.
        DamagedError: If what the bucket has of it is damaged.
        UnreachableError: If it must be downloaded and can't be.
    """
    require(name, version)
    shared.bring(name, version)
    return home(name) / str(version)


def undamaged_folder_of(name: str, version: int) -> Path:
    """``folder_of`` a version of which every byte is as it was published.

    Raises:
        DamagedError: If one is not; and whatever ``folder_of`` raises.
    """
    folder = folder_of(name, version)
    if found := damage(name, version):
        raise DamagedError(
            f"Version {version} of {name} must be as it was published: {found}. Restore it from a backup, or choose "
            "another version."
        )
    return folder


def receipt_of(name: str, version: int) -> dict[str, Any] | None:
    """The receipt that a version carries, or nothing where it has none that can be read and names this version."""
    try:
        receipt = receipts.read(shared.place(name, version) / RECEIPT)
    except (OSError, ValueError):
        return None
    return receipt if receipt["version"] == version else None


def damage(name: str, version: int, ledger: Ledger | None = None) -> str | None:
    """What of a version is not as it was published, or nothing if every byte is that is here.

    The ledger's digest decides; where it has none, the version's own files vouch for each other.
    """
    ledger, folder = ledger or read_ledger(name), home(name) / str(version)
    if not folder.is_dir() and version in shared.known(name):
        return _damage(shared.place(name, version), (ledger.published or {}).get(version), here=False)
    if ledger.published is None:
        return receipts.damage(folder)
    return _damage(folder, ledger.published.get(version))


def _damage(folder: Path, entry: Published | None, here: bool = True) -> str | None:
    """What of a version is not as the ledger's entry says.

    Args:
        here: Whether all files are in the folder, and not only what ``shared`` keeps of them.
    """
    if entry is None:
        return f"{folder.name} is not a version that layerflow published"
    if not (folder / DIGESTS).is_file():
        return f"{DIGESTS} is missing"
    if checksums.sha256(folder / DIGESTS) != entry.sums:
        return f"{DIGESTS} is not the list that was published"
    if not here:
        return receipts.damage_of_receipt(folder)
    return receipts.damage(folder) or _damage_of_signature(folder / SIGNATURE, entry.signature)


def _damage_of_signature(file: Path, published: str | None) -> str | None:
    if not file.is_file():
        return f"{SIGNATURE} is missing" if published else None
    if published is None:
        return f"{SIGNATURE} does not belong to the model"
    return None if checksums.sha256(file) == published else f"{SIGNATURE} was changed"


def provenance(folder: Path) -> str:
    """Compare any exported model with its own receipt and with the ledger beside it, and say what that proves.

    Raises:
        VerificationError: If its files, its receipt and the ledger disagree.
        DamagedError: If there is a ledger beside it that can't be read.
    """
    folder = folder.resolve()
    either = read_either(folder.parent) if is_version(folder.name) else None
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
        raise RegistryError(f"{report} must be the report of a run. It does not exist; another version may have one.")
    return report


def profile_in_service(name: str, data_digest: str | None = None) -> Profile | None:
    """Figures of the data on which the highest version was trained, where its receipt holds them.

    Nothing where those are the data with ``data_digest``: there is nothing to compare.
    """
    champion = next(iter(numbers(name)), None)
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
    return model_identity(receipt) if receipt else None


def best_of(name: str) -> int | None:
    """The version that none published since has surpassed; the live one, where it is gone or was rolled back."""
    ledger, published = known_ledger(name), numbers(name)
    if ledger.best in published and model_digest(name, ledger.best) not in ledger.rolled_back:
        return ledger.best
    return next(iter(published), None)


def predecessor(name: str) -> int | None:
    """The version that a rollback restores: the newest with a receipt, another model, and not rolled back itself."""
    champion, *older = numbers(name) or [0]
    unwanted = {model_digest(name, champion), None, *known_ledger(name).rolled_back}
    wanted = (version for version in older if model_digest(name, version) not in unwanted)
    return next((version for version in wanted if receipt_of(name, version)), None)
