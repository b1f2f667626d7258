"""The networks that ``model.name`` can name."""

import importlib
from pathlib import Path
from typing import Any

import keras

from layerflow import user_code
from layerflow.extras import require_hub
from layerflow.models.network_code import module_of


def network_class(name: str) -> Any:
    """The class of one of layerflow's networks, such as ``layerflow.models.mlp.Mlp``; its saved files then load.

    Raises:
        ConfigError: If it is one of KerasHub's, which isn't installed.
    """
    require_hub(name)
    name = module_of(name)
    return getattr(importlib.import_module(f"layerflow.models.{name}"), name.capitalize())


def load_model(name: str, file: Path) -> keras.Model:
    """Load a saved network by the name under which it was made, not compiled."""
    if user_code.is_own(name):
        user_code.load_module(name)
    else:
        network_class(name)
    return keras.models.load_model(file, compile=False)
