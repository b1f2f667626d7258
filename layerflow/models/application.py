"""The networks of ``keras.applications``, for raw images and with a new head."""

from typing import Any

import keras
from keras import ops

from layerflow.settings.applications import MODULES
from layers import Dense, Dropout, GlobalAveragePooling2D


@keras.saving.register_keras_serializable(package="layerflow")
class Application(keras.Model):
    """A backbone of ``keras.applications``, then global average pooling, dropout and a dense layer.

    ``backbone`` is the network of ``keras.applications`` without its classifying layers, and ``head`` is the list of
    the layers after it. A loaded network has both again: ``network.backbone.trainable = False`` freezes what may be
    pretrained.

    The weights are new ones. Nothing is downloaded.

    Args:
        application: Name of the network in ``keras.applications``, such as ``MobileNetV3Small``.
        classes: Number of classes.
        image_shape: Height, width and channels of the images: 1 for grey, 3 for colour.
        dropout: Share of the pooled features that training leaves out. 0.2 as in the classifying layers of
            EfficientNet and MobileNetV3.
        options: Arguments of the function in ``keras.applications``, such as ``{"alpha": 0.75}``.
        **kwargs: What every Keras model takes.

    Call arguments:
        images: Tensor ``(batch, height, width, channels)`` with values 0 to 255, ``uint8`` or floating point. Grey
            images are repeated to three channels. The preprocessing of the network's family is part of the graph.
        training: Whether dropout and batch statistics work.

    Returns:
        Logits, ``float32`` of shape ``(batch, classes)``.

    Raises:
        ValueError: If the images are too small for the backbone, or have neither 1 nor 3 channels.
    """

    def __init__(
        self,
        application: str,
        classes: int,
        image_shape: tuple[int, int, int],
        dropout: float = 0.2,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        height, width, channels = image_shape
        if channels not in (1, 3):
            raise ValueError(f"`image_shape` must have 1 or 3 channels. Received: image_shape={tuple(image_shape)}")
        self.application, self.classes, self.image_shape = application, classes, (height, width, channels)
        self.dropout, self.options = dropout, dict(options or {})
        make = getattr(keras.applications, application)
        self.backbone = make(include_top=False, weights=None, input_shape=(height, width, 3), **self.options)
        logits = Dense(classes, name="logits", dtype="float32")
        self.head: list[keras.layers.Layer] = [GlobalAveragePooling2D(), Dropout(dropout), logits]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Build the head; the backbone is built."""
        shape = self.backbone.output_shape
        for layer in self.head:
            layer.build(shape)
            shape = tuple(layer.compute_output_shape(shape))

    def call(self, images: Any, training: bool | None = False) -> Any:
        x = self.features(images)
        for layer in self.head:
            x = layer(x)  # Keras hands `training` on
        return x

    def features(self, images: Any) -> Any:
        """What the backbone makes of raw images, and the head takes: ``(batch, height, width, channels)``."""
        pixels = ops.cast(images, "float32")  # in mixed precision too, whose numbers are too coarse for channel means
        if self.image_shape[-1] == 1:
            pixels = ops.repeat(pixels, 3, axis=-1)
        return self.backbone(getattr(keras.applications, MODULES[self.application]).preprocess_input(pixels))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "application": self.application,
            "classes": self.classes,
            "image_shape": list(self.image_shape),
            "dropout": self.dropout,
            "options": dict(self.options),
        }
