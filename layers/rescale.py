"""From pixels to small numbers."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="layers")
class Rescale(keras.layers.Layer):
    """``x * scale + offset``, in the layer's compute dtype.

    Args:
        scale: Factor; the default takes pixels from 0 to 255 to 0 to 1.
        offset: Added after it.
        **kwargs: What every Keras layer takes.

    Call arguments:
        inputs: Tensor of any shape and any number dtype, ``uint8`` too.

    Returns:
        Tensor of the input's shape, in the compute dtype.

    Raises:
        ValueError: If an argument is no number.
    """

    def __init__(self, scale: float = 1 / 255, offset: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name, value in (("scale", scale), ("offset", offset)):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"`{name}` must be a number. Received: {name}={value!r}")
        self.scale = scale
        self.offset = offset

    def call(self, inputs: Any) -> Any:
        return ops.cast(inputs, self.compute_dtype) * self.scale + self.offset

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale, "offset": self.offset}
