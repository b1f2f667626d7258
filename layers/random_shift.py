"""Augmentation: images moved by a few pixels."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from layers.arguments import fixed, positive_integer
from layers.random_layer import RandomLayer


@keras.saving.register_keras_serializable(package="layers")
class RandomShift(RandomLayer):
    """In training, move each image by whole pixels, up to ``pixels`` in each direction; what comes in is zero.

    Args:
        pixels: The furthest that an image is moved, a positive integer; each distance is equally likely.
        seed: As in ``RandomLayer``.
        **kwargs: What every Keras layer takes.

    Call arguments:
        inputs: Images ``(batch, height, width, channels)`` of any dtype.
        training: Whether anything is moved.

    Returns:
        Images of the input's shape and dtype.

    Raises:
        ValueError: If an argument is out of its range, or the input is no batch of images.
    """

    def __init__(self, pixels: int, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed, autocast=False, **kwargs)  # whole numbers stay whole numbers
        self.pixels = positive_integer("pixels", pixels)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """See that these are images, and create ``key``."""
        fixed("RandomShift", input_shape, 4)
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        if not training:
            return inputs
        batch, height, width, _ = tf.unstack(tf.shape(inputs))
        moves = tf.cast(self.draw((batch, 2)) % (2 * self.pixels + 1), tf.int32)  # of the window, in the padded image
        edge = (self.pixels, self.pixels)
        moved = ops.pad(inputs, ((0, 0), edge, edge, (0, 0)))
        # TensorFlow, because Keras has no gather with a batch of indices.
        moved = tf.gather(moved, tf.range(height) + moves[:, :1], axis=1, batch_dims=1)
        return ops.reshape(tf.gather(moved, tf.range(width) + moves[:, 1:], axis=2, batch_dims=1), ops.shape(inputs))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pixels": self.pixels}
