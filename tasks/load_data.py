"""Step 1: images and labels, as arrays on disk."""

from pathlib import Path

from layerflow.config import DataConfig
from layerflow.records import DatasetRef
from tasks.policy import step


@step("load_data", run_name="load-{config.name}", tags=("data",))
def load_data(config: DataConfig, folder: Path) -> DatasetRef:
    """Prepare the dataset through TensorFlow Datasets and divide it into train, validation and test."""
    from layerflow.data import load

    return load(config, folder)
