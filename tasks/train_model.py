"""Step 4: learning. A retry goes on from the last checkpoint."""

from pathlib import Path

from layerflow.config import DevicesConfig, TrainingConfig
from layerflow.records import DatasetRef, ModelRef, TrainedRef
from tasks.policy import step
from tasks.progress import epochs_as_bar


@step("train_model", run_name="train-{model.name}-on-{data.name}", tags=("training", "gpu"))
def train_model(
    config: TrainingConfig, model: ModelRef, data: DatasetRef, devices: DevicesConfig, folder: Path
) -> TrainedRef:
    """Train with early stopping on the validation loss, and keep the weights of the best epoch."""
    from layerflow.devices import set_up
    from layerflow.training import train
    from layerflow.verification import start_early

    set_up(devices)
    start_early()
    return train(config, model, data, folder, epochs_as_bar(config.epochs))
