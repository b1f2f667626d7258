"""One training in one process: epochs by the engine, early stopping, and a checkpoint that is continued bit by bit."""

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from layerflow import devices, store
from layerflow.errors import NonFiniteLossError, OutOfMemoryError, UnreachableError
from layerflow.models.network_digest import digest_of
from layerflow.models.networks import load_model
from layerflow.models.precision import in_precision
from layerflow.models.predict import uses_xla
from layerflow.models.seeded import seeded
from layerflow.records import DatasetRef, Epoch, ModelRef, TrainedRef
from layerflow.settings.augment import AugmentConfig
from layerflow.settings.finetune import FinetuneConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training.callbacks import figures_of
from layerflow.training.checkpoint import Checkpoint, checkpoint_of
from layerflow.training.learning import Learning
from layerflow.training.metrics import make_metrics
from layerflow.training.phases import Phase, freeze, phase_at, phases_of
from layerflow.training.progress import Progress
from layerflow.training.workers import Workers

log = logging.getLogger(__name__)
#: Seconds between two lines of epochs in the log: short epochs would flood it. The first and the last are always there.
_LOG_SECONDS = 1.0
#: Share of a training's time that saving may take. Where an epoch is shorter than that allows (a large network, few
#: images), some epochs end without a checkpoint; the last never does.
_SAVING_SHARE = 0.05


