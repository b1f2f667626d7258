"""The largest value of each window."""

from typing import Any

import keras
from keras import ops

from layers.arguments import fixed, one_of, pair
from layers.conv2d import windows


@keras.saving.register_keras_serializable(package="layers")
class MaxPooling2D(keras.layers.Layer):
    """The largest value of each channel in each window: a smaller image that says what was there, not quite where.

    Args:
        pool_size: Height and width of the window, a positive integer or a pair.
        strides: Step from one window to the next. Default: ``pool_size``, so that windows do not overlap.
        padding: ``same`` counts what is outside the image as minus infinity; ``valid`` leaves out windows that do not
            fit.
        **kwargs: What every Keras layer takes.

    Call arguments:
        inputs: Floating-point images ``(batch, height, width, channels)``.

    Returns:
        Tensor ``(batch, height', width', channels)`` of the input's dtype; sizes as in ``Conv2D``.

    Raises:
        ValueError: If an argument is out of its range, or the input has not the shape of images.
    """

    def __init__(
        self,
        pool_size: int | tuple[int, int] = 2,
        strides: int | tuple[int, int] | None = None,
        padding: str = "valid",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pool_size = pair("pool_size", pool_size)
        self.strides = self.pool_size if strides is None else pair("strides", strides)
        self.padding = one_of("padding", padding, ("valid", "same"))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """See that these are images; there are no weights."""
        fixed("MaxPooling2D", input_shape, 4)

    def call(self, inputs: Any) -> Any:
        return ops.max_pool(inputs, self.pool_size, self.strides, self.padding, data_format="channels_last")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, height, width, channels = input_shape
        sizes = zip((height, width), self.pool_size, self.strides, strict=True)
        return (batch, *(windows(size, window, stride, self.padding) for size, window, stride in sizes), channels)

    def get_config(self) -> dict[str, Any]:
        config = {"pool_size": self.pool_size, "strides": self.strides, "padding": self.padding}
        return {**super().get_config(), **config}
