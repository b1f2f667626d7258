"""The decision whether a proved model is published, and the receipt of how it came about."""

import importlib.metadata
import json
import logging
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from layerflow import registry, store
from layerflow.code import code_digest
from layerflow.config import RetrainConfig
from layerflow.errors import VerificationError
from layerflow.records import (
    DatasetRef,
    Evaluation,
    ExportRef,
    ModelRef,
    Promotion,
    Status,
    TrainedRef,
    Verification,
)

log = logging.getLogger(__name__)

_LIBRARIES = ("layerflow", "tensorflow", "keras", "numpy", "tensorflow-datasets", "prefect")


class Decision(NamedTuple):
    """What was decided and why. ``version`` is the one in service after it."""

    status: Status
    reason: str
    version: int | None
    champion: int | None


class Challenger(NamedTuple):
    """All that is known of the model that asks to be published."""

    data: DatasetRef
    model: ModelRef
    trained: TrainedRef
    evaluation: Evaluation
    export: ExportRef
    verification: Verification


def promote(config: RetrainConfig, challenger: Challenger, flow_run: str) -> Promotion:
    """Publish the challenger as the next version if it may be, or keep the champion; leave a receipt either way.

    The champion is the highest published version. The challenger is published if it reaches
    ``gate.min_accuracy`` and is not less accurate than the champion on the same test examples.

    Raises:
        VerificationError: If the verification is not of this export.
    """
    name, evaluation, export = config.registry_name, challenger.evaluation, challenger.export
    if challenger.verification.export_digest != export.digest:
        raise VerificationError("The verification must be of the model that is to be published; it is of another.")
    with store.locked(f"models-{name}"):
        champion = next(iter(registry.versions(name)), None)
        theirs = registry.receipt_of(name, champion) if champion else None
        decision = _decide(config, challenger, champion, theirs)
        if decision.status == "unchanged":
            receipt_file = registry.home(name) / str(champion) / registry.RECEIPT
        elif decision.status == "kept":
            receipt_file = _file_receipt(name, _receipt(config, challenger, flow_run, decision))
        else:
            receipt = _receipt(config, challenger, flow_run, decision)
            receipt_file = registry.publish(name, decision.version or 1, export, receipt) / registry.RECEIPT
    log.info("%s: %s", decision.status, decision.reason)
    return Promotion(
        status=decision.status,
        reason=decision.reason,
        name=name,
        version=decision.version,
        published=_relative(registry.home(name) / str(decision.version)) if decision.version else None,
        accuracy=evaluation.accuracy,
        test_examples=evaluation.test_examples,
        champion_version=champion,
        champion_accuracy=theirs["evaluation"]["accuracy"] if theirs else None,
        receipt=_relative(receipt_file),
    )


def _decide(
    config: RetrainConfig, challenger: Challenger, champion: int | None, theirs: dict[str, Any] | None
) -> Decision:
    if champion and theirs and theirs["export"]["digest"] == challenger.export.digest:
        return Decision("unchanged", f"version {champion} is this very model", champion, champion)
    if refusal := _refusal(config, challenger.evaluation, champion, theirs):
        return Decision("kept", refusal, champion, champion)
    return Decision("promoted", _merit(challenger.evaluation, champion, theirs), (champion or 0) + 1, champion)


def _refusal(
    config: RetrainConfig, evaluation: Evaluation, champion: int | None, theirs: dict[str, Any] | None
) -> str | None:
    """Why the challenger must not be published, or nothing."""
    # Asked this way round, a figure that is not a number passes no floor.
    if not evaluation.accuracy >= config.gate.min_accuracy:
        return f"accuracy {evaluation.accuracy:.4f} is below gate.min_accuracy {config.gate.min_accuracy}"
    if champion is None:
        return None
    if theirs is None:
        return f"champion {champion} carries no receipt to be compared with"
    if theirs["evaluation"]["test_digest"] != evaluation.test_digest:
        return f"champion {champion} was scored on other test examples"
    if not evaluation.accuracy >= theirs["evaluation"]["accuracy"]:
        their_accuracy = theirs["evaluation"]["accuracy"]
        return f"accuracy {evaluation.accuracy:.4f} is below the {their_accuracy:.4f} of champion {champion}"
    return None


def _merit(evaluation: Evaluation, champion: int | None, theirs: dict[str, Any] | None) -> str:
    if champion is None or theirs is None:
        return f"accuracy {evaluation.accuracy:.4f}, and there was no champion"
    return f"accuracy {evaluation.accuracy:.4f} against {theirs['evaluation']['accuracy']:.4f} of champion {champion}"


def _receipt(config: RetrainConfig, challenger: Challenger, flow_run: str, decision: Decision) -> dict[str, Any]:
    """Everything needed to know, years later, how this model came about."""
    records = {name: record.model_dump(mode="json") for name, record in challenger._asdict().items()}
    return {
        "name": config.registry_name,
        "version": decision.version if decision.status == "promoted" else None,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "flow_run": flow_run,
        "config": config.model_dump(mode="json"),
        "seed": config.training.seed,
        "code": code_digest(Path(__file__).with_name("training.py")),
        "versions": {
            "python": platform.python_version(),
            **{library: importlib.metadata.version(library) for library in _LIBRARIES},
        },
        "history": records["trained"].pop("history"),
        **records,
        "decision": decision._asdict(),
    }


def _file_receipt(name: str, receipt: dict[str, Any]) -> Path:
    """Keep the receipt of a model that was not published, among those of its name."""
    champion = receipt["decision"]["champion"]
    file = store.root() / "receipts" / name / f"{receipt['export']['digest'][:16]}-against-{champion}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    store.write_atomically(file, json.dumps(receipt, indent=2).encode())
    return file


def _relative(path: Path) -> str:
    return path.relative_to(store.root()).as_posix()
