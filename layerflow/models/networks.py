"""The networks that ``model.name`` can name. Importing this package makes their saved files loadable."""

from pathlib import Path

import keras

from layerflow import user_code
from layerflow.models.cnn import Cnn
from layerflow.models.mlp import Mlp
from layerflow.models.resnet import Resnet
from layerflow.models.vit import Vit

__all__ = ["Cnn", "Mlp", "Resnet", "Vit", "load_model"]


def load_model(name: str, file: Path) -> keras.Model:
    """Load a saved network by the name under which it was made, not compiled."""
    if user_code.is_own(name):
        user_code.load_module(name)
    return keras.models.load_model(file, compile=False)
