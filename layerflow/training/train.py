"""Training that is never lost: in this process, or by several workers."""

import logging
from collections.abc import Sequence
from pathlib import Path

import keras

from layerflow import devices, store
from layerflow.records import DatasetRef, ModelRef, TrainedRef
from layerflow.settings.augment import AugmentConfig
from layerflow.settings.devices import DevicesConfig
from layerflow.settings.finetune import FinetuneConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training.checkpoint import checkpoint_of
from layerflow.training.fingerprint import fingerprint_of
from layerflow.training.session import train_here

log = logging.getLogger(__name__)


def train(
    config: TrainingConfig,
    model: ModelRef,
    data: DatasetRef,
    folder: Path,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    machine: DevicesConfig = DevicesConfig(),  # noqa: B008  (frozen)
    anew: bool = False,
    augment: AugmentConfig = AugmentConfig(),  # noqa: B008  (frozen)
    finetune: FinetuneConfig = FinetuneConfig(),  # noqa: B008  (frozen)
) -> TrainedRef:
    """Train ``model`` and write ``model.keras``, with the weights of its best epoch, computing in float32.

    The checkpoint is in the store, under a fingerprint of config, data, model, code and ``devices.threads``: whatever
    interrupts the training, the next call with the same ones goes on from there and ends with the same bits. Where no
    threads are set, one worker has as many as cores, and each of several has one: where a training goes on with
    another number, the last bits differ, and a warning says so.
    More epochs than before continue it too, unless the schedule stretches over them. Fewer start anew, beside the
    longer training's checkpoint.

    Args:
        callbacks: Keras callbacks, called in the order of ``fit``; their batch hooks are not, for a batch is no call.
            With several workers they are called in this process, where no network is: they can watch, not stop.
        machine: How each of several workers sets up its devices; for one, the caller has. Its threads, where they are
            set, and whether it is deterministic are part of the fingerprint.
        anew: Whether to begin at the first epoch even where there is a checkpoint.
        augment: What is done to the images at random.
        finetune: How a network learns that starts from given weights.

    Raises:
        NonFiniteLossError: As soon as a step's loss is infinite or not a number; the last checkpoint is kept.
        OutOfMemoryError: If a batch does not fit on the device.
        ConfigError: If Keras knows no such optimizer or schedule; if there is no Ray for several workers.
        ClusterError: If the cluster is too small for the workers, or one of its nodes can't take part.
        WorkersLostError: If workers died again and again.
    """
    fingerprint = fingerprint_of(config, model, data, machine, augment, finetune)
    with store.locked(f"training-{fingerprint}"):
        if anew:
            checkpoint_of(fingerprint, config.epochs).discard()
        if config.workers > 1:
            from layerflow.training.ray_driver import train_on_ray

            return train_on_ray(
                train_here, config, augment, finetune, model, data, folder, fingerprint, callbacks, machine
            )
        trained = train_here(config, augment, finetune, model, data, folder, fingerprint, callbacks, devices.strategy())
    assert trained
    return trained
