"""Step 3: learning. A retry goes on from the last checkpoint."""

from pathlib import Path

from layerflow.config import TrainingConfig
from layerflow.records import DatasetRef, ModelRef, TrainedRef
from tasks.policy import step


@step("train_model", run_name="train-{model.name}-on-{data.name}", resumes=True, tags=("training", "gpu"))
def train_model(config: TrainingConfig, model: ModelRef, data: DatasetRef, folder: Path) -> TrainedRef:
    """Train with early stopping on the validation loss, and keep the weights of the best epoch."""
    from layerflow.training import train

    return train(config, model, data, folder)
