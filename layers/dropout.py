"""Dropout whose masks come back after a restart."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from layers.arguments import share
from layers.random_layer import RandomLayer


@keras.saving.register_keras_serializable(package="layers")
class Dropout(RandomLayer):
    """Leave out a random share of the inputs in training, and scale the others up so that the mean stays.

    Args:
        rate: Share that is left out, at least 0 and below 1.
        seed: As in ``RandomLayer``.
        **kwargs: What every Keras layer takes: ``name``, ``dtype``, ``trainable``.

    Call arguments:
        inputs: Floating-point tensor of any shape.
        training: Whether anything is left out; otherwise the inputs pass through.

    Returns:
        Tensor of the input's shape and dtype.

    Raises:
        ValueError: If ``rate`` or ``seed`` is out of its range.

    References:
        Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting (2014).
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        self.rate = share("rate", rate)

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        if not training or not self.rate:
            return inputs
        kept = self.draw(ops.shape(inputs)) >= tf.constant(int(self.rate * 2**32), tf.uint32)
        return ops.where(kept, inputs * (1 / (1 - self.rate)), ops.zeros_like(inputs))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate}
