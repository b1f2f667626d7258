"""Augmentation: mirror images."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from layers.arguments import fixed, one_of
from layers.random_layer import RandomLayer

_AXES = {"horizontal": 2, "vertical": 1}


@keras.saving.register_keras_serializable(package="layers")
class RandomFlip(RandomLayer):
    """In training, mirror each image with probability one half.

    Args:
        direction: ``horizontal`` changes left and right, ``vertical`` top and bottom.
        seed: As in ``RandomLayer``.
        **kwargs: What every Keras layer takes.

    Call arguments:
        inputs: Images ``(batch, height, width, channels)`` of any dtype.
        training: Whether anything is mirrored.

    Returns:
        Images of the input's shape and dtype.

    Raises:
        ValueError: If an argument is out of its range, or the input is no batch of images.
    """

    def __init__(self, direction: str = "horizontal", seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed, autocast=False, **kwargs)  # whole numbers stay whole numbers
        self.direction = one_of("direction", direction, tuple(_AXES))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """See that these are images, and create ``key``."""
        fixed("RandomFlip", input_shape, 4)
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        if not training:
            return inputs
        mirrored = self.draw((ops.shape(inputs)[0], 1, 1, 1)) >= tf.constant(2**31, tf.uint32)
        return ops.where(mirrored, ops.flip(inputs, axis=_AXES[self.direction]), inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "direction": self.direction}
