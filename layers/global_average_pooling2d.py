"""The mean of each channel."""

from typing import Any

import keras
from keras import ops

from layers.arguments import fixed


@keras.saving.register_keras_serializable(package="layers")
class GlobalAveragePooling2D(keras.layers.Layer):
    """The mean of each channel over the whole image: what is there, wherever it is.

    Call arguments:
        inputs: Floating-point images ``(batch, height, width, channels)``.

    Returns:
        Tensor ``(batch, channels)`` of the input's dtype.

    Raises:
        ValueError: If the input has not the shape of images.

    References:
        Lin et al., Network in network (2013).
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """See that these are images; there are no weights."""
        fixed("GlobalAveragePooling2D", input_shape, 4)

    def call(self, inputs: Any) -> Any:
        return ops.mean(inputs, axis=(1, 2))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape[0], input_shape[-1]
