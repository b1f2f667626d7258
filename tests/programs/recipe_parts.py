"""A loss and a metric of a user's own."""

from typing import Any

import keras
from keras import ops


def squared(one_hot: Any, logits: Any) -> Any:
    """The squared distance of the probabilities, for each image."""
    return ops.sum(ops.square(one_hot - ops.softmax(logits)), axis=-1)


def of_the_batch(one_hot: Any, logits: Any) -> Any:
    """One number for all images, which is no loss of each."""
    return ops.mean(squared(one_hot, logits))


class Scaled(keras.losses.Loss):
    """The cross-entropy of logits, times ``factor``."""

    def __init__(self, factor: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.factor * keras.losses.categorical_crossentropy(y_true, y_pred, from_logits=True)


def confidence(one_hot: Any, probabilities: Any) -> Any:
    """The probability of the answer, for each image."""
    return ops.max(probabilities, axis=-1)


class Other:
    """Neither a loss nor a metric."""
