"""One training in one process: epochs by the engine, early stopping, and a checkpoint that is continued bit by bit."""

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from layerflow import devices, memory, store
from layerflow.data.arrays import images_and_labels
from layerflow.errors import NonFiniteLossError, OutOfMemoryError, UnreachableError
from layerflow.models.network_digest import digest_of
from layerflow.models.networks import load_model
from layerflow.models.precision import in_precision
from layerflow.models.predict import uses_xla
from layerflow.records import DatasetRef, Epoch, ModelRef, TrainedRef
from layerflow.settings.augment import AugmentConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training.augmentation import make_augmentation
from layerflow.training.callbacks import Callbacks, figures_of
from layerflow.training.checkpoint import Checkpoint, checkpoint_of
from layerflow.training.engine import Engine
from layerflow.training.epoch_windows import resident_bytes
from layerflow.training.metrics import make_metrics
from layerflow.training.objective import make_objective
from layerflow.training.optimizers import make_optimizer
from layerflow.training.progress import Progress
from layerflow.training.validation import Validation
from layerflow.training.workers import Workers

log = logging.getLogger(__name__)
#: Seconds between two lines of epochs in the log: short epochs would flood it. The first and the last are always there.
_LOG_SECONDS = 1.0
#: Share of a training's time that saving may take. Where an epoch is shorter than that allows (a large network, few
#: images), some epochs end without a checkpoint; the last never does.
_SAVING_SHARE = 0.1
_MIB = 2**20


def train_here(
    config: TrainingConfig,
    augment: AugmentConfig,
    model: ModelRef,
    data: DatasetRef,
    folder: Path,
    fingerprint: str,
    callbacks: Sequence[keras.callbacks.Callback],
    strategy: tf.distribute.Strategy,
) -> TrainedRef | None:
    """What ``train`` does, in this process, which may be one of several workers: the chief alone returns the record."""
    checkpoint = checkpoint_of(fingerprint, config.epochs)
    try:
        training = _Training(config, augment, model, data, checkpoint, strategy)
        training.run(callbacks)
    except tf.errors.ResourceExhaustedError as error:
        raise OutOfMemoryError(
            f"The device ran out of memory with {config.batch_size} images a step; "
            "lower training.batch_size or training.memory_budget, or use a smaller model."
        ) from error
    return training.ship(model, folder) if training.workers.is_chief else None


