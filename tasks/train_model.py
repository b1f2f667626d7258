"""Step 4: learning. A retry goes on from the last checkpoint."""

from pathlib import Path

from layerflow.records import DatasetRef, ModelRef, TrainedRef
from layerflow.settings.devices import DevicesConfig
from layerflow.settings.training import TrainingConfig
from tasks import progress
from tasks.caching import is_anew, step
from tasks.cards import card_shown
from tasks.verify_export import verifier


@step(
    "train_model",
    run_name="train-{model.name}-on-{data.name}",
    on_result=card_shown("training", "The training: loss and accuracy by epoch, speed and set-up"),
    hash_all_fields_of=("devices",),
)
def train_model(
    config: TrainingConfig, model: ModelRef, data: DatasetRef, devices: DevicesConfig, folder: Path
) -> TrainedRef:
    """Train with early stopping on the validation loss, and keep the weights of the best epoch."""
    from layerflow.cards.training import write_card
    from layerflow.devices import set_up
    from layerflow.training.baseline import warn_if_not_beaten
    from layerflow.training.tensorboard import RunLog, folder_of
    from layerflow.training.train import train

    set_up(devices)
    if not progress.listener:  # a trial is verified by nobody
        verifier.start()
    run_log = RunLog(folder_of(config, model, data, devices), data.image_shape, config.epochs)
    with progress.epochs_shown(config.epochs) as shown:
        trained = train(config, model, data, folder, [run_log, *shown], devices, is_anew())
    # Not in `train`: its code decides which checkpoint is continued, and a card drawn otherwise is no other training.
    warn_if_not_beaten(trained, data)
    write_card(config, trained, data, folder)
    return trained
