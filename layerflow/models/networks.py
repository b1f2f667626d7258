"""The networks that ``model.name`` can name. Importing this package makes their saved files loadable."""

from pathlib import Path

import keras

from layerflow import user_code
from layerflow.errors import ConfigError
from layerflow.models.cnn import Cnn
from layerflow.models.mlp import Mlp
from layerflow.models.resnet import Resnet
from layerflow.models.vit import Vit
from layerflow.settings.model import ModelConfig

__all__ = ["Cnn", "Mlp", "Resnet", "Vit", "load_model", "make_model"]


def make_model(config: ModelConfig, classes: int, image_shape: tuple[int, int, int]) -> keras.Model:
    """Return the network that ``config`` describes, built for images of this shape.

    It takes raw ``uint8`` images ``(batch, height, width, channels)`` and gives one logit per class,
    ``float32`` of shape ``(batch, classes)``.

    Raises:
        ConfigError: If it can't be made for such images.
    """
    if user_code.is_own(config.name):
        return user_code.make(config.name, classes, image_shape, config.settings)
    networks = {"mlp": Mlp, "cnn": Cnn, "resnet": Resnet, "vit": Vit}
    network = networks[config.name](classes, **config.settings)
    try:
        network.build((None, *image_shape))
    except ValueError as error:  # such as patches that do not fit
        raise ConfigError(f"{config.name} can't take images of shape {image_shape}: {error}") from error
    return network


def load_model(name: str, file: Path) -> keras.Model:
    """Load a saved network by the name under which it was made, not compiled."""
    if user_code.is_own(name):
        user_code.load_module(name)
    return keras.models.load_model(file, compile=False)
