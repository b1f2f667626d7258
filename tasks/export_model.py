"""Step 6: a SavedModel for service."""

from pathlib import Path

from layerflow.records import DatasetRef, ExportRef, TrainedRef
from layerflow.settings.devices import DevicesConfig
from tasks.caching import step


@step("export_model", run_name="export-{trained.model}-of-{data.name}", hash_all_fields_of=("devices",))
def export_model(trained: TrainedRef, data: DatasetRef, devices: DevicesConfig, folder: Path) -> ExportRef:
    """Export the model with its preprocessing, golden examples and the digest of every file."""
    from layerflow.devices import set_up
    from layerflow.export.saved_model import export

    set_up(devices)
    return export(trained, data, folder)
