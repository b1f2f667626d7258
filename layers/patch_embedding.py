"""From an image to a sequence of tokens."""

from typing import Any

import keras
from keras import ops

from layers.arguments import fixed, pair, positive_integer


@keras.saving.register_keras_serializable(package="layers")
class PatchEmbedding(keras.layers.Layer):
    """Cut images into patches, map each to ``units`` features, and add what is learned of its place.

    Args:
        patch_size: Height and width of a patch; they must divide those of the images.
        units: Features of a token, a positive integer.
        **kwargs: What every Keras layer takes.

    Call arguments:
        inputs: Floating-point images ``(batch, height, width, channels)`` of a fixed size.

    Returns:
        Tokens ``(batch, patches, units)`` in the compute dtype, row by row from the top left.

    Raises:
        ValueError: If an argument is out of its range, or the images can't be cut so.

    References:
        Dosovitskiy et al., An image is worth 16x16 words (2020).
    """

    def __init__(self, patch_size: int | tuple[int, int], units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.patch_size = pair("patch_size", patch_size)
        self.units = positive_integer("units", units)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create ``w`` ``(pixels of a patch, units)``, ``b`` ``(units,)`` and ``position`` ``(patches, units)``."""
        fixed("PatchEmbedding", input_shape, 4, 1, 2, 3)
        height, width, channels = (size or 0 for size in input_shape[1:])
        rows, columns = self.patch_size
        if height % rows or width % columns:
            raise ValueError(
                f"`patch_size` must divide the images' size. Received: patch_size={self.patch_size}, "
                f"input_shape={tuple(input_shape)}"
            )
        self.grid = (height // rows, width // columns)
        self.w = self.add_weight(name="w", shape=(rows * columns * channels, self.units), initializer="glorot_uniform")
        self.b = self.add_weight(name="b", shape=(self.units,), initializer="zeros")
        place = keras.initializers.RandomNormal(stddev=0.02)
        self.position = self.add_weight(
            name="position", shape=(self.grid[0] * self.grid[1], self.units), initializer=place
        )

    def call(self, inputs: Any) -> Any:
        (down, across), (rows, columns) = self.grid, self.patch_size
        channels = inputs.shape[-1]
        x = ops.reshape(inputs, (-1, down, rows, across, columns, channels))
        x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, down * across, rows * columns * channels))
        return ops.matmul(x, self.w) + self.b + self.position

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        _, height, width, _ = input_shape
        if height is None or width is None:
            return input_shape[0], None, self.units
        return input_shape[0], (height // self.patch_size[0]) * (width // self.patch_size[1]), self.units

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "patch_size": self.patch_size, "units": self.units}
