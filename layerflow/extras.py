"""Optional dependencies: whether they are installed, and the command that installs them."""

import importlib.metadata
import importlib.util
from collections.abc import Iterable
from typing import TYPE_CHECKING

from layerflow.errors import ConfigError
from layerflow.settings.hub import is_hub

if TYPE_CHECKING:  # what makes a network needs no settings of its training
    from layerflow.settings.training import TrainingConfig


def require_ray_for_trials() -> None:
    """See that Ray, and what lets Prefect's tasks run on it, are there where trials are to run on a Ray cluster.

    Raises:
        ConfigError: With the command that installs them.
    """
    if not all(importlib.util.find_spec(name) for name in ("ray", "prefect_ray")):
        raise ConfigError(
            "A sweep on a Ray cluster must find Ray here, which is not installed. Install it with "
            "`pip install 'layerflow[ray]'`, or in a clone with `make ray`."
        )


def require_ray(config: "TrainingConfig") -> None:
    """See that Ray is there where several workers need it.

    Raises:
        ConfigError: With the command that installs it.
    """
    if config.workers > 1 and importlib.util.find_spec("ray") is None:
        raise ConfigError(
            f"training.workers {config.workers} needs Ray, which is not installed; "
            "pip install 'layerflow[ray]', or in a clone: make ray."
        )


def require_hub(name: str) -> None:
    """See that KerasHub is there where ``model.name`` names one of its presets.

    Raises:
        ConfigError: With the command that installs it.
    """
    if is_hub(name) and importlib.util.find_spec("keras_hub") is None:
        raise ConfigError(
            f"model.name {name} needs KerasHub, which is not installed; pip install 'layerflow[hub]', or in a clone: "
            "make hub."
        )


#: The runtime of each format, what writes the format besides TensorFlow, and the extra that brings both.
_OF_FORMATS = {
    "litert": ("ai_edge_litert", (), "litert"),
    "litert_int8": ("ai_edge_litert", (), "litert"),
    "onnx": ("onnxruntime", ("tf2onnx", "onnx"), "onnx"),
}


def libraries_of(formats: Iterable[str]) -> dict[str, str]:
    """The versions of what the formats need: another version may write or run a file otherwise.

    Raises:
        ConfigError: If something is not installed, with the command that installs it.
    """
    found = {}
    for name in formats:
        runtime, writers, extra = _OF_FORMATS[name]
        for module in (runtime, *writers):
            _require(module, f"export.formats {name}", extra)
            found[module] = _version(module)
    return found


def _version(module: str) -> str:
    """The version of what brings a module, which may have another name: `onnxruntime-gpu` brings `onnxruntime`."""
    names = sorted(set(importlib.metadata.packages_distributions().get(module, ())))
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def require_runtime(name: str) -> None:
    """See that the runtime of a format is there.

    Raises:
        ConfigError: With the command that installs it.
    """
    runtime, _, extra = _OF_FORMATS[name]
    _require(runtime, f"A file in the format {name}", extra)


def _require(module: str, what: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ConfigError(
            f"{what} needs {module}, which is not installed; pip install 'layerflow[{extra}]', or in a clone: "
            f"make {extra}."
        )
