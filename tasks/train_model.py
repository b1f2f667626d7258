"""Step 4: learning. A retry goes on from the last checkpoint."""

from pathlib import Path

from layerflow.records import DatasetRef, ModelRef, TrainedRef
from layerflow.settings.augment import AugmentConfig
from layerflow.settings.devices import DevicesConfig
from layerflow.settings.finetune import FinetuneConfig
from layerflow.settings.training import TrainingConfig
from tasks import assets
from tasks.caching import is_anew, step
from tasks.cards import card_shown
from tasks.progress import OnEpoch, epochs_shown
from tasks.tracking import epochs_tracked
from tasks.verify_export import verifier

_show_card = card_shown("training", "The training: loss and accuracy by epoch, speed and set-up")


def _show(trained: TrainedRef) -> None:
    _show_card(trained)
    assets.trained(trained)


@step(
    "train_model",
    run_name="train-{model.name}-on-{data.name}",
    on_result=_show,
    hash_all_fields_of=("devices",),
)
def train_model(
    config: TrainingConfig,
    augment: AugmentConfig,
    finetune: FinetuneConfig,
    model: ModelRef,
    data: DatasetRef,
    devices: DevicesConfig,
    folder: Path,
    *,
    on_epoch: OnEpoch | None = None,
) -> TrainedRef:
    """Train with early stopping on the validation loss, and keep the weights of the best epoch.

    Args:
        on_epoch: Told each epoch of a trial, which trains for another process and is verified by nobody.
    """
    from layerflow.cards.training import write_card
    from layerflow.devices import set_up
    from layerflow.training.baseline import warn_if_not_beaten
    from layerflow.training.tensorboard import RunLog, folder_of
    from layerflow.training.train import train

    set_up(devices)
    if not on_epoch:
        verifier.start()
    run_log = RunLog(folder_of(config, model, data, devices, augment, finetune), data.image_shape, config.epochs)
    with epochs_shown(config.epochs, on_epoch) as shown:
        watching = [run_log, *shown, *([] if on_epoch else epochs_tracked(data, folder))]
        trained = train(config, model, data, folder, watching, devices, is_anew(), augment, finetune)
    # Not in `train`: its code decides which checkpoint is continued, and a card drawn otherwise is no other training.
    warn_if_not_beaten(trained, data)
    write_card(config, trained, data, folder)
    return trained
