"""A loss, metrics and callbacks of a user's own."""

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


class Halve(keras.callbacks.Callback):
    """Halves the learning rate after every second epoch, by its own counting."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[int] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epochs.append(epoch)
        if len(self.epochs) % 2 == 0:
            self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate) / 2


class StopAfter(keras.callbacks.Callback):
    """Stops the training after ``epochs``."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.left = epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.left -= 1
        self.model.stop_training = not self.left


class ReadsWeights(keras.callbacks.Callback):
    """Looks at what a resumed training can't show it for the epochs before."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.model.get_weights()


class CountsSteps(keras.callbacks.Callback):
    """Acts in each step."""

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        pass
