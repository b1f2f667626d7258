"""A small convolutional network."""

from typing import Any

import keras

from layerflow.models.classifier import Classifier
from layers import BatchNormalization, Conv2D, Dense, Dropout, Flatten, MaxPooling2D, ReLU


@keras.saving.register_keras_serializable(package="layerflow")
class Cnn(Classifier):
    """Two convolutions with pooling and a dense layer, after LeNet-5, with batch normalisation and ReLU.

    Args:
        classes: Number of classes.
        width: Filters of the first convolution; the second has twice as many, the dense layer four times.
        dropout: Share of the dense layer's outputs that training leaves out.
        **kwargs: As for ``Classifier``: ``shift``, ``flip``.

    References:
        LeCun et al., Gradient-based learning applied to document recognition (1998).
    """

    def __init__(self, classes: int, width: int = 32, dropout: float = 0.5, **kwargs: Any) -> None:
        body: list[Any] = []
        for filters in (width, 2 * width):
            # No bias: the normalisation takes any constant off again.
            body += [Conv2D(filters, 3, padding="same", use_bias=False), BatchNormalization(), ReLU()]
            body += [MaxPooling2D(padding="same")]
        body += [Flatten(), Dense(4 * width, use_bias=False, w_initializer="he_normal"), BatchNormalization(), ReLU()]
        body += [Dropout(dropout)] if dropout else []
        super().__init__(body, classes, **kwargs)
        self.width, self.dropout = width, dropout

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width, "dropout": self.dropout}
