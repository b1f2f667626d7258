"""The networks that ``model.name`` can name. Importing this package makes their saved files loadable."""

from typing import Any

import keras

from layerflow.config import ModelConfig
from layerflow.models.mlp import Mlp

__all__ = ["Mlp", "make_model"]


def make_model(config: ModelConfig, classes: int) -> keras.Model:
    """Return the network that ``config`` describes, not yet built.

    It takes raw ``uint8`` images ``(batch, height, width, channels)`` and gives one logit per class,
    ``float32`` of shape ``(batch, classes)``.
    """
    makers: dict[str, Any] = {"mlp": lambda: Mlp(hidden=config.hidden, classes=classes, dropout=config.dropout)}
    return makers[config.name]()
