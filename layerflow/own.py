"""What a user brings: networks (``model.name mypackage.mymodule:MyNet``), modules that register datasets.

Imports TensorFlow only to make a network.
"""

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from layerflow import store
from layerflow.errors import ConfigError, did_you_mean, printed


def is_own(name: str) -> bool:
    """Whether a network's name is that of something to be imported."""
    return ":" in name


def code_of(name: str, setting: str = "model.name") -> str:
    """SHA-256 of the sources of the package that ``name`` lies in: when one changes, the network is another.

    Raises:
        ConfigError: If there is no such package.
    """
    top = name.partition(":")[0].partition(".")[0]
    _look_here()
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # a module that was made without one
        spec = None
    if spec is None or not (spec.origin or spec.submodule_search_locations):
        raise ConfigError(
            f"{setting} must name something that can be imported. There is no module {top}; start from the folder that "
            f"holds it, or install it. Received: {name}"
        )
    digest = hashlib.sha256()
    for folder in spec.submodule_search_locations or []:
        for file in sorted(Path(folder).rglob("*.py")):
            digest.update(f"{file.relative_to(folder).as_posix()} {store.sha256(file)}\n".encode())
    if not spec.submodule_search_locations and spec.origin:
        digest.update(store.sha256(Path(spec.origin)).encode())
    return digest.hexdigest()


def load_module(name: str, setting: str = "model.name") -> ModuleType:
    """Import the module that ``name`` lies in, which makes saved files of its classes loadable.

    Raises:
        ConfigError: If it can't be imported.
    """
    _look_here()
    module = name.partition(":")[0]
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever a user's module may raise
        reason = printed(" ".join(f"{type(error).__name__}: {error}".split()), 400)
        raise ConfigError(f"{setting} must name something that can be imported. {module} can't ({reason}).") from error


def make(name: str, classes: int, image_shape: tuple[int, int, int], options: dict[str, Any]) -> Any:
    """Call what ``name`` names, and return the Keras model that it gives, built for the images.

    It is called with ``options``, and with ``classes`` and ``image_shape`` where it takes them.

    Raises:
        ConfigError: If it can't be imported or called, gives no Keras model, or one that does not give one logit a
            class for raw ``uint8`` images.
    """
    import keras
    import numpy as np

    module, attribute = load_module(name), name.partition(":")[2]
    maker = getattr(module, attribute, None)
    if not callable(maker):
        near = did_you_mean(attribute, [each for each in dir(module) if not each.startswith("_")])
        raise ConfigError(f"{module.__name__} must hold a class or function {attribute}. It has none{near}.")
    given = {"classes": classes, "image_shape": image_shape}
    try:
        network = maker(**_taken(maker, given), **options)
    except Exception as error:
        raise ConfigError(f"{name} must make a network of {_call(maker, given, options)}. {_said(error)}") from error
    if not isinstance(network, keras.Model):
        raise ConfigError(f"{name} must give a keras.Model. Received: {type(network).__name__}")
    for method in ("compute_loss", "train_step"):
        if getattr(type(network), method) is not getattr(keras.Model, method):
            raise ConfigError(
                f"{name} must learn by cross-entropy, and layerflow calls no `{method}`. Received: "
                f"{type(network).__name__} with a {method} of its own; call add_loss in its layers instead."
            )
    try:
        logits = network(np.zeros((2, *image_shape), np.uint8), training=False)
    except Exception as error:
        raise ConfigError(f"{name} must take raw uint8 images of shape {image_shape}. {_said(error)}") from error
    if getattr(logits, "shape", None) != (2, classes) or "float" not in keras.backend.standardize_dtype(logits.dtype):
        raise ConfigError(
            f"{name} must give one logit a class, a tensor of floats of shape (batch, {classes}). "
            f"Received: {getattr(logits, 'shape', type(logits).__name__)}"
        )
    if np.min(logits) >= 0 and np.allclose(np.sum(logits, axis=-1), 1, atol=1e-3):
        raise ConfigError(
            f"{name} must give logits, for the loss and what ships apply the softmax. Received: probabilities, which "
            "sum to 1; take the softmax off its last layer."
        )
    return network


def ensure_reloadable(name: str, network: Any, file: Path, image_shape: tuple[int, int, int]) -> None:
    """Load what was saved, and see that it answers as before.

    Raises:
        ConfigError: If it does not; then its config or the names of its weights lack something.
    """
    import keras
    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (2, *image_shape), np.uint8)
    remedy = "register its classes, give them get_config, and make their weights in build()"
    try:
        again = keras.models.load_model(file, compile=False)(images, training=False)
    except Exception as error:
        raise ConfigError(f"{name} must load again once it is saved; {remedy}. {_said(error)}") from error
    if not np.allclose(again, network(images, training=False), rtol=1e-4, atol=1e-4):
        raise ConfigError(f"{name} must answer the same once it is saved and loaded. It does not; {remedy}.")


def _look_here() -> None:
    """Find modules in the working folder, as ``python -m`` does and an installed command does not."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def _taken(maker: Any, given: dict[str, Any]) -> dict[str, Any]:
    # Of the class itself some Pythons see `keras.Model.__new__` alone, which takes everything.
    parameters = inspect.signature(maker.__init__ if inspect.isclass(maker) else maker).parameters
    return {name: value for name, value in given.items() if name in parameters}


def _call(maker: Any, given: dict[str, Any], options: dict[str, Any]) -> str:
    return ", ".join([*_taken(maker, given), *options]) or "no arguments"


def _said(error: Exception) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    said = first.partition(" Full object config:")[0]  # Keras appends hundreds of characters of it
    return f"It says: {type(error).__name__}: {said}"
