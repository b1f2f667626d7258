"""Putting a version into service, whole or not at all, and removing old ones.

A version is never rewritten, and its number is never given again. Whoever changes something does it in
``sharing.changing``.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

from layerflow import checksums, store
from layerflow.cards import model_card
from layerflow.checksums import DIGESTS
from layerflow.errors import RegistryError
from layerflow.registry import shared, sharing
from layerflow.registry.assembling import put_together
from layerflow.registry.layout import CARD, HIGHEST, IMAGES, REPORT, SIGNATURE, home, is_version
from layerflow.registry.ledger import Ledger, Published, read_ledger, write_ledger
from layerflow.registry.model_identity import model_identity
from layerflow.registry.versions import best_of, model_digest, numbers, predecessor
from layerflow.settings.gate import RegistryConfig, SignConfig

log = logging.getLogger(__name__)


#: Hidden folders in which a version is put together or taken apart: TF Serving and we look at plain numbers only.
_STAGING, _REMOVING = ".staging-", ".removing-"


def next_version(name: str) -> int:
    """The number after all that were ever given, whatever became of them, and after any stray folder's.

    Raises:
        RegistryError: If there is no higher number.
    """
    entries = home(name).iterdir() if home(name).is_dir() else []
    there = [*shared.known(name), *(int(entry.name) for entry in entries if is_version(entry.name))]
    highest = max([read_ledger(name).highest, *there])
    if highest >= HIGHEST:
        raise RegistryError(
            f"A version of {name} must have a number below {HIGHEST}; move {home(name) / str(highest)} away."
        )
    return sharing.claimed(name, highest + 1)


def _with_digests(name: str, ledger: Ledger) -> dict[int, Published]:
    """The digests of the versions; of a ledger without any they are taken from the versions as they are now."""
    if ledger.published is not None:
        return ledger.published
    found = {}
    for version in numbers(name):
        sums = home(name) / str(version) / DIGESTS
        found[version] = Published(
            sums=checksums.sha256(sums) if sums.is_file() else "", model=model_digest(name, version)
        )
    return found


def publish(
    name: str,
    version: int,
    source: Path,
    receipt: dict[str, Any],
    report: str | None = None,
    images: bytes | None = None,
    signer: SignConfig = SignConfig(),  # noqa: B008  (frozen)
) -> Path:
    """Publish the model in ``source`` with ``receipt``, ``report`` and ``images`` as ``version``; return its folder.

    Args:
        name: Name of the model.
        version: What ``next_version`` gave, under the same lock.
        source: An export, or another version; its own receipt, report and list of images are left behind.
        receipt: Of this version; holds the digests that the model must have, as ``receipt["export"]["files"]``.
        report: An HTML page, if there is one.
        images: Which images the model has learned from, as ``KnownImages.as_bytes``, where that is known.
        signer: What signs it, ``registry.sign``.

    Raises:
        DamagedError: If the copy is not, byte for byte, what was exported.
        ConfigError: If the signer can't be used; nothing was published then.
        RegistryError: If it does not sign; nothing was published then.
    """
    final = home(name) / str(version)
    work = home(name) / f"{_STAGING}{version}"
    staging = work / f"{name}-{version}"  # a signature has the name of the folder
    clear(name)
    ledger = read_ledger(name)
    ledger = ledger.model_copy(update={"highest": version, "published": _with_digests(name, ledger)})
    write_ledger(name, ledger)
    try:
        page = None if report is None else report.encode()
        beside = {REPORT: page, IMAGES: images, CARD: model_card.draw(receipt).encode()}
        sums = put_together(staging, source, receipt, beside, signer)
        sharing.stage(name, version, staging)
        signature = checksums.sha256(staging / SIGNATURE) if signer.method else None
        entry = Published(sums=sums, model=model_identity(receipt), signature=signature)
        # Before the version appears: a version without its digest in the ledger is not one.
        published = {**(ledger.published or {}), version: entry}
        write_ledger(name, ledger.model_copy(update={"published": published}))
        sharing.show(name, version, staging)
        staging.rename(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    store.sync_entry(home(name))
    return final


def release(
    name: str, settings: RegistryConfig, source: Path, receipt: dict[str, Any], page: str, images: bytes, is_best: bool
) -> None:
    """``publish`` the version that the receipt names, remember whether it is the best, and prune.

    Whoever held the model back, by a rollback or a rejection, has changed their mind.
    """
    version, model = receipt["version"], model_identity(receipt)
    ledger = read_ledger(name)
    if model in ledger.rolled_back or model in ledger.rejected:
        kept = tuple(digest for digest in ledger.rolled_back if digest != model)
        rejected = {digest: answer for digest, answer in ledger.rejected.items() if digest != model}
        write_ledger(name, ledger.model_copy(update={"rolled_back": kept, "rejected": rejected}))
    publish(name, version, source, receipt, page, images, settings.sign)
    if is_best:
        write_ledger(name, read_ledger(name).model_copy(update={"best": version}))
    try:
        prune(name, settings.keep)
    except OSError as error:  # it is in service: a second try would find it `unchanged`, and tell nobody
        log.warning("old versions of %s could not be removed; the next promotion tries again: %s", name, error)


def prune(name: str, keep: int) -> None:
    """Remove all but the newest ``keep`` versions, the best one, what a rollback restores, and those with an alias."""
    published = numbers(name)
    aliased = read_ledger(name).aliases.values()
    needed = {*published[: max(keep, 1)], predecessor(name), best_of(name), *aliased}
    for version in published:
        if version not in needed:
            removing = home(name) / f"{_REMOVING}{version}"
            if (folder := home(name) / str(version)).is_dir():
                folder.rename(removing)
            store.sync_entry(home(name))
            ledger = read_ledger(name)
            if ledger.published is not None:
                kept = {number: entry for number, entry in ledger.published.items() if number != version}
                write_ledger(name, ledger.model_copy(update={"published": kept}))
            sharing.remove(name, version)
            shutil.rmtree(removing, ignore_errors=not removing.is_dir())
            log.info("removed version %d of %s: registry.keep is %d", version, name, keep)


def clear(name: str) -> None:
    """Remove what dead processes left half published or half removed; the caller holds the lock, so they are dead."""
    for kind in (_STAGING, _REMOVING):
        for folder in home(name).glob(f"{kind}*"):
            shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(name: str) -> None:
    """``clear``, unless somebody is publishing just now."""
    if home(name).is_dir():
        with store.locked_if_free(f"models-{name}") as free:
            if free:
                clear(name)
