"""Getting a preset of KerasHub: from the mirror, or from Kaggle with KerasHub."""

import contextlib
import importlib
import io
import logging
import os
import socket
from pathlib import Path
from typing import Any

from layerflow.errors import ConfigError, UnreachableError, did_you_mean
from layerflow.extras import require_hub
from layerflow.models.preset import NETWORK, PREPROCESSING, WEIGHTS, read_preset, require
from layerflow.settings.hub import preset_of

log = logging.getLogger(__name__)
_HOST = "www.kaggle.com"


def folder_in(mirror: Path | None, name: str) -> Path | None:
    """The folder of a preset in the mirror, which may lack it; nothing without a mirror.

    Args:
        mirror: The mirror's folder.
        name: Of the network, such as ``hub:resnet_18_imagenet``.
    """
    return mirror.expanduser() / "keras_hub" / preset_of(name) if mirror else None


def handle_of(name: str) -> str:
    """Where Kaggle has a preset: its address there, which ends with its version.

    Raises:
        ConfigError: If KerasHub isn't installed, or knows no such preset of images.
    """
    require_hub(name)
    # By its name, and not with an import: the version of KerasHub is in the keys of its own networks alone.
    keras_hub: Any = importlib.import_module("keras_hub")
    presets, preset = keras_hub.models.ImageClassifier.presets, preset_of(name)
    if preset not in presets:
        raise ConfigError(
            f"model.name must name a preset for which KerasHub has an image classifier, or one in the folder keras_hub "
            f"of the mirror. {preset} is neither{did_you_mean(preset, presets)}; choose another, or set data.mirror."
        )
    return str(presets[preset]["kaggle_handle"]).removeprefix("kaggle://")


def place_of(name: str, folder: Path | None, with_weights: bool) -> str:
    """Where a preset will be taken from, as text. Its files are looked at, but for the weights.

    Args:
        name: Of the network.
        folder: Its place in the mirror; nothing if there is no mirror.
        with_weights: Whether its weights are needed too.

    Raises:
        ConfigError: If KerasHub isn't installed or has no such preset, or the files in the mirror can't be used.
        MirrorError: If the mirror lacks one.
        UnreachableError: If there is no mirror, the files were not fetched before, and Kaggle can't be reached.
    """
    require_hub(name)
    if folder:
        read_preset(fetch(name, folder, with_weights))
        return f"{folder}, in the mirror"
    handle = handle_of(name)
    if found := _fetched(handle, with_weights):
        return f"{found}, which was fetched before"
    try:
        # 5 seconds: a server that takes longer to answer would take hours for the files.
        socket.create_connection((_HOST, 443), 5).close()
    except OSError as error:
        raise UnreachableError(
            f"The preset {preset_of(name)} must be downloaded, and {_HOST} can't be reached ({error}); connect this "
            f"machine, or set data.mirror (or LAYERFLOW_MIRROR) to a folder that holds keras_hub/{preset_of(name)}."
        ) from error
    return f"{handle} of {_HOST}, which can be reached"


def fetch(name: str, folder: Path | None, with_weights: bool) -> Path:
    """The folder of a preset on this machine. Kaggle's own library downloads it once, into ``~/.cache/kagglehub``.

    Args:
        name: Of the network.
        folder: Its place in the mirror; nothing if there is no mirror.
        with_weights: Whether its weights are needed too.

    Raises:
        ConfigError: If KerasHub isn't installed or has no such preset.
        MirrorError: If the mirror lacks a file.
        UnreachableError: If it must be downloaded and can't be.
    """
    if folder:
        for file in (NETWORK, *([WEIGHTS] if with_weights else [])):
            require(folder / file)
        return folder
    handle = handle_of(name)
    config = _download(handle, NETWORK)
    try:
        _download(handle, PREPROCESSING[0])
    except UnreachableError:  # presets that were published long ago have the other one alone
        _download(handle, PREPROCESSING[1])
    if with_weights:
        _download(handle, WEIGHTS)
    return config.parent


def _fetched(handle: str, with_weights: bool) -> Path | None:
    """Where Kaggle's library keeps the files of a preset, if they are there; it knows whether they are whole."""
    cache = Path(os.environ.get("KAGGLEHUB_CACHE") or "~/.cache/kagglehub").expanduser()
    folder = cache / "models" / handle
    has_all = all((folder / file).is_file() for file in (NETWORK, *([WEIGHTS] if with_weights else [])))
    return folder if has_all else None


def _download(handle: str, file: str) -> Path:
    kagglehub: Any = importlib.import_module("kagglehub")
    log.info("%s of the preset %s, from %s", file, handle, _HOST)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress
            return Path(kagglehub.model_download(handle, file))
    except Exception as error:  # of its own, of requests, and plain ones
        said = " ".join(str(error).split())
        raise UnreachableError(
            f"The file {file} of the preset {handle} must be downloaded from {_HOST}; received: {said}"
        ) from error
