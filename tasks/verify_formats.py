"""Step 9, where `export.formats` asks for it: proof of each format, in a process that has no TensorFlow."""

from pathlib import Path

from layerflow.converted import Converted
from layerflow.outcomes import FormatsProof
from layerflow.records import DatasetRef, Evaluation, ExportRef, Verification
from layerflow.settings.gate import GateConfig
from tasks.caching import step
from tasks.cards import card_shown


@step(
    "verify_formats",
    run_name="verify-formats-of-{data.name}",
    not_hashed=("verification",),  # what it counted follows from the export and the data; its latencies don't matter
    on_result=card_shown("formats", "The model in other formats: size, accuracy, latency, and what is left out"),
)
def verify_formats(
    gate: GateConfig,
    converted: Converted,
    export: ExportRef,
    evaluation: Evaluation,
    verification: Verification,
    data: DatasetRef,
    libraries: dict[str, str],
    folder: Path,
) -> FormatsProof:
    """Score the whole test split with each format's own runtime, and compare it with what the SavedModel answers."""
    from layerflow.cards.formats import write_card
    from layerflow.registry.formats import prove

    proof = prove(gate, converted, export, evaluation, verification, data, folder)
    write_card(proof, export, verification, folder)
    return proof
