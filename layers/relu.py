"""The rectifier, as a function and as a layer."""

from typing import Any

import keras
from keras import ops


def relu(inputs: Any) -> Any:
    """Return ``max(x, 0)`` element by element, in the shape and dtype of ``inputs``.

    At exactly zero the gradient is 0, as in ``keras.ops.relu``. Not-a-number stays not-a-number, so that a
    training that went wrong shows it.

    References:
        Nair and Hinton, Rectified linear units improve restricted Boltzmann machines (2010).
    """
    return ops.where(inputs <= 0, ops.zeros_like(inputs), inputs)


@keras.saving.register_keras_serializable(package="layers")
class ReLU(keras.layers.Layer):
    """The function ``relu`` as a layer, for models that are lists of layers.

    Call arguments:
        inputs: Floating-point tensor of any shape.

    Returns:
        Tensor of the input's shape and dtype.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        return relu(inputs)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return tuple(input_shape)