def train_here(
    config: TrainingConfig,
    augment: AugmentConfig,
    finetune: FinetuneConfig,
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
        training = _Training(config, augment, finetune, model, data, checkpoint, strategy)
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
        finetune: FinetuneConfig,
        model: ModelRef,
        data: DatasetRef,
        checkpoint: Checkpoint,
        strategy: tf.distribute.Strategy,
    ) -> None:
        self.config, self.augment, self.model, self.data = config, augment, model, data
        self.checkpoint, self.strategy, self.workers = checkpoint, strategy, Workers(strategy)
        self.first_age = checkpoint.age  # the same for all workers, of which the chief alone saves
        # Keras saves no state of random layers, and draws another one whenever a network is loaded.
        with self.strategy.scope(), seeded(config.seed):
            saved = load_model(model.name, store.path(model.keras))
            self.network = in_precision(saved, config.precision, data.image_shape)
        # XLA can't compile what several replicas do together.
        self.wants_xla = strategy.num_replicas_in_sync == 1 and uses_xla(self.network, data.image_shape, config.compile)
        self.metrics = make_metrics(config, len(data.classes))
        self.threads = [devices.threads_in_use()]
        self.phases = phases_of(config, finetune, model.weights)
        history = checkpoint.found[1]["history"] if checkpoint.found else ()
        self._begin(phase_at(self.phases, min(len(history) + 1, config.epochs)))
        self.progress = self._resume() or Progress()
        self.began = time.perf_counter()
        self.saved_at, self.save_seconds = time.monotonic(), 0.0
        self.logged_at = -math.inf

    def _begin(self, phase: Phase) -> None:
        freeze(self.network, phase)
        self.xla = self.wants_xla
        vars(self).pop("learning", None)  # its images need not be held beside those of the next phase
        self.learning = Learning(
            phase,
            self.augment,
            self.network,
            self.model.name,
            self.data,
            self.metrics,
            self.strategy,
            self.xla,
            self._agree_on_streaming,
        )

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
            head_epochs=sum(phase_at(self.phases, each.epoch).share == 0 for each in self.progress.history),
            steps=self.learning.steps,
            compiled=self.compiled,
            feed="streamed" if self.learning.streamed else "resident",
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
        if self.is_over:
            return
        self.xla = self.learning.warm_up(self.xla)
        told = keras.callbacks.CallbackList(list(callbacks), model=self.network, epochs=self.config.epochs)
        self.network.stop_training = False
        told.on_train_begin()
        self.learning.callbacks.on_train_begin(self.progress.history[self.learning.phase.first - 1 :])
        while not (self.is_over or self.network.stop_training or self.learning.callbacks.has_stopped):
            number = len(self.progress.history) + 1
            if (phase := phase_at(self.phases, number)) is not self.learning.phase:
                self._begin(phase)
                self.xla = self.learning.warm_up(self.xla)
                self.learning.callbacks.on_train_begin(())
            told.on_epoch_begin(number - 1)
            self.learning.callbacks.on_epoch_begin(number - 1)
            figures = figures_of(self._run_epoch(number))
            self.learning.callbacks.on_epoch_end(number - 1, figures)
            told.on_epoch_end(number - 1, figures)
        self.learning.callbacks.on_train_end()
        told.on_train_end()
        if self.learning.callbacks.has_stopped:
            log.info("a callback stopped the training after epoch %d", len(self.progress.history))
        elif len(self.progress.history) < self.config.epochs:
            log.info("stopped early: no better %s since epoch %d", self.config.monitor, self.progress.best_epoch)

    @property
    def is_over(self) -> bool:
        """Whether there was the last epoch, or ``patience`` is at its end; it begins with the last phase."""
        return self.progress.is_over(self.config, self.phases[-1].first - 1)

    def _run_epoch(self, number: int) -> Epoch:
        engine, self.began = self.learning.engine, time.perf_counter() - self.progress.seconds
        try:
            while not engine.run_chunk(number):
                if time.monotonic() - self.saved_at > self.config.checkpoint_seconds:
                    self.save()
        except BaseException as error:
            # Cancelled, timed out, interrupted: between two calls of the engine everything fits together.
            if not isinstance(error, tf.errors.OpError):
                self.save()
            raise
        loss = engine.loss
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"The loss must stay finite. It was not after step {engine.first_bad_step} of epoch {number}; "
                "lower training.learning_rate, and see that the images are what they should be."
            )
        return self._end_epoch(number, loss)

    def _end_epoch(self, number: int, loss: float) -> Epoch:
        """Validate, note the figures, keep the best weights, and save."""
        raw = self._average_weights()
        epoch = Epoch(
            epoch=number,
            loss=loss,
            accuracy=self.learning.engine.accuracy,
            **self.learning.validation.figures(),
            seconds=time.perf_counter() - self.began,
        )
        best = self.progress.is_better(epoch, self.config.monitor)
        weights = [weight.numpy() for weight in self.network.weights] if best else self.progress.best_weights
        for weight, value in zip(self.network.weights if raw else (), raw, strict=True):
            weight.assign(value)
        self.learning.engine.start_epoch()
        self.progress = Progress([*self.progress.history, epoch], number if best else self.progress.best_epoch, weights)
        began, self.began = self.began, time.perf_counter()  # of the next one no time has passed in this checkpoint
        if self.is_over or self._may_save():
            self.save()
        epoch = epoch.model_copy(update={"seconds": time.perf_counter() - began})
        self.progress.history[-1] = epoch
        if time.monotonic() - self.logged_at < _LOG_SECONDS and not self.is_over:
            return epoch
        self.logged_at = time.monotonic()
        log.info(
            "epoch %d/%d  loss %.4f  accuracy %.4f  val_loss %.4f  val_accuracy %.4f  %s images/s",
            *(number, self.config.epochs, epoch.loss, epoch.accuracy, epoch.val_loss, epoch.val_accuracy),
            f"{self.learning.engine.examples / epoch.seconds:,.0f}",
        )
        return epoch

    def _agree_on_streaming(self, asked_for: bool) -> bool:
        """Whether any worker has to stream, for calls then end where a window does; and all resume at one checkpoint.

        Raises:
            UnreachableError: If this worker read another checkpoint than the others.
        """
        count, age = self.workers.count, self.first_age
        asked, ages, squares = self.workers.total([float(asked_for), float(age), float(age**2)])
        if (ages, squares) != (count * age, count * age**2):
            raise UnreachableError(f"All workers must read the same checkpoint. Received: number {age} and another")
        return asked > 0

    def _average_weights(self) -> list[np.ndarray]:
        """Where Keras' optimizer keeps a moving average, put it into the network, and return what was there."""
        inner = getattr(self.learning.optimizer, "inner_optimizer", self.learning.optimizer)
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
        arrays = {f"variable_{index}": variable.numpy() for index, variable in enumerate(self.learning.variables)}
        arrays |= {f"best_{index}": weight for index, weight in enumerate(self.progress.best_weights)}
        history = [epoch.model_dump() for epoch in self.progress.history]
        seconds = time.perf_counter() - self.began
        state = {"history": history, "best_epoch": self.progress.best_epoch, "seconds": seconds}
        state["phase"] = self.learning.phase.first
        self.checkpoint.save(arrays, {**state, "threads": self.threads, "compiled": self.compiled})
        self.saved_at = time.monotonic()
        self.save_seconds = self.saved_at - began

    def _resume(self) -> Progress | None:
        """Set all variables to what an earlier run left and return its progress, if there is any that fits."""
        if self.checkpoint.found is None:
            return None
        arrays, state = self.checkpoint.found
        history = [Epoch(**epoch) for epoch in state["history"]]
        # Saved at the end of a phase, it holds the optimizer of that one, and the next has one of its own.
        is_same = state.get("phase", 1) == self.learning.phase.first
        for index, variable in enumerate(self.learning.variables if is_same else self.network.variables):
            variable.assign(arrays[f"variable_{index}"])
        best = [arrays[f"best_{index}"] for index in range(sum(name.startswith("best_") for name in arrays))]
        if len(history) < self.config.epochs:
            log.info("resuming at epoch %d of %d", len(history) + 1, self.config.epochs)
        progress = Progress(history, state["best_epoch"], best, state.get("seconds", 0.0))
        is_over = progress.is_over(self.config, self.phases[-1].first - 1)
        if is_over:  # a checkpoint of an earlier layerflow does not say
            self.xla = state.get("compiled", self.compiled) == "xla"
        before = state["threads"]
        if before[-1] == self.threads[-1] or is_over:
            self.threads = before
        else:
            log.warning(
                "resuming with %d CPU threads a training that had %d: the last bits of the model will not be those of "
                "an uninterrupted one; set devices.threads, where machines have different numbers of cores",
                *(self.threads[-1], before[-1]),
            )
            self.threads = [*before, *self.threads]
        return progress
