"""The receipt in a published version: how it is read, and what of the version is not as it says.

A receipt is data from disk like any other. ``read`` is the only way to one: what it returns has every key of
``Receipt``, of the right type. Other keys are there as they were written.
"""

import hashlib
import importlib.metadata
import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from layerflow import card_file, checksums
from layerflow.checksums import DIGESTS, EXTRA
from layerflow.code_digest import code_digest
from layerflow.config import RetrainConfig
from layerflow.errors import mask
from layerflow.json_file import read_json
from layerflow.outcomes import FormatsProof, OwnFigures, OwnFindings
from layerflow.records import Change, DataReport, DatasetRef, Evaluation, ExportRef, ModelRef, TrainedRef, Verification
from layerflow.registry.layout import BESIDE, FORMATS, RECEIPT, SIGNATURE
from layerflow.registry.receipt_formats import FormatsTold, formats_of
from layerflow.serving import Serving

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
    serving: Serving = Serving()


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
    formats: FormatsTold = FormatsTold()
    versions: dict[str, str] = {}


def read(file: Path) -> dict[str, Any]:
    """A receipt, with at least the keys of ``Receipt``.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is no receipt.
    """
    found = read_json(file)
    Receipt.model_validate(found)
    return found


def damage(folder: Path) -> str | None:
    """What of a published version is not as its list of digests and its receipt say, or nothing.

    The files of the version are compared with the list, the list with the receipt, and the contract, by which clients
    name the classes, with the receipt. Whoever changed all of them together goes unnoticed here.
    """
    if found := damage_of_files(folder):
        return found
    try:
        receipt = Receipt.model_validate(read_json(folder / RECEIPT))
        contract = read_json(folder / EXTRA / "contract.json")
        classes, shape = contract["classes"], contract["image_shape"]
        served = {name: contract[name] for name in Serving.model_fields if name in contract}
    except FileNotFoundError as error:
        return f"{Path(error.filename).relative_to(folder).as_posix()} is missing"
    except ValidationError:
        return f"{RECEIPT} is not a complete receipt"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{RECEIPT} or {EXTRA}/contract.json can't be read"
    listed = {name: digest for name, digest in checksums.listed(folder).items() if name not in BESIDE}
    converted = {name: listed.pop(name) for name in list(listed) if name.startswith(f"{FORMATS}/")}
    told = {f"{FORMATS}/{name}": digest for name, digest in receipt.formats.published.items()}
    if name := checksums.first_difference(converted, told):
        return f"{name} is not the file of which the receipt tells"
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
    if served != receipt.evaluation.serving.model_dump(exclude_defaults=True):
        return "the temperature or the threshold in contract.json is not that in the receipt"
    return None


def damage_of_files(folder: Path) -> str | None:
    """What is not as the list of digests of a version says: ``checksums.damage``, but for the signature.

    The list can't have its digest, since the signature is of the list too.
    """
    try:
        expected = checksums.listed(folder)
    except (OSError, ValueError):
        return f"{DIGESTS} can't be read"
    present = {name: sha for name, sha in checksums.digests(folder).items() if name not in (DIGESTS, SIGNATURE)}
    if (name := checksums.first_difference(expected, present)) is None:
        return None
    if name not in present:
        return f"{name} is missing"
    return f"{name} was changed" if name in expected else f"{name} does not belong to the model"


def damage_of_receipt(folder: Path) -> str | None:
    """What is wrong with the receipt of a version of which only the receipt and the list of digests are here."""
    try:
        listed = checksums.listed(folder).get(RECEIPT)
        is_listed = listed == checksums.sha256(folder / RECEIPT)
    except (OSError, ValueError):
        return f"{RECEIPT} or {DIGESTS} can't be read"
    return None if is_listed else f"{RECEIPT} was changed"


#: Where a model comes from: the fields of a receipt that a comparison of two reports.
_ORIGIN = ("data", "config", "code", "versions")
_PLACES = ("data.folder", "config.data.mirror", "config.registry.card")
_FIGURES = (
    ("model", "parameters"),
    ("trained", "epochs"),
    ("evaluation", "accuracy"),
    ("evaluation", "loss"),
    ("verification", "latency_p99_ms"),
)
_LIBRARIES = ("layerflow", "tensorflow", "keras", "numpy", "tensorflow-datasets", "prefect")


class Challenger(NamedTuple):
    """All that is known of the model that asks to be published."""

    data: DatasetRef
    checked: DataReport
    model: ModelRef
    trained: TrainedRef
    evaluation: Evaluation
    export: ExportRef
    verification: Verification
    formats: FormatsProof | None = None
    own_checks: OwnFindings | None = None
    own_metrics: OwnFigures | None = None

    def formats_beyond(self, receipt: dict[str, Any] | None) -> tuple[list[str], list[str]]:
        """The files in other formats that it has and the version with the receipt has not, and the other way round."""
        theirs = formats_of(receipt).published if receipt else {}
        ours = self.formats.proved if self.formats else {}
        return sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())


def changes(before: dict[str, Any], after: dict[str, Any], *, figures: bool = False) -> tuple[Change, ...]:
    """What two receipts say differently about where their models come from, and with ``figures`` how good they are."""
    old, new = (_flat({key: receipt.get(key) for key in _ORIGIN}) for receipt in (before, after))
    if figures:
        for flat, receipt in ((old, before), (new, after)):
            flat |= {f"{part}.{figure}": receipt.get(part, {}).get(figure) for part, figure in _FIGURES}
            flat |= _flat(Receipt.model_validate(receipt).evaluation.serving.model_dump(), "evaluation.serving.")
    fields = [*old, *(field for field in new if field not in old)]
    return tuple(
        Change(field=field, before=mask(old.get(field)), after=mask(new.get(field)))
        for field in fields
        if old.get(field) != new.get(field) and field not in _PLACES
    )


def receipt_for(config: RetrainConfig, challenger: Challenger, flow_run: str) -> dict[str, Any]:
    """Everything needed to know, years later, how this model came about.

    Raises:
        ConfigError: If what a person says in ``registry.card`` can't be read.
    """
    records = {name: record.model_dump(mode="json") for name, record in challenger._asdict().items() if record}
    person = card_file.read(config.registry.card)
    # Where a key is kept does not concern those who read a receipt.
    settings = config.model_dump(mode="json", exclude={"registry": {"sign"}})
    receipt = {
        "name": config.registry_name,
        "version": None,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "flow_run": flow_run,
        "config": {**settings, "model": {"name": config.model.name, **challenger.model.settings}},
        "seed": config.training.seed,
        "code": code_digest("layerflow.training.train"),
        "versions": {
            "python": platform.python_version(),
            **{library: importlib.metadata.version(library) for library in _LIBRARIES},
        },
        "card": person.model_dump(exclude_none=True) if person else {},
        "history": records["trained"].pop("history"),
        **records,
    }
    return mask(json.loads(json.dumps(receipt)))  # as it will be read: a tuple of the settings is no change of a list


def _flat(content: dict[str, Any], path: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return flat
