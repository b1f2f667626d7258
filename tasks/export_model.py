"""Step 6: a SavedModel for service."""

from pathlib import Path

from layerflow.records import DatasetRef, ExportRef, TrainedRef
from layerflow.serving import Serving
from layerflow.settings.devices import DevicesConfig
from tasks.caching import step


@step("export_model", run_name="export-{trained.model}-of-{data.name}", hash_all_fields_of=("devices",))
def export_model(
    trained: TrainedRef, serving: Serving, data: DatasetRef, devices: DevicesConfig, folder: Path
) -> ExportRef:
    """Export the model with its preprocessing, temperature and threshold, golden examples and every file's digest."""
    from layerflow.devices import set_up
    from layerflow.export.saved_model import export

    set_up(devices)
    return export(trained, data, folder, serving)
