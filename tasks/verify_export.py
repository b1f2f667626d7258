"""Step 7: proof, in a process that knows nothing of this code."""

from pathlib import Path

from layerflow.export.verification import Verifier, verify
from layerflow.records import DatasetRef, Evaluation, ExportRef, Verification
from layerflow.settings.data import DataConfig
from tasks.caching import step
from tasks.cards import card_shown

#: What starts the verifying process: early, while the model is trained; the decision asks the same process.
verifier = Verifier()


@step(
    "verify_export",
    run_name="verify-export-of-{data.name}",
    not_hashed=("source",),
    on_result=card_shown("export", "The exported model: what was verified, its signature and its files"),
)
def verify_export(
    export: ExportRef, evaluation: Evaluation, data: DatasetRef, source: DataConfig, folder: Path
) -> Verification:
    """Reload the export in a fresh process and score the whole test split with what ships.

    ``source`` only says where the files of ``data`` are.
    """
    from layerflow.cards.export import write_card
    from layerflow.data.files_of_test import files_of_test

    verification = verify(export, evaluation, data, verifier, files_of_test(data, source.path))
    write_card(verification, export, folder)
    return verification
