"""Proving an exported model in a process that knows nothing of this code."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layerflow import store
from layerflow.checksums import DIGESTS
from layerflow.data.arrays import where
from layerflow.errors import NotAnExportError, VerificationError
from layerflow.export.process import Verifier, or_new
from layerflow.records import Check, DatasetRef, Evaluation, ExportRef, Verification


def verify(
    export: ExportRef,
    evaluation: Evaluation,
    data: DatasetRef,
    verifier: Verifier | None = None,
    files: Sequence[tuple[str, str, int]] = (),
) -> Verification:
    """Reload the export in a fresh process, check it, and score the whole test split with what ships.

    Args:
        files: Path, SHA-256, and row of the files that test images were made of; each must become its row's pixels.
        verifier: What starts the process, or has started it; default: one that ends with this call.

    Raises:
        VerificationError: With the first check that failed, and what was expected and received.
    """
    tests = store.path(data.folder)
    slices = {"test_slices": str(tests / "test_slices.npy")} if data.slices else {}
    report = inspect(
        store.path(export.saved_model),
        verifier,
        export_digest=export.digest,
        test_images=where(data, "test"),
        test_labels=str(tests / "test_labels.npy"),
        predictions=str(store.path(evaluation.predictions)),
        test_files=list(files),
        **slices,
    )
    checks = tuple(Check(name=name, detail=detail) for name, detail in report.pop("checks").items())
    return Verification(export_digest=export.digest, checks=checks, **report)


def inspect(saved_model: Path, verifier: Verifier | None = None, **request: Any) -> dict[str, Any]:
    """Verify any model that layerflow exported, from its own files, and return the verifier's report.

    Args:
        saved_model: The SavedModel's folder.
        verifier: As ``verify`` takes it.
        **request: What else the verifier may check against: ``export_digest``, ``test_images``, ``test_labels``,
            ``test_slices``, ``test_files``, ``predictions``; ``seed``, by which the batches are drawn again as another
            report's.

    Raises:
        NotAnExportError: If the folder is no model exported by layerflow.
        VerificationError: With the first check that failed.
    """
    for needed in ("saved_model.pb", DIGESTS):
        if not (saved_model / needed).is_file():
            raise NotAnExportError(
                f"{saved_model} must be the folder of a SavedModel that layerflow exported. It has no {needed}; "
                "name a folder such as store/models/mlp-digits/1."
            )
    asked = {"saved_model": str(saved_model.absolute()), "digests": DIGESTS, **request}
    with or_new(verifier) as process:
        report = process.ask(asked, fresh=True)
    if "refused" in report:
        raise VerificationError(f"The model in {saved_model} is refused: {report['refused']}.")
    return report


def score_both(
    challenger: Path,
    champion: Path,
    data: DatasetRef,
    rows: Sequence[int],
    verifier: Verifier | None = None,
    other_classes: bool = False,
    answers: bool = False,
) -> dict[str, Any]:
    """Score two exported models on the same test examples, in one process.

    Args:
        data: The challenger's, whose test examples are scored.
        rows: The places of the examples among them.
        other_classes: Whether the champion may know other classes; then its answers are compared by name.
        verifier: As ``verify`` takes it; the process that verified the challenger may score it.
        answers: Whether the report has the probabilities too: ``answers`` of ``champion`` and ``challenger``, each
            with the ``shape`` ``(examples, classes)``, of the model's own classes, and the ``content``: ``float32`` in
            base64.

    Returns:
        The verifier's report: for each side ``accuracy``, ``lowest_recall``, ``lowest_class`` and latencies, and the
        numbers of examples that both, one or none of them got right; or ``not_comparable``, why the champion can't be
        scored.

    Raises:
        VerificationError: If the challenger itself fails.
    """
    request = {
        "saved_model": str(challenger),
        "champion": str(champion),
        "test_images": where(data, "test"),
        "test_labels": str(store.path(data.folder) / "test_labels.npy"),
        "rows": list(rows),
        "other_classes": other_classes,
        "answers": answers,
        "digests": DIGESTS,
    }
    with or_new(verifier) as process:
        report = process.ask(request, fresh=False)
    if "refused" in report:
        raise VerificationError(f"The model in {challenger} is refused: {report['refused']}.")
    return report
