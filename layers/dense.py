"""A dense layer whose input size is given, or is that of its first input."""

from typing import Any

import keras
from keras import ops

from layers.arguments import features, positive_integer


@keras.saving.register_keras_serializable(package="layers")
class Dense(keras.layers.Layer):
    """A learned affine map of the last axis: ``y = x @ w + b``.

    The weights are made in ``build()`` from the last axis of the first input, and have names (``w``, ``b``) so that a
    saved model finds them again; with ``input_dim`` they are made at once.

    Args:
        units: Size of the output's last axis, a positive integer.
        use_bias: Whether to add ``b``. Default true: without it the map could only pass through the origin.
        input_dim: Size of the input's last axis, where it is known.
        w_initializer: A Keras initializer, or its name. Default: normal with a standard deviation of 0.05, Keras' own
            default for ``RandomNormal``; small enough that the first logits are near zero.
        b_initializer: The same for ``b``. Default: zeros.
        **kwargs: What every Keras layer takes: ``name``, ``dtype``, ``trainable``.

    Call arguments:
        inputs: Floating-point tensor of shape ``(batch, ..., features)``, rank 2 or more.

    Returns:
        Tensor of shape ``(batch, ..., units)`` in the layer's compute dtype.

    Raises:
        ValueError: If ``units`` or ``input_dim`` is not a positive integer, or the input's last axis has no fixed size
            or another one than ``input_dim``.
    """

    def __init__(
        self,
        units: int,
        use_bias: bool = True,
        input_dim: int | None = None,
        w_initializer: Any = "random_normal",
        b_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = positive_integer("units", units)
        self.use_bias = use_bias
        self.w_initializer = keras.initializers.get(w_initializer)
        self.b_initializer = keras.initializers.get(b_initializer)
        self.input_dim = None if input_dim is None else positive_integer("input_dim", input_dim)
        if self.input_dim:
            self.build((None, self.input_dim))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create ``w`` of shape ``(features, units)`` and ``b`` of shape ``(units,)``."""
        size = features("Dense", input_shape)
        if self.input_dim not in (None, size):
            raise ValueError(
                f"`Dense` was made for {self.input_dim} features. Received: input_shape={tuple(input_shape)}"
            )
        if self.built:
            return
        self.w = self.add_weight(name="w", shape=(size, self.units), initializer=self.w_initializer)
        self.b = (
            self.add_weight(name="b", shape=(self.units,), initializer=self.b_initializer) if self.use_bias else None
        )

    def call(self, inputs: Any) -> Any:
        outputs = ops.matmul(inputs, self.w)
        return outputs if self.b is None else ops.add(outputs, self.b)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "use_bias": self.use_bias,
            "input_dim": self.input_dim,
            "w_initializer": keras.initializers.serialize(self.w_initializer),
            "b_initializer": keras.initializers.serialize(self.b_initializer),
        }
