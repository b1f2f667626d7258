"""A model in other formats as people look at it: size, accuracy and latency of each, and why one is left out."""

from pathlib import Path

from layerflow import store
from layerflow.cards.markdown import plain, table, write
from layerflow.outcomes import FormatProof, FormatsProof
from layerflow.records import ExportRef, Verification


def write_card(proof: FormatsProof, export: ExportRef, verification: Verification, folder: Path) -> None:
    """Write ``card.md``."""
    model = store.path(export.saved_model)
    size = sum((model / name).stat().st_size for name in export.files)
    saved_model = (
        "SavedModel",
        f"{size:,}",
        f"{verification.test_accuracy:.4f}",
        f"{verification.latency_p50_ms:.3f}",
        f"{verification.latency_p99_ms:.3f}",
        f"TensorFlow {verification.tensorflow}",
    )
    parts = [
        "# Other formats",
        f"{len(proof.proved)} of {len(proof.formats)} formats are proved on all {verification.test_examples:,} test "
        "examples, each by its own runtime in a process without TensorFlow.",
        table(
            ("format", "bytes", "accuracy", "median ms", "99 % within ms", "runtime"),
            [saved_model, *(_row(each) for each in proof.formats)],
        ),
    ]
    if left_out := [each for each in proof.formats if each.reason]:
        parts += ["## Left out", table(("format", "why"), [(each.name, plain(each.reason or "")) for each in left_out])]
    for each in proof.formats:
        if each.checks:
            checks = [(check.name.replace("_", " "), check.detail) for check in each.checks]
            parts += [f"## `{each.file}`", f"SHA-256 `{each.digest}`", table(("check", "result"), checks)]
    write(folder, parts)


def _row(proof: FormatProof) -> tuple[str, ...]:
    def figure(value: float | None, digits: int) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    return (
        f"`{proof.name}`" + ("" if proof.reason is None else ", left out"),
        f"{proof.size:,}" if proof.size else "",
        figure(proof.test_accuracy, 4),
        figure(proof.latency_p50_ms, 3),
        figure(proof.latency_p99_ms, 3),
        proof.runtime,
    )
