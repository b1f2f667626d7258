"""What learns in one phase of a training: the optimizer, the engine, the validation and the callbacks."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from layerflow import memory
from layerflow.data.arrays import images_and_labels
from layerflow.models.predict import make_predictor
from layerflow.packed import Images
from layerflow.records import DatasetRef
from layerflow.settings.augment import AugmentConfig
from layerflow.training.augmentation import make_augmentation
from layerflow.training.callbacks import Callbacks
from layerflow.training.engine import Engine
from layerflow.training.epoch_windows import resident_bytes
from layerflow.training.features import features_of
from layerflow.training.metrics import Metrics
from layerflow.training.objective import Objective, make_objective
from layerflow.training.optimizers import make_optimizer
from layerflow.training.phases import Phase
from layerflow.training.step import with_added_loss
from layerflow.training.workers import Workers

log = logging.getLogger(__name__)
_MIB = 2**20


class Learning:
    """All that is made anew for a phase.

    Where the backbone is frozen, and no augmentation changes the images, the head learns from the backbone's features.
    Several workers don't share them.

    Args:
        phase: Which layers learn, and how; ``network`` is frozen accordingly.
        augment: What is done to the images at random.
        network: Takes ``uint8`` images, gives logits. Under a strategy, made in its scope.
        name: Its ``model.name``.
        data: The images.
        metrics: What is measured beside loss and accuracy.
        strategy: Where the steps run.
        xla: Whether XLA compiles the network, if it can.
        agree_on_streaming: From whether this worker has to stream to whether all do.

    Attributes:
        variables: All that changes, those of the network first: what a checkpoint holds.
        streamed: Whether the images are read from the disk, window by window.
    """

    def __init__(
        self,
        phase: Phase,
        augment: AugmentConfig,
        network: Any,
        name: str,
        data: DatasetRef,
        metrics: Metrics,
        strategy: tf.distribute.Strategy,
        xla: bool,
        agree_on_streaming: Callable[[bool], bool],
    ) -> None:
        self.phase, config = phase, phase.config
        images, labels = images_and_labels(data, "train")
        held_out, held_out_labels = images_and_labels(data, "validation")
        objective, learner = make_objective(config, labels, data.classes), network
        alone = strategy.num_replicas_in_sync == 1 and not augment.layers
        if alone and phase.share == 0 and (found := features_of(network, name, data, xla)):
            learner, images, held_out = found
        with strategy.scope():
            self.optimizer = make_optimizer(config, -(-len(labels) // config.batch_size))
            self.optimizer.build(learner.trainable_variables)
            network.optimizer = self.optimizer  # where Keras' callbacks look for it
        budget = config.memory_budget * _MIB if config.memory_budget else memory.free_bytes() // 2
        self.streamed = agree_on_streaming(resident_bytes(images, labels) > budget)
        self.engine = Engine(
            learner,
            self.optimizer,
            images,
            labels,
            config.batch_size,
            config.seed,
            xla,
            strategy,
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
        self.variables = [*network.variables, *self.optimizer.variables, *self.engine.variables]
        self.validation = Validation(learner, held_out, held_out_labels, objective, metrics, Workers(strategy), xla)
        self.callbacks = Callbacks(config, self.optimizer)

    @property
    def steps(self) -> int:
        """Steps of the training so far, those of earlier phases too."""
        return (self.phase.first - 1) * self.engine.steps + int(self.optimizer.iterations.numpy())

    def warm_up(self, xla: bool) -> bool:
        """Compile now, so that the seconds of the first epoch are those of an epoch.

        Returns whether XLA runs the steps; where it should, it may turn out to be unable to.
        """
        self.engine.warm_up()
        if xla and not self.engine.xla:
            xla = False
            self.validation.compile(xla=False)
        self.validation.figures()
        return xla


class Validation:
    """The figures of the validation images, of which each worker takes every n-th.

    Args:
        network: Takes ``uint8`` images, gives logits.
        images: ``uint8`` of shape ``(examples, height, width, channels)``.
        labels: ``int32`` of shape ``(examples,)``.
        objective: What training minimizes.
        metrics: What is measured beside loss and accuracy.
        workers: Those that share the images.
        xla: Whether XLA compiles the network, if it can.
    """

    def __init__(
        self,
        network: Any,
        images: Images,
        labels: np.ndarray,
        objective: Objective,
        metrics: Metrics,
        workers: Workers,
        xla: bool,
    ) -> None:
        share = slice(workers.rank, None, workers.count)
        self._images, self._labels = images[share], labels[share]
        self._network, self._objective, self._metrics, self._workers = network, objective, metrics, workers
        self.compile(xla)

    def compile(self, xla: bool) -> None:
        """Choose whether XLA compiles the network from now on."""
        self._predict = make_predictor(with_added_loss(self._network), xla)

    def figures(self) -> dict[str, float]:
        """``val_loss``, additions included, ``val_accuracy``, and the figures of the metrics.

        Summed, so that all workers see the same epoch as the best one, and stop after the same.
        """
        loss = right = 0.0
        logits = np.empty((0, 0), np.float32)
        if len(self._labels):  # fewer images than workers
            logits, added = np.split(self._predict(self._images), [-1], axis=-1)
            loss = self._objective.total(self._labels, logits) + float(added.sum(dtype=np.float64))
            right = float((logits.argmax(axis=-1) == self._labels).sum())
        loss, right, examples = self._workers.total([loss, right, float(len(self._labels))])
        figures = {"val_loss": loss / examples, "val_accuracy": right / examples}
        return figures | self._metrics.figures(self._labels, logits, self._workers.total)
