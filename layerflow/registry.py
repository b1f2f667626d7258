"""Published models: ``<store>/models/<name>/<N>/``, the layout that TF Serving serves the highest number of.

A version appears whole or not at all, is never rewritten, and its number is never given again. Whoever changes
something holds the lock ``models-<name>``.
"""

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from layerflow import store
from layerflow.errors import DamagedError, RegistryError, did_you_mean
from layerflow.manifest import EXTRA, write_digests
from layerflow.records import Profile

log = logging.getLogger(__name__)

RECEIPT = f"{EXTRA}/receipt.json"
#: All cards of the run that made the model, for people.
REPORT = f"{EXTRA}/report.html"
_LEDGER = ".ledger.json"
#: Hidden folders in which a version is put together or taken apart: TF Serving and we look at plain numbers only.
_STAGING, _REMOVING = ".staging-", ".removing-"


class Ledger(BaseModel):
    """What the versions that are there can't tell: numbers that were given, and models that were taken back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    highest: int = 0
    rolled_back: tuple[str, ...] = ()


def home(name: str) -> Path:
    """The folder of all versions of a model."""
    return store.root() / "models" / name


def names() -> list[str]:
    """The models that have a published version, in order of name."""
    models = store.root() / "models"
    found = [folder.name for folder in models.iterdir()] if models.is_dir() else []
    return sorted(name for name in found if not name.startswith(".") and versions(name))


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
    """The published versions of a model, newest first. What is no plain positive integer is none."""
    folders = home(name).iterdir() if home(name).is_dir() else []
    found = [folder.name for folder in folders if folder.is_dir()]
    return sorted((int(version) for version in found if _is_version(version)), reverse=True)


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
    """The receipt that a version carries, or nothing where it carries none that can be read and compared by."""
    try:
        receipt = json.loads((home(name) / str(version) / RECEIPT).read_text())
        complete = receipt["export"]["digest"] and receipt["evaluation"]["test_digest"] and identity(receipt)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return receipt if complete else None


def report_of(name: str, version: int) -> Path:
    """The report that a version carries.

    Raises:
        RegistryError: If there is no such version, or it carries none.
    """
    report = folder_of(name, version) / REPORT
    if not report.is_file():
        raise RegistryError(f"{report} must be the report of a run. There is none; another version may have one.")
    return report


def profile_in_service(name: str, data_digest: str) -> Profile | None:
    """Figures of the data on which the highest version was trained, where its receipt holds them.

    Nothing where those are these very data: there is nothing to compare.
    """
    champion = next(iter(versions(name)), None)
    receipt = receipt_of(name, champion) if champion else None
    try:
        if receipt is None or receipt["data"]["digest"] == data_digest:
            return None
        return Profile.model_validate(receipt["checked"]["profile"])
    except (KeyError, TypeError, ValidationError):  # published before there were such figures
        return None


def identity(receipt: dict[str, Any]) -> str:
    """Which model a receipt is of: SHA-256 of network, weights, classes, and of the code that makes them answer.

    Not of the files: a model that was exported again, after its folder was deleted, has other bytes and is the same.
    """
    made = [receipt["trained"]["digest"], receipt["export"].get("code", ""), *receipt["data"]["classes"]]
    return hashlib.sha256(json.dumps(made).encode()).hexdigest()


def model_digest(name: str, version: int) -> str | None:
    """Which model is in a version; nothing where the receipt is gone."""
    receipt = receipt_of(name, version)
    return identity(receipt) if receipt else None


def predecessor(name: str) -> int | None:
    """The version that a rollback restores: the newest with another model than the champion's, and not taken back."""
    champion, *older = versions(name) or [0]
    unwanted = {model_digest(name, champion), None, *read_ledger(name).rolled_back}
    return next((version for version in older if model_digest(name, version) not in unwanted), None)


def read_ledger(name: str) -> Ledger:
    """The ledger of a model, empty for a new one.

    Raises:
        DamagedError: If it can't be read.
    """
    file = home(name) / _LEDGER
    if not file.exists():
        return Ledger()
    try:
        return Ledger.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise DamagedError(
            f"{file} must hold the numbers that were given and the models that were taken back. It can't be read; "
            "remove it, and the versions that are there are all that is known."
        ) from error


def write_ledger(name: str, ledger: Ledger) -> None:
    """Replace the ledger of a model."""
    home(name).mkdir(parents=True, exist_ok=True)
    store.write_atomically(home(name) / _LEDGER, ledger.model_dump_json(indent=2).encode())


def next_version(name: str) -> int:
    """The number after all that were ever given, whatever became of them."""
    entries = home(name).iterdir() if home(name).is_dir() else []
    there = [int(entry.name) for entry in entries if _is_version(entry.name)]
    return max([read_ledger(name).highest, *there]) + 1


def publish(name: str, version: int, source: Path, receipt: dict[str, Any], report: str | None = None) -> Path:
    """Publish the model in ``source`` with ``receipt`` and ``report`` as ``version``, and return its folder.

    Args:
        name: Name of the model.
        version: What ``next_version`` gave, under the same lock.
        source: An export, or another version; its own receipt and report are left behind.
        receipt: Holds the digests that the model must have, as ``receipt["export"]["files"]``.
        report: An HTML page, if there is one.

    Raises:
        DamagedError: If the copy is not, byte for byte, what was exported.
    """
    final = home(name) / str(version)
    staging = home(name) / f"{_STAGING}{version}"
    clear(name)
    write_ledger(name, read_ledger(name).model_copy(update={"highest": version}))
    try:
        shutil.copytree(source, staging)
        for beside in (RECEIPT, REPORT):
            (staging / beside).unlink(missing_ok=True)
        if write_digests(staging) != receipt["export"]["files"]:
            raise DamagedError(f"The copy of {source} is not what was exported; it was not published.")
        (staging / RECEIPT).write_text(json.dumps(receipt, indent=2))
        if report is not None:
            (staging / REPORT).write_text(report, encoding="utf-8")
        write_digests(staging)
        store.sync(staging)
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
    return text.isascii() and text.isdecimal() and text == str(int(text)) and int(text) > 0
