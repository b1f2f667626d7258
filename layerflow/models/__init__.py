"""The networks that ``model.name`` can name. Importing this package makes their saved files loadable."""

import keras

from layerflow.config import ModelConfig
from layerflow.models.cnn import Cnn
from layerflow.models.mlp import Mlp
from layerflow.models.resnet import Resnet
from layerflow.models.vit import Vit

__all__ = ["Cnn", "Mlp", "Resnet", "Vit", "make_model"]


def make_model(config: ModelConfig, classes: int) -> keras.Model:
    """Return the network that ``config`` describes, not yet built.

    It takes raw ``uint8`` images ``(batch, height, width, channels)`` and gives one logit per class,
    ``float32`` of shape ``(batch, classes)``.
    """
    networks = {"mlp": Mlp, "cnn": Cnn, "resnet": Resnet, "vit": Vit}
    return networks[config.name](classes, **config.settings)
