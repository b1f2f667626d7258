"""From images to rows of features."""

import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="layers")
class Flatten(keras.layers.Layer):
    """All axes but the first become one.

    Call arguments:
        inputs: Tensor of shape ``(batch, ...)`` and any dtype; all sizes but the batch fixed.

    Returns:
        Tensor of shape ``(batch, product of the other sizes)`` and the input's dtype.

    Raises:
        ValueError: If a size other than the batch is not fixed.
    """

    def call(self, inputs: Any) -> Any:
        return ops.reshape(inputs, (-1, self.compute_output_shape(inputs.shape)[1]))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        sizes = [size for size in input_shape[1:] if size is not None]
        if len(sizes) != len(input_shape) - 1:
            raise ValueError(f"`Flatten` needs fixed sizes after the batch. Received: input_shape={tuple(input_shape)}")
        return input_shape[0], math.prod(sizes)