class _Training:
    """One training: network, optimizer, engine, progress, and the checkpoint of all of them."""

    def __init__(
        self,
        config: TrainingConfig,
        augment: AugmentConfig,
        model: ModelRef,
        data: DatasetRef,
        checkpoint: Checkpoint,
        strategy: tf.distribute.Strategy,
    ) -> None:
        self.config, self.checkpoint, self.strategy = config, checkpoint, strategy
        self.workers = Workers(strategy)
        images, labels = images_and_labels(data, "train")
        objective = make_objective(config, labels, data.classes)
        with self.strategy.scope():
            saved = load_model(model.name, store.path(model.keras))
            self.network = in_precision(saved, config.precision, data.image_shape)
            self.optimizer = make_optimizer(config, -(-len(labels) // config.batch_size))
            self.optimizer.build(self.network.trainable_variables)
            self.network.optimizer = self.optimizer  # where Keras' callbacks look for it
        # XLA can't compile what several replicas do together.
        self.xla = strategy.num_replicas_in_sync == 1 and uses_xla(self.network, data.image_shape, config.compile)
        budget = config.memory_budget * _MIB if config.memory_budget else memory.free_bytes() // 2
        self.streamed = self._agree_on_streaming(resident_bytes(images, labels) > budget)
        self.engine = Engine(
            self.network,
            self.optimizer,
            images,
            labels,
            config.batch_size,
            config.seed,
            self.xla,
            self.strategy,
            self.streamed,
            objective,
            make_augmentation(augment, data.image_shape, len(data.classes), config.seed),
        )
        if self.streamed:
            sizes = images.nbytes, images[:1].nbytes * self.engine.windows.rows, budget
            log.info(
                "streaming %s MiB of images in windows of %s MiB (budget %s MiB)",
                *(f"{size / _MIB:,.0f}" for size in sizes),
            )
        self.variables = [*self.network.variables, *self.optimizer.variables, *self.engine.variables]
        metrics = make_metrics(config, len(data.classes))
        held_out = images_and_labels(data, "validation")
        self.validation = Validation(self.network, *held_out, objective, metrics, self.workers, self.xla)
        self.callbacks = Callbacks(config, self.optimizer)
        self.threads = [devices.threads_in_use()]
        self.progress = self._resume() or Progress()
        self.began = time.perf_counter()
        self.saved_at, self.save_seconds = time.monotonic(), 0.0
        self.logged_at = -math.inf

    def ship(self, model: ModelRef, folder: Path) -> TrainedRef:
        """Write ``model.keras`` with the weights of the best epoch, and return the record."""
        shipped = load_model(model.name, store.path(model.keras))
        shipped.set_weights(self.progress.best_weights)
        shipped.save(folder / "model.keras")
        return TrainedRef(
            model=model.name,
            digest=digest_of(model.name, folder / "model.keras"),
            epochs=len(self.progress.history),
            best_epoch=self.progress.best_epoch,
            steps=int(self.optimizer.iterations.numpy()),
            compiled=self.compiled,
            feed="streamed" if self.streamed else "resident",
            threads=self.threads[-1],
            threads_before=tuple(self.threads[:-1]),
            replicas=self.strategy.num_replicas_in_sync,
            history=tuple(self.progress.history),
        )

    @property
    def compiled(self) -> str:
        """What runs the steps; XLA may turn out to be unable to."""
        return "xla" if self.xla else "graph"

    def run(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Train until the last epoch, or until ``patience`` is at its end."""
        if self.progress.is_over(self.config):
            return
        self.engine.warm_up()
        if self.xla and not self.engine.xla:
            self.xla = False
            self.validation.compile(xla=False)
        self.validation.figures()
        told = keras.callbacks.CallbackList(list(callbacks), model=self.network, epochs=self.config.epochs)
        self.network.stop_training = False
        told.on_train_begin()
        self.callbacks.on_train_begin(self.progress.history)
        while not (self.progress.is_over(self.config) or self.network.stop_training or self.callbacks.has_stopped):
            number = len(self.progress.history) + 1
            told.on_epoch_begin(number - 1)
            self.callbacks.on_epoch_begin(number - 1)
            figures = figures_of(self._run_epoch(number))
            self.callbacks.on_epoch_end(number - 1, figures)
            told.on_epoch_end(number - 1, figures)
        self.callbacks.on_train_end()
        told.on_train_end()
        if self.callbacks.has_stopped:
            log.info("a callback stopped the training after epoch %d", len(self.progress.history))
        elif len(self.progress.history) < self.config.epochs:
            log.info("stopped early: no better %s since epoch %d", self.config.monitor, self.progress.best_epoch)

    def _run_epoch(self, number: int) -> Epoch:
        self.began = time.perf_counter() - self.progress.seconds
        try:
            while not self.engine.run_chunk(number):
                if time.monotonic() - self.saved_at > self.config.checkpoint_seconds:
                    self.save()
        except BaseException as error:
            # Cancelled, timed out, interrupted: between two calls of the engine everything fits together.
            if not isinstance(error, tf.errors.OpError):
                self.save()
            raise
        loss = self.engine.loss
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"The loss must stay finite. It was not after step {self.engine.first_bad_step} of epoch {number}; "
                "lower training.learning_rate, and see that the images are what they should be."
            )
        return self._end_epoch(number, loss)

    def _end_epoch(self, number: int, loss: float) -> Epoch:
        """Validate, note the figures, keep the best weights, and save."""
        raw = self._average_weights()
        epoch = Epoch(
            epoch=number,
            loss=loss,
            accuracy=self.engine.accuracy,
            **self.validation.figures(),
            seconds=time.perf_counter() - self.began,
        )
        best = self.progress.is_better(epoch, self.config.monitor)
        weights = [weight.numpy() for weight in self.network.weights] if best else self.progress.best_weights
        for weight, value in zip(self.network.weights if raw else (), raw, strict=True):
            weight.assign(value)
        self.engine.start_epoch()
        self.progress = Progress([*self.progress.history, epoch], number if best else self.progress.best_epoch, weights)
        began, self.began = self.began, time.perf_counter()  # of the next one no time has passed in this checkpoint
        if self.progress.is_over(self.config) or self._may_save():
            self.save()
        epoch = epoch.model_copy(update={"seconds": time.perf_counter() - began})
        self.progress.history[-1] = epoch
        if time.monotonic() - self.logged_at < _LOG_SECONDS and not self.progress.is_over(self.config):
            return epoch
        self.logged_at = time.monotonic()
        log.info(
            "epoch %d/%d  loss %.4f  accuracy %.4f  val_loss %.4f  val_accuracy %.4f  %s images/s",
            *(number, self.config.epochs, epoch.loss, epoch.accuracy, epoch.val_loss, epoch.val_accuracy),
            f"{self.engine.examples / epoch.seconds:,.0f}",
        )
        return epoch

    def _agree_on_streaming(self, asked_for: bool) -> bool:
        """Whether any worker has to stream, for calls then end where a window does; and all resume at one checkpoint.

        Raises:
            UnreachableError: If this worker read another checkpoint than the others.
        """
        count, age = self.workers.count, self.checkpoint.age
        asked, ages, squares = self.workers.total([float(asked_for), float(age), float(age**2)])
        if (ages, squares) != (count * age, count * age**2):
            raise UnreachableError(f"All workers must read the same checkpoint. Received: number {age} and another")
        return asked > 0

    def _average_weights(self) -> list[np.ndarray]:
        """Where Keras' optimizer keeps a moving average, put it into the network, and return what was there."""
        inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        if not inner.use_ema:
            return []
        raw = [weight.numpy() for weight in self.network.weights]
        inner.finalize_variable_values(self.network.trainable_variables)
        return raw

    def _may_save(self) -> bool:
        return (time.monotonic() - self.saved_at) * _SAVING_SHARE >= self.save_seconds

    def save(self) -> None:
        """Write the checkpoint; of several workers, that all hold the same, the chief does."""
        if not self.workers.is_chief:
            return
        began = time.monotonic()
        arrays = {f"variable_{index}": variable.numpy() for index, variable in enumerate(self.variables)}
        arrays |= {f"best_{index}": weight for index, weight in enumerate(self.progress.best_weights)}
        history = [epoch.model_dump() for epoch in self.progress.history]
        seconds = time.perf_counter() - self.began
        state = {"history": history, "best_epoch": self.progress.best_epoch, "seconds": seconds}
        self.checkpoint.save(arrays, {**state, "threads": self.threads, "compiled": self.compiled})
        self.saved_at = time.monotonic()
        self.save_seconds = self.saved_at - began

    def _resume(self) -> Progress | None:
        """Set all variables to what an earlier run left and return its progress, if there is any that fits."""
        if self.checkpoint.found is None:
            return None
        arrays, state = self.checkpoint.found
        history = [Epoch(**epoch) for epoch in state["history"]]
        for index, variable in enumerate(self.variables):
            variable.assign(arrays[f"variable_{index}"])
        best = [arrays[f"best_{index}"] for index in range(sum(name.startswith("best_") for name in arrays))]
        if len(history) < self.config.epochs:
            log.info("resuming at epoch %d of %d", len(history) + 1, self.config.epochs)
        progress = Progress(history, state["best_epoch"], best, state.get("seconds", 0.0))
        if progress.is_over(self.config):  # a checkpoint of an earlier layerflow does not say
            self.xla = state.get("compiled", self.compiled) == "xla"
        before = state["threads"]
        if before[-1] == self.threads[-1] or progress.is_over(self.config):
            self.threads = before
        else:
            log.warning(
                "resuming with %d CPU threads a training that had %d: the last bits of the model will not be those of "
                "an uninterrupted one; set devices.threads, where machines have different numbers of cores",
                *(self.threads[-1], before[-1]),
            )
            self.threads = [*before, *self.threads]
        return progress
