"""Step 7: proof, in a process that knows nothing of this code."""

from pathlib import Path

from layerflow.records import DatasetRef, Evaluation, ExportRef, Verification
from tasks.policy import step


@step("verify_export", run_name="verify-export-of-{data.name}", tags=("export",))
def verify_export(export: ExportRef, evaluation: Evaluation, data: DatasetRef, folder: Path) -> Verification:
    """Reload the export in a fresh process and score the whole test split with what ships."""
    from layerflow.verification import verify

    return verify(export, evaluation, data)
