"""What TensorBoard shows of a training: its figures by epoch, how its weights are spread, and the network's graph."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from layerflow import store
from layerflow.records import DatasetRef, ModelRef
from layerflow.settings.augment import AugmentConfig
from layerflow.settings.devices import DevicesConfig
from layerflow.settings.finetune import FinetuneConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training.fingerprint import fingerprint_of

log = logging.getLogger(__name__)

#: Histograms of a training. Each takes milliseconds a weight, and kilobytes of the disk: too much for every epoch of a
#: short training and for every one of a long training, and so many show how the weights moved.
_HISTOGRAMS = 10


def folder_of(
    config: TrainingConfig,
    model: ModelRef,
    data: DatasetRef,
    machine: DevicesConfig = DevicesConfig(),  # noqa: B008  (frozen)
    augment: AugmentConfig = AugmentConfig(),  # noqa: B008  (frozen)
    finetune: FinetuneConfig = FinetuneConfig(),  # noqa: B008  (frozen)
) -> Path:
    """Where a training is logged: by network and data, then by when it began; a continued one keeps its folder."""
    runs = store.root() / "tensorboard" / f"{model.name.rpartition(':')[2]}-{data.name}"
    short = fingerprint_of(config, model, data, machine, augment, finetune)[:8]
    return next(runs.glob(f"*-{short}"), runs / f"{time.strftime('%Y%m%d-%H%M%S')}-{short}")


class RunLog(keras.callbacks.Callback):
    """Writes a training in TensorBoard's form, scalars with every epoch and histograms with every tenth of all.

    A disk that takes no more costs the log, never the training. Of several workers the figures alone come here: this
    process has no network then.

    Args:
        folder: Where; ``train`` and ``validation`` below it are drawn into the same charts.
        image_shape: ``(height, width, channels)``.
        epochs: Most epochs of the training.
    """

    def __init__(self, folder: Path, image_shape: tuple[int, ...], epochs: int) -> None:
        super().__init__()
        self.image_shape, self.every, self.epoch = image_shape, -(-epochs // _HISTOGRAMS), 0
        self.folder, self.is_new, self.is_broken = folder, not folder.exists(), False
        self.writers: dict[str, Any] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        """Open both logs, and write the graph unless they continue an earlier training."""
        with self._at_its_own_price():
            for split in ("train", "validation"):
                self.writers[split] = tf.summary.create_file_writer(str(self.folder / split))
        if self.is_new and self.model.built:
            images = tf.TensorSpec((None, *self.image_shape), tf.uint8)
            answer = tf.function(lambda x: self.model(x, training=False)).get_concrete_function(images)
            self._write("train", tf.summary.graph, answer.graph)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the figures of an epoch, and histograms where they are due."""
        self.epoch = epoch + 1
        if self.model.built:
            self._write("train", tf.summary.scalar, "learning_rate", self.model.optimizer.learning_rate)
        for name, value in (logs or {}).items():
            split = "validation" if name.startswith("val_") else "train"
            self._write(split, tf.summary.scalar, name.removeprefix("val_"), value)
        if self.epoch % self.every == 0:
            self._write_histograms()

    def on_train_end(self, logs: Any = None) -> None:
        if self.epoch % self.every:
            self._write_histograms()
        for split, writer in self.writers.items():
            self._write(split, writer.close)

    def _write_histograms(self) -> None:
        for weight in self.model.trainable_weights if self.model.built else ():
            self._write("train", tf.summary.histogram, weight.path, weight)
        for split, writer in self.writers.items():
            self._write(split, writer.flush)

    def _write(self, split: str, write: Callable[..., Any], *what: Any) -> None:
        """Call ``write`` where there is something to write to."""
        if split in self.writers:
            with self._at_its_own_price(), self.writers[split].as_default(self.epoch):
                write(*what)

    @contextlib.contextmanager
    def _at_its_own_price(self) -> Iterator[None]:
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            if not self.is_broken:
                log.warning("TensorBoard's log can't be written: %s", error)
            self.is_broken = True
