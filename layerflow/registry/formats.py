"""Whether a model in another format may ship: its answers are the SavedModel's, or they are proved no worse."""

import logging
import shutil
from pathlib import Path
from typing import Any

from layerflow import store
from layerflow.converted import FILES, Converted
from layerflow.errors import VerificationError
from layerflow.evaluation.statistics import LEVEL, mcnemar, p_text
from layerflow.export.own_formats import score_own_format
from layerflow.export.portable import score_format
from layerflow.outcomes import FormatProof, FormatsProof
from layerflow.records import Check, DatasetRef, Evaluation, ExportRef, Verification
from layerflow.registry.gate import below_floor
from layerflow.settings.gate import GateConfig

log = logging.getLogger(__name__)

_FIGURES = ("test_accuracy", "max_difference", "latency_p50_ms", "latency_p99_ms")
#: Of the verification, what a format has figures of its own for.
_COUNTS = ("test_accuracy", "class_right", "class_predicted", "slice_right", "latency_p50_ms", "latency_p99_ms")


def prove(
    gate: GateConfig,
    converted: Converted,
    export: ExportRef,
    evaluation: Evaluation,
    verification: Verification,
    data: DatasetRef,
    folder: Path,
) -> FormatsProof:
    """Verify each format with its own runtime, and put the files of those that may ship into ``folder / "formats"``."""
    proofs = [FormatProof(name=name, reason=f"it can't be made: {why}") for name, why in converted.failed.items()]
    for name, digest in converted.files.items():
        file = store.path(f"{converted.folder}/{converted.file_of(name)}")
        proof = FormatProof(name=name, file=file.name, digest=digest, size=file.stat().st_size)
        try:
            if name in FILES:
                report = score_format(export, evaluation, data, name, file, digest)
            else:
                report = score_own_format(evaluation, data, name, file)
            proof = judged(gate, proof, report, evaluation, verification)
        except VerificationError as error:
            proof = proof.model_copy(update={"reason": str(error)})
        if proof.reason is None:
            (folder / "formats").mkdir(exist_ok=True)
            shutil.copyfile(file, folder / "formats" / proof.file)
        else:
            log.warning("%s is left out: %s", proof.file, proof.reason)
        proofs.append(proof)
    proofs.sort(key=lambda each: each.name)
    return FormatsProof(export_digest=export.digest, formats=tuple(proofs))


def judged(
    gate: GateConfig, proof: FormatProof, report: dict[str, Any], evaluation: Evaluation, verification: Verification
) -> FormatProof:
    """A format with its figures, and why it may not ship, if so.

    It is compared with the SavedModel on the same test examples, by the gate's test and margin, and must reach the
    floors that the SavedModel reaches. One with the trained weights has the same answers: only a quantized one can
    fail here.
    """
    ours, theirs = report["only_this"], report["only_saved_model"]
    difference, p_value = (ours - theirs) / report["test_examples"], mcnemar(ours, theirs)
    figures = f"accuracy {report['test_accuracy']:.4f} ({difference:+.4f}, McNemar {p_text(p_value)})"
    as_verified = verification.model_copy(
        update={
            name: tuple(report[name]) if isinstance(report[name], list) else report[name]
            for name in _COUNTS
            if name in report
        }
    )
    reason = None
    if difference < 0 and (p_value < LEVEL or difference < -gate.margin - 1e-9):
        reason = f"worse than the SavedModel, by the rule of gate.margin {gate.margin}: {figures}"
    elif not below_floor(gate, evaluation, verification) and (floor := below_floor(gate, evaluation, as_verified)):
        reason = floor
    return proof.model_copy(
        update={
            **{name: report[name] for name in _FIGURES},
            "runtime": report["runtime"],
            "checks": tuple(Check(name=name, detail=detail) for name, detail in report["checks"].items()),
            "difference": difference,
            "p_value": p_value,
            "reason": reason,
        }
    )
