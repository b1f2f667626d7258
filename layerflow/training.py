"""Training: one compiled function an epoch, over images that stay on the device as ``uint8``."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import layerflow.models  # noqa: F401  (makes saved models of ours loadable)
from layerflow import checkpoint, store
from layerflow.config import TrainingConfig
from layerflow.data import images_and_labels
from layerflow.devices import enable_memory_growth
from layerflow.errors import NonFiniteLossError, OutOfMemoryError
from layerflow.inference import cross_entropy, make_predictor
from layerflow.records import DatasetRef, Epoch, ModelRef, TrainedRef

log = logging.getLogger(__name__)

#: Runs steps ``first`` up to ``last`` of epoch ``number``; returns the summed loss, the correct answers, the last step.
EpochFunction = Callable[[int, int, int], tuple[float, float, int]]


@dataclass
class _Progress:
    """Everything of a training that is not in the network or the optimizer."""

    history: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    best_loss: float = math.inf
    best_weights: list[np.ndarray] = field(default_factory=list)

    def is_over(self, config: TrainingConfig) -> bool:
        done = len(self.history)
        return done >= config.epochs or done - self.best_epoch >= config.patience


def train(config: TrainingConfig, model: ModelRef, data: DatasetRef, folder: Path) -> TrainedRef:
    """Train ``model`` and write ``model.keras``, with the weights of the epoch of lowest validation loss.

    A checkpoint after each epoch lies in ``folder`` until training ends; a call that finds one goes on from it.

    Raises:
        NonFiniteLossError: As soon as a step's loss is infinite or not a number.
        OutOfMemoryError: If a batch does not fit on the device.
    """
    enable_memory_growth()
    network = keras.models.load_model(store.path(model.keras), compile=False)
    optimizer = keras.optimizers.Adam(config.learning_rate)
    optimizer.build(network.trainable_variables)
    variables = [*network.weights, *optimizer.variables]
    progress = _resume(folder, variables, config) or _Progress()
    if not progress.is_over(config):
        try:
            _run_epochs(config, network, optimizer, data, folder, progress)
        except tf.errors.ResourceExhaustedError as error:
            raise OutOfMemoryError(
                f"The device ran out of memory with {config.batch_size} images a step; "
                "lower training.batch_size, or use a smaller model."
            ) from error
    for weight, best in zip(network.weights, progress.best_weights, strict=True):
        weight.assign(best)
    network.save(folder / "model.keras")
    _checkpoint(folder).unlink()
    return TrainedRef(
        model=model.name,
        digest=store.sha256(folder / "model.keras"),
        epochs=len(progress.history),
        best_epoch=progress.best_epoch,
        steps=int(optimizer.iterations),
        history=tuple(progress.history),
    )


def _run_epochs(
    config: TrainingConfig, network: Any, optimizer: Any, data: DatasetRef, folder: Path, progress: _Progress
) -> None:
    """Train from where ``progress`` is until it is over; a log line and a checkpoint after each epoch."""
    images, labels = images_and_labels(data, "train")
    val_images, val_labels = images_and_labels(data, "validation")
    run = compile_epoch(network, optimizer, tf.constant(images), tf.constant(labels), config.batch_size, config.seed)
    predict = make_predictor(network)
    run(0, 0, 0)  # no step: compiles, so that the first epoch's seconds are an epoch's
    predict(val_images)
    steps = math.ceil(len(labels) / config.batch_size)
    while not progress.is_over(config):
        number, began = len(progress.history) + 1, time.perf_counter()
        loss, correct, done = run(number, 0, steps)
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"The loss must stay finite. It was not after step {done} of epoch {number}; "
                "lower training.learning_rate, and see that the images are what they should be."
            )
        logits = predict(val_images)
        epoch = Epoch(
            epoch=number,
            loss=loss / len(labels),
            accuracy=correct / len(labels),
            val_loss=cross_entropy(logits, val_labels),
            val_accuracy=float((logits.argmax(axis=-1) == val_labels).mean()),
            seconds=time.perf_counter() - began,
        )
        progress.history.append(epoch)
        if epoch.val_loss < progress.best_loss:
            progress.best_loss, progress.best_epoch = epoch.val_loss, number
            progress.best_weights = [weight.numpy() for weight in network.weights]
        _save(folder, [*network.weights, *optimizer.variables], progress)
        log.info(
            "epoch %d/%d  loss %.4f  accuracy %.4f  val_loss %.4f  val_accuracy %.4f  %s images/s",
            *(number, config.epochs, epoch.loss, epoch.accuracy, epoch.val_loss, epoch.val_accuracy),
            f"{len(labels) / epoch.seconds:,.0f}",
        )
    if len(progress.history) < config.epochs:
        log.info("stopped early: no lower validation loss since epoch %d", progress.best_epoch)


def compile_epoch(
    network: Any, optimizer: Any, images: tf.Tensor, labels: tf.Tensor, batch_size: int, seed: int
) -> EpochFunction:
    """Compile an epoch over device-resident images into one function.

    The order of the images is a permutation decided by ``(seed, epoch)`` alone, so that a resumed training meets
    them as an uninterrupted one does. The last batch is as small as it comes: every image counts once an epoch.

    Args:
        images: ``uint8`` of shape ``(examples, height, width, channels)``.
        labels: ``int32`` of shape ``(examples,)``.
    """
    examples = int(images.shape[0])
    full, rest = divmod(examples, batch_size)

    def step(chosen: tf.Tensor, losses: tf.Tensor, correct: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        expected = tf.gather(labels, chosen)
        with tf.GradientTape() as tape:
            logits = network(tf.gather(images, chosen), training=True)
            each = tf.nn.sparse_softmax_cross_entropy_with_logits(expected, logits)
            loss = tf.reduce_mean(each)
        variables = network.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        right = tf.argmax(logits, axis=-1, output_type=tf.int32) == expected
        return losses + tf.reduce_sum(each), correct + tf.reduce_sum(tf.cast(right, tf.float32))

    @tf.function(jit_compile=True)
    def run(number: tf.Tensor, first: tf.Tensor, last: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        # Philox by name: left to choose, TensorFlow takes an algorithm that XLA runs seven times slower.
        keys = tf.random.stateless_uniform([examples], [seed, number], None, None, tf.int32, alg="philox")
        order = tf.argsort(keys, stable=True)

        def body(index: tf.Tensor, losses: tf.Tensor, correct: tf.Tensor) -> tuple[tf.Tensor, ...]:
            chosen = tf.slice(order, [index * batch_size], [batch_size])
            return index + 1, *step(chosen, losses, correct)

        index, losses, correct = first, tf.constant(0.0), tf.constant(0.0)
        if full:
            index, losses, correct = tf.while_loop(
                lambda index, losses, _: (index < tf.minimum(last, full)) & tf.math.is_finite(losses),
                body,
                (index, losses, correct),
            )
        if rest:
            losses, correct = tf.cond(
                (last > full) & tf.math.is_finite(losses),
                lambda: step(order[full * batch_size :], losses, correct),
                lambda: (losses, correct),
            )
        return losses, correct, index

    def call(number: int, first: int, last: int) -> tuple[float, float, int]:
        losses, correct, done = run(tf.constant(number), tf.constant(first), tf.constant(last))
        return float(losses), float(correct), int(done)

    return call


def _checkpoint(folder: Path) -> Path:
    return folder / "checkpoint"


def _save(folder: Path, variables: list[Any], progress: _Progress) -> None:
    arrays = {f"variable_{index}": variable.numpy() for index, variable in enumerate(variables)}
    arrays |= {f"best_{index}": weight for index, weight in enumerate(progress.best_weights)}
    history = [epoch.model_dump() for epoch in progress.history]
    state = {"history": history, "best_epoch": progress.best_epoch, "best_loss": progress.best_loss}
    checkpoint.save(_checkpoint(folder), arrays, state)


def _resume(folder: Path, variables: list[Any], config: TrainingConfig) -> _Progress | None:
    """Set ``variables`` to what an earlier run left in ``folder`` and return its progress, if there is any."""
    found = checkpoint.restore(_checkpoint(folder))
    if found is None:
        return None
    arrays, state = found
    for index, variable in enumerate(variables):
        variable.assign(arrays[f"variable_{index}"])
    best = [arrays[f"best_{index}"] for index in range(sum(name.startswith("best_") for name in arrays))]
    history = [Epoch(**epoch) for epoch in state["history"]]
    log.info("resuming after epoch %d of %d", len(history), config.epochs)
    return _Progress(history, state["best_epoch"], state["best_loss"], best)
