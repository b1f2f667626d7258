"""Step 7: proof, in a process that knows nothing of this code."""

from pathlib import Path

from layerflow.export.verification import Verifier, verify
from layerflow.records import DatasetRef, Evaluation, ExportRef, Verification
from tasks.caching import step
from tasks.cards import card_shown

#: What starts the verifying process: early, while the model is trained; the decision asks the same process.
verifier = Verifier()


@step(
    "verify_export",
    run_name="verify-export-of-{data.name}",
    on_result=card_shown("export", "The exported model: what was verified, its signature and its files"),
)
def verify_export(export: ExportRef, evaluation: Evaluation, data: DatasetRef, folder: Path) -> Verification:
    """Reload the export in a fresh process and score the whole test split with what ships."""
    from layerflow.cards.export import write_card

    verification = verify(export, evaluation, data, verifier)
    write_card(verification, export, folder)
    return verification
