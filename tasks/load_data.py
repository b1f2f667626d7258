"""Step 1: images and labels, as arrays on disk."""

from pathlib import Path

from layerflow.records import DatasetRef
from layerflow.remote import mirror
from layerflow.settings.data import DataConfig
from layerflow.settings.devices import DevicesConfig
from tasks import assets
from tasks.caching import step


@step("load_data", run_name="load-{config.title}", on_result=assets.loaded)
def load_data(config: DataConfig, devices: DevicesConfig, folder: Path) -> DatasetRef:
    """Prepare the dataset through TensorFlow Datasets and divide it into train, validation and test."""
    from layerflow.data.load import load
    from layerflow.devices import set_up

    set_up(devices)
    if config.path:  # of other datasets every example is read anyway
        mirror.bring_newest(config.title)
    return load(config, folder)
