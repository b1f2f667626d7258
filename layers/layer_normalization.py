"""Normalisation of each example by itself."""

from typing import Any

import keras
from keras import ops

from layers.arguments import features, positive_number


@keras.saving.register_keras_serializable(package="layers")
class LayerNormalization(keras.layers.Layer):
    """The last axis with its mean taken off and divided by its standard deviation, then scaled and moved by feature.

    Nothing of other examples goes in, and training and inference are the same.

    Args:
        epsilon: Added to the variance.
        **kwargs: What every Keras layer takes.

    Call arguments:
        inputs: Floating-point tensor ``(batch, ..., features)``.

    Returns:
        Tensor of the input's shape in the compute dtype; the statistics are computed in float32.

    Raises:
        ValueError: If ``epsilon`` is out of its range, or the last axis has no fixed size.

    References:
        Ba et al., Layer normalization (2016).
    """

    def __init__(self, epsilon: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = positive_number("epsilon", epsilon)
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create ``gamma`` and ``beta`` of shape ``(features,)``."""
        size = features("LayerNormalization", input_shape)
        self.gamma = self.add_weight(name="gamma", shape=(size,), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(size,), initializer="zeros")

    def call(self, inputs: Any) -> Any:
        x = ops.cast(inputs, "float32")
        mean, variance = ops.moments(x, axes=[-1], keepdims=True)
        normal = (x - mean) * ops.rsqrt(variance + self.epsilon)
        outputs = normal * ops.cast(self.gamma, "float32") + ops.cast(self.beta, "float32")
        return ops.cast(outputs, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}
