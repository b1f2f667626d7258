"""Proving a model in other formats, each in a process that has its runtime and no TensorFlow."""

from pathlib import Path
from typing import Any

from layerflow import store
from layerflow.checksums import DIGESTS, EXTRA, sha256
from layerflow.converted import FILES
from layerflow.data.arrays import where
from layerflow.errors import ConfigError, VerificationError
from layerflow.export.process import Verifier
from layerflow.extras import require_runtime
from layerflow.records import DatasetRef, Evaluation, ExportRef


def runtime_of(name: str) -> str:
    """The runtime of a format, by the name that ``Verifier`` takes."""
    return name.partition("_")[0]


def inspect_format(saved_model: Path, name: str, file: Path, digest: str, **request: Any) -> dict[str, Any]:
    """Verify one file, by the golden examples of the SavedModel, and return the verifier's report.

    Args:
        **request: ``test_images``, ``test_labels``, ``test_slices`` and ``predictions``, where they are at hand.

    Raises:
        VerificationError: With the first check that failed.
    """
    verifier = Verifier(runtime_of(name))
    asked = {
        "saved_model": str(saved_model.absolute()),
        "digests": DIGESTS,
        "runtime": runtime_of(name),
        "file": str(file.absolute()),
        "digest": digest,
        "is_exact": not name.endswith("int8"),
        **request,
    }
    try:
        report = verifier.ask(asked, fresh=True)
    finally:
        verifier.end()
    if "refused" in report:
        raise VerificationError(f"{FILES[name]} is refused: {report['refused']}.")
    return report


def formats_of(folder: Path) -> dict[str, str]:
    """What was verified of each file in another format that a version has: a sentence by the name of the format.

    Of a format whose runtime is not installed, the sentence has the command that installs it. A format of your own is
    named by its file: what answers by it is code of yours, which is not started here.

    Raises:
        VerificationError: With the first check that failed.
    """
    files = folder / EXTRA / "formats"
    own = sorted(file.name for file in files.glob("*") if file.name not in FILES.values())
    told = dict.fromkeys(own, "not verified: it was proved when it was published, by an exporter of your own")
    for name, file in FILES.items():
        if not (place := files / file).is_file():
            continue
        try:
            require_runtime(name)
        except ConfigError as error:
            told[name] = f"not verified: {error}"
            continue
        report = inspect_format(folder, name, place, sha256(place))
        checks = report["checks"]
        told[name] = (
            f"{report['runtime']} in a process without TensorFlow: {checks['golden']}; {checks['batches']}; "
            f"{report['latency_p50_ms']:.3f} ms an image"
        )
    return told


def score_format(
    export: ExportRef, evaluation: Evaluation, data: DatasetRef, name: str, file: Path, digest: str
) -> dict[str, Any]:
    """``inspect_format`` with the whole test split.

    Raises:
        VerificationError: With the first check that failed.
    """
    tests = store.path(data.folder)
    slices = {"test_slices": str(tests / "test_slices.npy")} if data.slices else {}
    return inspect_format(
        store.path(export.saved_model),
        name,
        file,
        digest,
        test_images=where(data, "test"),
        test_labels=str(tests / "test_labels.npy"),
        predictions=str(store.path(evaluation.predictions)),
        **slices,
    )
