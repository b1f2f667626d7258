"""The receipt in a published version: how it is read, and what of the version is not as it says.

A receipt is data from disk like any other. ``read`` is the only way to one: what it returns has every key of
``Receipt``, of the right type. Other keys are there as they were written.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from layerflow import checksums
from layerflow.checksums import DIGESTS, EXTRA

RECEIPT = f"{EXTRA}/receipt.json"
#: All cards of the run that made the model, for people.
REPORT = f"{EXTRA}/report.html"
#: A receipt with 100,000 classes has 20 MB. What is larger, or nested deeper, was not written by layerflow.
_MOST_BYTES, _MOST_LEVELS = 64 * 2**20, 50

_Text = Annotated[str, Field(min_length=1)]
_Figure = Annotated[float, Field(allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    # Not protected: a receipt has a part called `model`.
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", protected_namespaces=())


class _Export(_Part):
    digest: _Text
    code: str = ""
    files: dict[str, str]


class _Evaluation(_Part):
    test_digest: _Text
    accuracy: _Share
    accuracy_low: _Share | None = None
    accuracy_high: _Share | None = None
    test_examples: int | None = None


class _Data(_Part):
    name: _Text
    version: str = "?"
    digest: _Text
    classes: Annotated[list[str], Field(min_length=1)]
    image_shape: list[int] | None = None


class _Trained(_Part):
    digest: _Text
    model: str = "?"
    epochs: int | None = None


class _Model(_Part):
    parameters: int | None = None


class _Verification(_Part):
    latency_p50_ms: _Figure | None = None
    latency_p99_ms: _Figure | None = None


class _Decision(_Part):
    code: str | None = None
    reason: str = "?"


class Receipt(_Part):
    """What others rely on: the keys without a default must be there, and each has its type."""

    version: int
    created: _Text
    export: _Export
    evaluation: _Evaluation
    data: _Data
    trained: _Trained
    decision: _Decision
    flow_run: str = ""
    seed: int | None = None
    model: _Model = _Model()
    verification: _Verification = _Verification()
    versions: dict[str, str] = {}


def read_json(file: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is not JSON in UTF-8, is larger than 64 MiB, or is nested more than 50 levels deep.
    """
    with file.open("rb") as stream:
        content = stream.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"{file} is larger than {_MOST_BYTES} bytes")
    try:
        found = json.loads(content.decode())
        json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair can't be printed
    except RecursionError:
        raise ValueError(f"{file} is nested too deep") from None
    if _levels(found) > _MOST_LEVELS:
        raise ValueError(f"{file} is nested too deep")
    return found


def read(file: Path) -> dict[str, Any]:
    """A receipt, with at least the keys of ``Receipt``.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is no receipt.
    """
    found = read_json(file)
    Receipt.model_validate(found)
    return found


def identity(receipt: dict[str, Any]) -> str:
    """Which model a receipt is of: SHA-256 of network, weights, classes, and of the code that makes them answer.

    Not of the files: a model that was exported again, after its folder was deleted, has other bytes and is the same.
    """
    made = [receipt["trained"]["digest"], receipt["export"].get("code", ""), *receipt["data"]["classes"]]
    return hashlib.sha256(json.dumps(made).encode()).hexdigest()


def damage(folder: Path) -> str | None:
    """What of a published version is not as its list of digests and its receipt say, or nothing.

    The files of the version are compared with the list, the list with the receipt, and the contract, by which clients
    name the classes, with the receipt. Whoever changed all of them together goes unnoticed here.
    """
    if found := checksums.damage(folder):
        return found
    try:
        receipt = Receipt.model_validate(read_json(folder / RECEIPT))
        contract = read_json(folder / EXTRA / "contract.json")
        classes, shape = contract["classes"], contract["image_shape"]
    except FileNotFoundError as error:
        return f"{Path(error.filename).relative_to(folder).as_posix()} is missing"
    except ValidationError:
        return f"{RECEIPT} is not a complete receipt"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{RECEIPT} or {EXTRA}/contract.json can't be read"
    listed = {name: digest for name, digest in checksums.listed(folder).items() if name not in (RECEIPT, REPORT)}
    said = {name: digest for name, digest in receipt.export.files.items() if name != DIGESTS}
    if name := checksums.first_difference(said, listed):
        return f"{name} is not the file of which the receipt tells"
    whole = hashlib.sha256(checksums.listing(listed).encode()).hexdigest()
    if not whole == receipt.export.digest == receipt.export.files.get(DIGESTS):
        return "the digest of the export in the receipt is not that of its files"
    if classes != receipt.data.classes:
        return "the classes in contract.json are not those in the receipt"
    if receipt.data.image_shape is not None and shape != receipt.data.image_shape:
        return "the image shape in contract.json is not that in the receipt"
    return None


def _levels(content: Any) -> int:
    """How deep lists and objects are nested, counted no further than needed."""
    levels, inner = 0, [content]
    while inner and levels <= _MOST_LEVELS:
        parts = [part for part in inner if isinstance(part, dict | list)]
        inner = [each for part in parts for each in (part.values() if isinstance(part, dict) else part)]
        levels += bool(parts)
    return levels
