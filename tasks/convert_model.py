"""Step 8, where `export.formats` asks for it: the export in formats for other runtimes."""

from pathlib import Path

from layerflow.converted import Converted
from layerflow.records import DatasetRef, ExportRef
from tasks.caching import step


@step("convert_model", run_name="convert-export-of-{data.name}")
def convert_model(
    export: ExportRef, data: DatasetRef, formats: tuple[str, ...], libraries: dict[str, str], folder: Path
) -> Converted:
    """Convert the proved SavedModel. ``libraries`` has the versions of the converters and runtimes."""
    from layerflow.export.conversion import convert

    return convert(export, data, formats, folder)
