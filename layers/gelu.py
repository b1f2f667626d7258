"""The Gaussian error linear unit."""

import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="layers")
class GELU(keras.layers.Layer):
    """``x`` times the probability that a standard normal variable is below ``x``, element by element.

    Call arguments:
        inputs: Floating-point tensor of any shape.

    Returns:
        Tensor of the input's shape and dtype.

    References:
        Hendrycks and Gimpel, Gaussian error linear units (2016); the exact form, not the one with tanh.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        return inputs * 0.5 * (1 + ops.erf(inputs * (1 / math.sqrt(2))))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return tuple(input_shape)
