"""What the networks share: layers one after the other, from raw images to logits."""

from collections.abc import Sequence
from typing import Any

import keras

from layers import Dense, Flatten, RandomFlip, RandomShift, Rescale


class Classifier(keras.Model):
    """A chain of layers over raw images; a subclass says which.

    Args:
        body: The layers between the scaled images and the head.
        classes: Number of classes.
        shift: Pixels by which training moves images at random; 0: not.
        flip: Whether training mirrors images left and right at random.
        **kwargs: What every Keras model takes.

    Call arguments:
        images: Tensor ``(batch, height, width, channels)`` with values 0 to 255, ``uint8`` or floating point; all sizes
            but the batch are those that it was built for.
        training: Whether augmentation, dropout and batch statistics work.

    Returns:
        Logits, ``float32`` of shape ``(batch, classes)``.
    """

    def __init__(
        self, body: Sequence[keras.layers.Layer], classes: int, shift: int = 0, flip: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.classes, self.shift, self.flip = classes, shift, flip
        augmentation = [*([RandomShift(shift)] if shift else []), *([RandomFlip()] if flip else [])]
        # Logits in float32 whatever the compute dtype: a softmax over bfloat16 loses the small classes.
        head = Dense(classes, name="logits", dtype="float32")
        self.chain = [*augmentation, Rescale(), *body, Flatten(), head]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Build every layer from the image shape ``(batch, height, width, channels)``."""
        if len(input_shape) != 4 or None in input_shape[1:]:
            raise ValueError(
                f"`{type(self).__name__}` needs images of one fixed shape. Received: input_shape={tuple(input_shape)}"
            )
        shape: tuple[int | None, ...] = (None, *input_shape[1:])
        for layer in self.chain:
            layer.build(shape)
            shape = tuple(layer.compute_output_shape(shape))

    def call(self, images: Any, training: bool | None = False) -> Any:
        x = images
        for layer in self.chain:
            x = layer(x)  # Keras hands `training` on
        return x

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "classes": self.classes, "shift": self.shift, "flip": self.flip}
