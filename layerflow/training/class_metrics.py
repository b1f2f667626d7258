"""Metrics that Keras does not have, of one-hot labels and probabilities. ``training.metrics`` names them too."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


class BalancedAccuracy(keras.Metric):
    """The mean recall of the classes that have examples.

    Example:
        >>> metric = BalancedAccuracy()
        >>> metric.update_state(np.eye(2)[[0, 0, 0, 1]], np.eye(2)[[0, 0, 1, 1]])
        >>> float(metric.result())
        0.8333333
    """

    def __init__(self, name: str = "balanced_accuracy", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self._examples: Any = None  # as many as classes: known with the first labels
        self._right: Any = None

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count the examples of each class, and those that were recognized; both of shape ``(batch, classes)``."""
        y_true = ops.cast(y_true, self.dtype)
        if self._examples is None:
            self._examples, self._right = (
                self.add_variable((y_true.shape[-1],), "zeros", name=name) for name in ("examples", "right")
            )
        chosen = ops.one_hot(ops.argmax(y_pred, axis=-1), y_true.shape[-1], dtype=self.dtype)
        self._examples.assign_add(ops.sum(y_true, axis=0))
        self._right.assign_add(ops.sum(y_true * chosen, axis=0))

    def result(self) -> Any:
        """The mean, ``float32``."""
        recalls = self._right / ops.maximum(self._examples, 1)
        return ops.sum(recalls) / ops.maximum(ops.sum(ops.cast(self._examples > 0, self.dtype)), 1)


class ExpectedCost(keras.metrics.MeanMetricWrapper):
    """The mean cost of an answer.

    Args:
        costs: By the numbers of the true and of the predicted class: ``[[0, 1], [20, 0]]``.
    """

    def __init__(self, costs: Sequence[Sequence[float]], name: str = "expected_cost", **kwargs: Any) -> None:
        matrix = ops.convert_to_tensor(costs, "float32")
        if len(matrix.shape) != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"`costs` must be a square matrix. Received: shape {tuple(matrix.shape)}")

        def cost(y_true: Any, y_pred: Any) -> Any:
            classes = y_pred.shape[-1]
            if matrix.shape[0] != classes:
                raise ValueError(f"`costs` must have {classes} rows, one for each class. Received: {matrix.shape[0]}")
            return ops.sum(ops.matmul(y_true, matrix) * ops.one_hot(ops.argmax(y_pred, axis=-1), classes), axis=-1)

        super().__init__(cost, name=name, **kwargs)
