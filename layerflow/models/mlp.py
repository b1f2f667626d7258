"""The tutorial's network: flatten, scale, dense layers with ReLU between them."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from layers import Dense, Dropout, ReLU


@keras.saving.register_keras_serializable(package="layerflow")
class Mlp(keras.Model):
    """A multilayer perceptron over images of any fixed shape.

    Args:
        hidden: Units of each hidden layer; empty gives a linear classifier.
        classes: Number of classes.
        dropout: Share of each hidden layer's outputs that training leaves out.

    Call arguments:
        images: Tensor ``(batch, height, width, channels)`` with values 0 to 255, ``uint8`` or floating point.
        training: Whether dropout works.

    Returns:
        Logits, ``float32`` of shape ``(batch, classes)``.
    """

    def __init__(self, hidden: Sequence[int], classes: int, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden = tuple(hidden)
        self.classes = classes
        self.dropout = dropout
        self.blocks: list[Any] = []
        for units in self.hidden:
            self.blocks += [Dense(units), ReLU(), *([Dropout(dropout)] if dropout else [])]
        # Logits in float32 whatever the compute dtype: a softmax over bfloat16 loses the small classes.
        self.head = Dense(classes, name="logits", dtype="float32")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Build every layer from the image shape ``(batch, height, width, channels)``."""
        if any(size is None for size in input_shape[1:]):
            raise ValueError(f"`Mlp` needs images of one fixed shape. Received: input_shape={tuple(input_shape)}")
        shape: tuple[int | None, ...] = (None, math.prod(size for size in input_shape[1:] if size))
        for block in [*self.blocks, self.head]:
            block.build(shape)
            shape = block.compute_output_shape(shape)

    def call(self, images: Any, training: bool | None = False) -> Any:
        x = ops.reshape(images, (-1, math.prod(images.shape[1:])))
        x = ops.cast(x, self.compute_dtype) * (1 / 255)
        for block in self.blocks:
            x = block(x)  # Keras hands `training` on
        return self.head(x)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden": list(self.hidden), "classes": self.classes, "dropout": self.dropout}
