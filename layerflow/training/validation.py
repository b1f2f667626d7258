"""Validation: the figures of the images that training does not learn from."""

from typing import Any

import numpy as np

from layerflow.models.predict import make_predictor
from layerflow.training.metrics import Metrics
from layerflow.training.objective import Objective
from layerflow.training.step import with_added_loss
from layerflow.training.workers import Workers


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
        images: np.ndarray,
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
