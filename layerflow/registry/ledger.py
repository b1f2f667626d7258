"""What the versions of a model can't vouch for themselves: which folders are versions, and what their bytes were."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from layerflow import json_file, store
from layerflow.errors import DamagedError
from layerflow.outcomes import Approval, DecisionCode
from layerflow.registry.layout import HIGHEST, RECEIPT, home, is_version
from layerflow.registry.model_identity import former_identity, model_identity
from layerflow.remote import bucket as buckets

#: The copy is written first: it knows all that the ledger knows, and stands in for a damaged one.
LEDGER, COPY = ".ledger.json", ".ledger.json.bak"
#: What replaces the ledger in the bucket, of the models that this process changes; ``sharing`` sets it.
swaps: dict[str, Callable[[bytes], None]] = {}


class Published(BaseModel):
    """What a version was when it was published: SHA-256 of its list of digests, and which model it is, if known.

    ``signature`` is the SHA-256 of its signature, where it is signed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sums: str
    model: str | None = None
    signature: str | None = Field(None, exclude_if=lambda digest: digest is None)


class Waiting(BaseModel):
    """A candidate about which a person is asked.

    ``sums`` is the SHA-256 of its list of digests, ``model`` its identity, ``live`` the live version when it was asked
    about. ``code`` and ``reason`` are the gate's, and ``is_best`` says whether later models are measured against it,
    once it is published. ``asked_by`` is the ID of the flow run that asks, and ``until`` when the question expires.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=1)
    sums: str
    model: str
    live: int | None
    code: DecisionCode
    reason: str
    is_best: bool
    asked_by: str
    until: AwareDatetime


class Closed(BaseModel):
    """A question that was closed, and how: its candidate's folder is there until that is recorded.

    ``version`` is the live one since then.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: Waiting
    code: DecisionCode
    reason: str
    version: int | None
    approval: Approval | None = None


class Ledger(BaseModel):
    """What the versions that are there can't tell: numbers that were given, rolled-back models, published digests.

    ``best`` is the version that none published since has surpassed, ``looks`` the number of comparisons on the present
    test images, or mostly these. ``asked`` is the number of the last candidate, ``waiting`` the one that waits for a
    person's answer, ``closed`` are those of which it is not recorded yet what became of them, and ``rejected`` has the
    answers about rejected models, by their identity. ``aliases`` are names that users gave to versions. ``published``
    is none in the ledger of a layerflow that did not keep digests yet; the next publication adds them. ``scheme`` 1 is
    of a layerflow whose identities of models had the code of the export in them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    highest: int = Field(0, ge=0, le=HIGHEST)
    rolled_back: tuple[str, ...] = ()
    published: dict[int, Published] | None = None
    best: int | None = None
    looks: int = 0
    asked: int = Field(0, ge=0)
    waiting: Waiting | None = None
    closed: tuple[Closed, ...] = ()
    rejected: dict[str, str] = {}
    aliases: dict[str, int] = {}
    scheme: int = Field(2, ge=1, le=2)


def read_ledger(name: str) -> Ledger:
    """The ledger of a model, or its copy where the ledger is damaged; empty for a new model.

    Raises:
        DamagedError: If neither can be read, or there are versions and neither exists.
    """
    return ledger_and_file(name)[0]


def ledger_and_file(name: str) -> tuple[Ledger, Path]:
    """``read_ledger``, and the file that it is from."""
    if found := read_either(home(name)):
        ledger, file = found
        return _renewed(name, ledger), file
    folders = home(name).iterdir() if home(name).is_dir() else []
    if any(is_version(each.name) and _has_receipt(each) for each in folders):
        raise is_lost(home(name))  # an empty one would let a rolled-back model return
    return Ledger(), home(name) / LEDGER


def _renewed(name: str, ledger: Ledger) -> Ledger:
    """The ledger with today's identities in place of former ones, as far as the receipts of the versions tell them."""
    if ledger.scheme == 2:
        return ledger
    today = dict[str, str]()
    for folder in home(name).iterdir():
        try:
            receipt = json_file.read_json(folder / RECEIPT)
            today[former_identity(receipt)] = model_identity(receipt)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):  # no version, or one without a receipt
            continue
    published = ledger.published and {
        number: entry.model_copy(update={"model": today.get(entry.model or "", entry.model)})
        for number, entry in ledger.published.items()
    }
    rolled_back = tuple(today.get(model, model) for model in ledger.rolled_back)
    return ledger.model_copy(update={"published": published, "rolled_back": rolled_back, "scheme": 2})


def _has_receipt(folder: Path) -> bool:
    """Whether a folder carries a receipt that names its number."""
    try:
        return bool(json_file.read_json(folder / RECEIPT)["version"] == int(folder.name))
    except (OSError, ValueError, TypeError, KeyError):
        return False


def known_ledger(name: str) -> Ledger:
    """``read_ledger`` for those who only look: an empty one where none can be read."""
    try:
        return read_ledger(name)
    except DamagedError:
        return Ledger()


def read_either(folder: Path) -> tuple[Ledger, Path] | None:
    """The ledger in ``folder`` or its copy, with its file. One without a digest counts where the other has none either.

    Raises:
        DamagedError: If there are such files and none can be read.
    """
    damaged = False
    for digested in (True, False):
        for file in (folder / LEDGER, folder / COPY):
            try:
                return read_file(file, digested), file
            except FileNotFoundError:
                continue
            except (OSError, ValueError):
                damaged = True
    if damaged:
        raise is_lost(folder)
    return None


def is_lost(folder: Path) -> DamagedError:
    return DamagedError(
        f"{folder / LEDGER} must hold the numbers that were given, the rolled-back models and the digests of the "
        "versions, and neither it nor its copy can be read; restore it from a backup of the store, or rebuild it "
        "as docs/operations.md shows."
    )


def read_file(file: Path, digested: bool) -> Ledger:
    """A ledger, whose digest of itself must be right where it has one; ``digested``: it must have one.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is no ledger.
    """
    content = json_file.read_json(file)
    digest = content.pop("digest", None) if isinstance(content, dict) else None
    if digest != _digest(content) and (digested or digest is not None):
        raise ValueError(f"{file} does not have its digest")
    return Ledger.model_validate({"scheme": 1, **content} if isinstance(content, dict) else content)


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_ledger(name: str, ledger: Ledger) -> None:
    """Replace the ledger of a model and its copy; that of the bucket before them, where there is one."""
    if swap := swaps.get(name):
        swap(as_text(ledger))
    else:
        assert buckets.in_force() is None, "whoever changes a model with a bucket holds its lease"
    write_here(name, ledger)


def write_here(name: str, ledger: Ledger) -> None:
    """Replace the ledger of a model and its copy in the store alone."""
    home(name).mkdir(parents=True, exist_ok=True)
    for file in (COPY, LEDGER):
        store.write_atomically(home(name) / file, as_text(ledger))


def as_text(ledger: Ledger) -> bytes:
    """What the file of a ledger holds."""
    content = ledger.model_dump(mode="json")
    return json.dumps({**content, "digest": _digest(content)}, indent=2).encode()
