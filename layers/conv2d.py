"""Convolution over images."""

from typing import Any

import keras
from keras import ops

from layers.arguments import fixed, one_of, pair, positive_integer


@keras.saving.register_keras_serializable(package="layers")
class Conv2D(keras.layers.Layer):
    """A learned map of each pixel's neighbourhood, the same at every place: ``y = x * w + b``.

    The product is a cross-correlation, as in every library of this kind: ``w`` is not mirrored.

    Args:
        filters: Channels of the output, a positive integer.
        kernel_size: Height and width of the neighbourhood, a positive integer or a pair.
        strides: Step from one place to the next, a positive integer or a pair.
        padding: ``same`` adds zeros around the image, so that with a stride of 1 its size stays; ``valid`` adds none.
        use_bias: Whether to add ``b``.
        w_initializer: A Keras initializer, or its name. Default: He's, for layers that a ReLU follows.
        b_initializer: The same for ``b``.
        **kwargs: What every Keras layer takes: ``name``, ``dtype``, ``trainable``.

    Call arguments:
        inputs: Floating-point images ``(batch, height, width, channels)``.

    Returns:
        Tensor ``(batch, height', width', filters)`` in the compute dtype, where ``height'`` is
        ``ceil(height / stride)`` for ``same`` and ``ceil((height - kernel + 1) / stride)`` for ``valid``.

    Raises:
        ValueError: If an argument is out of its range, or the input has not the shape of images with fixed channels.

    References:
        LeCun et al., Gradient-based learning applied to document recognition (1998); He et al., Delving deep into
        rectifiers (2015).
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = 1,
        padding: str = "valid",
        use_bias: bool = True,
        w_initializer: Any = "he_normal",
        b_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = positive_integer("filters", filters)
        self.kernel_size = pair("kernel_size", kernel_size)
        self.strides = pair("strides", strides)
        self.padding = one_of("padding", padding, ("valid", "same"))
        self.use_bias = use_bias
        self.w_initializer = keras.initializers.get(w_initializer)
        self.b_initializer = keras.initializers.get(b_initializer)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create ``w`` of shape ``(*kernel_size, channels, filters)`` and ``b`` of shape ``(filters,)``."""
        fixed("Conv2D", input_shape, 4, -1)
        shape = (*self.kernel_size, input_shape[-1], self.filters)
        self.w = self.add_weight(name="w", shape=shape, initializer=self.w_initializer)
        self.b = (
            self.add_weight(name="b", shape=(self.filters,), initializer=self.b_initializer) if self.use_bias else None
        )

    def call(self, inputs: Any) -> Any:
        outputs = ops.conv(inputs, self.w, self.strides, self.padding, data_format="channels_last")
        return outputs if self.b is None else outputs + self.b

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, height, width, _ = input_shape
        sizes = zip((height, width), self.kernel_size, self.strides, strict=True)
        return (batch, *(windows(size, kernel, stride, self.padding) for size, kernel, stride in sizes), self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "use_bias": self.use_bias,
            "w_initializer": keras.initializers.serialize(self.w_initializer),
            "b_initializer": keras.initializers.serialize(self.b_initializer),
        }


def windows(size: int | None, window: int, stride: int, padding: str) -> int | None:
    """How many windows fit along an axis; unknown where the axis is."""
    if size is None:
        return None
    return -(-(size if padding == "same" else size - window + 1) // stride)
