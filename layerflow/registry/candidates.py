"""Models that wait for a person's answer: ``<store>/candidates/<name>/candidate-<N>/``.

Such a folder is what a version will be, and is not among the versions: a server that follows the highest number can't
see it. It is put together in a hidden sibling; the ledger's ``waiting`` then makes it *the* candidate, and holds the
digest of its list of digests. A folder that the ledger does not name is a leftover. Whoever changes something holds the
lock ``models-<name>``.
"""

import contextlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from layerflow import checksums, store
from layerflow.checksums import DIGESTS
from layerflow.config import RetrainConfig
from layerflow.errors import DamagedError, mask
from layerflow.json_file import read_json
from layerflow.outcomes import Approval, DecisionCode, Retrained
from layerflow.registry import shared
from layerflow.registry.assembling import put_together
from layerflow.registry.layout import IMAGES, RECEIPT, REPORT, RUN
from layerflow.registry.ledger import Closed, Ledger, Waiting, known_ledger, read_ledger

#: The files of a candidate that was answered.
RECEIPT_FILE, REPORT_FILE, RUN_FILE = (Path(each).name for each in (RECEIPT, REPORT, RUN))


def home(name: str) -> Path:
    """The folder of the candidates of a model."""
    return store.root() / "candidates" / name


def folder_of(name: str, number: int) -> Path:
    """The folder of a candidate, whether or not it is there."""
    return home(name) / f"candidate-{number}"


def answered(name: str, number: int) -> Path:
    """Where the receipt, the report and the run of a candidate are kept once it is answered."""
    return store.root() / "receipts" / name / f"candidate-{number}"


def waiting(name: str) -> Waiting | None:
    """The candidate of a model that waits for an answer, if one does."""
    return known_ledger(name).waiting


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def close(
    ledger: Ledger, code: DecisionCode, reason: str, version: int | None, approval: Approval | None = None
) -> Ledger:
    """The ledger with its open question closed, if there is one; one whose time is over can only be unanswered.

    Args:
        version: The live version.
        approval: The answer, if it was one that closes the question.
    """
    asked = ledger.waiting
    if asked is None:
        return ledger
    if now() >= asked.until and not code.startswith("promoted"):
        ended = f"nobody answered until {asked.until.isoformat(timespec='seconds')}"
        code, reason, approval = "kept_unanswered", ended, None
    closed = Closed(question=asked, code=code, reason=reason, version=version, approval=approval)
    rejected = {**ledger.rejected, asked.model: reason} if code == "kept_rejected" else ledger.rejected
    update = {"waiting": None, "closed": (*ledger.closed, closed), "rejected": rejected}
    return ledger.model_copy(update=update)


def put(name: str, number: int, source: Path, receipt: dict[str, Any], page: str, images: bytes, run: bytes) -> str:
    """Make the folder of a candidate, whole or not at all; return the SHA-256 of its list of digests.

    Args:
        source: The export.
        page: The report, HTML.
        images: Which images the model has learned from, as ``KnownImages.as_bytes``.
        run: What ``run_as_bytes`` gave.

    Raises:
        DamagedError: If the copy is not, byte for byte, what was exported.
    """
    clear(name)
    final = folder_of(name, number)
    staging = final.with_name(f".staging-{number}")
    try:
        beside: dict[str, bytes | None] = {REPORT: page.encode(), IMAGES: images, RUN: run}
        sums = put_together(staging, source, receipt, beside)
        staging.rename(final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    store.sync_entry(home(name))
    shared.keep_folder(final)
    return sums


def damage(name: str, candidate: Waiting) -> str | None:
    """What of a candidate is not as it was when the question was asked, or nothing if every byte is."""
    folder = folder_of(name, candidate.number)
    if not (folder / DIGESTS).is_file():
        return f"{DIGESTS} is missing"
    if checksums.sha256(folder / DIGESTS) != candidate.sums:
        return f"{DIGESTS} is not the list that was written"
    return checksums.damage(folder)


def run_as_bytes(config: RetrainConfig, made: Retrained) -> bytes:
    """The settings of a run and what it made, as ``read_run`` reads them."""
    return json.dumps({"config": mask(config.model_dump(mode="json")), "made": made.model_dump(mode="json")}).encode()


def read_run(file: Path) -> tuple[RetrainConfig, Retrained]:
    """The settings of a run and what it made.

    Raises:
        DamagedError: If the file can't be read, or holds something else.
    """
    try:
        content = read_json(file)
        return RetrainConfig.model_validate(content["config"]), Retrained.model_validate(content["made"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DamagedError(
            f"{file} must hold what a run of this layerflow made. It does not ({type(error).__name__}); re-run the "
            "command that made it."
        ) from error


def read_receipt(file: Path) -> dict[str, Any]:
    """The receipt of a candidate.

    Raises:
        DamagedError: If the file can't be read, or holds something else.
    """
    try:
        receipt = read_json(file)
        return {**receipt, "created": str(receipt["created"]), "decision": {**receipt["decision"]}}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DamagedError(
            f"{file} must be the receipt of a candidate. It is not ({type(error).__name__}); re-run the command that "
            "made it."
        ) from error


def clear(name: str) -> None:
    """Remove the folders that the ledger does not name: of dead processes, and of candidates that were answered."""
    if home(name).is_dir():
        ledger = read_ledger(name)
        named = [ledger.waiting, *(each.question for each in ledger.closed)]
        needed = {folder_of(name, each.number) for each in named if each}
        for folder in home(name).iterdir():
            if folder not in needed:
                shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(name: str) -> None:
    """``clear``, unless somebody is publishing just now, or the ledger can't be read, as the decision will say."""
    if home(name).is_dir():
        with store.locked_if_free(f"models-{name}") as free, contextlib.suppress(DamagedError):
            if free:
                clear(name)
