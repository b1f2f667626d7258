"""A small residual network."""

from typing import Any

import keras

from layerflow.models.classifier import Classifier
from layers import BatchNormalization, Conv2D, GlobalAveragePooling2D, ReLU, Residual


@keras.saving.register_keras_serializable(package="layerflow")
class Resnet(Classifier):
    """Three stages of residual blocks, each stage with twice the filters of the one before at half the size.

    Args:
        classes: Number of classes.
        width: Filters of the first stage.
        depth: Blocks of each stage.
        **kwargs: As for ``Classifier``: ``shift``, ``flip``.

    References:
        He et al., Deep residual learning for image recognition (2015), section 4.2; the projections are learned.
    """

    def __init__(self, classes: int, width: int = 16, depth: int = 1, **kwargs: Any) -> None:
        body: list[Any] = [*_normal(width), ReLU()]
        for stage in range(3):
            for block in range(depth):
                strides = 2 if stage and not block else 1
                body += [Residual([*_normal(width << stage, strides), ReLU(), *_normal(width << stage)]), ReLU()]
        super().__init__([*body, GlobalAveragePooling2D()], classes, **kwargs)
        self.width, self.depth = width, depth

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width, "depth": self.depth}


def _normal(filters: int, strides: int = 1) -> list[keras.layers.Layer]:
    return [Conv2D(filters, 3, strides, "same", use_bias=False), BatchNormalization()]
