"""A dense layer that learns the size of its input when it first meets one."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="layers")
class Dense(keras.layers.Layer):
    """A learned affine map of the last axis: ``y = x @ w + b``.

    The weights are made in ``build()`` from the last axis of the first input, and have names (``w``, ``b``)
    so that a saved model finds them again.

    Args:
        units: Size of the output's last axis, a positive integer.
        use_bias: Whether to add ``b``. Default true: without it the map could only pass through the origin.
        **kwargs: What every Keras layer takes: ``name``, ``dtype``, ``trainable``.

    Call arguments:
        inputs: Floating-point tensor of shape ``(batch, ..., features)``, rank 2 or more.

    Returns:
        Tensor of shape ``(batch, ..., units)`` in the layer's compute dtype.

    Raises:
        ValueError: If ``units`` is not a positive integer, or the input's last axis has no fixed size.
    """

    def __init__(self, units: int, use_bias: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(units, bool) or not isinstance(units, int) or units < 1:
            raise ValueError(f"`units` must be a positive integer. Received: units={units!r}")
        self.units = units
        self.use_bias = use_bias

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create ``w`` of shape ``(features, units)`` and ``b`` of shape ``(units,)``."""
        features = input_shape[-1]
        if len(input_shape) < 2 or features is None:
            raise ValueError(
                "`Dense` needs an input of shape (batch, ..., features) with a fixed number of features. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        # 0.05: Keras' own default for RandomNormal; small enough that the first logits are near zero.
        normal = keras.initializers.RandomNormal(stddev=0.05)
        self.w = self.add_weight(name="w", shape=(features, self.units), initializer=normal)
        self.b = self.add_weight(name="b", shape=(self.units,), initializer="zeros") if self.use_bias else None

    def call(self, inputs: Any) -> Any:
        outputs = ops.matmul(inputs, self.w)
        return outputs if self.b is None else ops.add(outputs, self.b)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "use_bias": self.use_bias}
