"""Making a network for the data's shape."""

import io
import logging
from pathlib import Path
from typing import Any

import keras

from layerflow import user_code
from layerflow.errors import ConfigError
from layerflow.models.imagenet import fetch
from layerflow.models.logits import with_logits
from layerflow.models.network_digest import digest_of
from layerflow.models.networks import network_class
from layerflow.models.pretrained import load_weights, scale_as_imagenet_does
from layerflow.models.published import published
from layerflow.models.seeded import seeded
from layerflow.records import DatasetRef, ModelRef
from layerflow.settings.applications import MODULES, PREFIX, is_application
from layerflow.settings.model import APPLICATION, MODELS, ModelConfig
from layerflow.weights import FirstWeights, LoadedWeights

log = logging.getLogger(__name__)


def make_model(config: ModelConfig, classes: int, image_shape: tuple[int, int, int]) -> keras.Model:
    """Return the network that ``config`` describes, built for images of this shape.

    It takes raw ``uint8`` images ``(batch, height, width, channels)`` and gives one logit per class,
    ``float32`` of shape ``(batch, classes)``.

    Raises:
        ConfigError: If it can't be made for such images.
    """
    if user_code.is_own(config.name):
        network = user_code.make_network(config.name, classes, image_shape, config.settings)
        return with_logits(config.name, network, image_shape)
    settings = config.settings
    if is_application(config.name):
        settings = {**settings, "application": config.name.removeprefix(PREFIX), "image_shape": image_shape}
    try:
        network = network_class(config.name)(classes=classes, **settings)
        network.build((None, *image_shape))
    except ValueError as error:  # such as patches that do not fit, or images too small for a backbone
        reason = " ".join(str(error).split())
        remedy = "; set data.image_size or data.channels" if is_application(config.name) else ""
        raise ConfigError(f"{config.name} can't take images of shape {image_shape}: {reason}{remedy}") from error
    return network


def build(
    config: ModelConfig, data: DatasetRef, seed: int, folder: Path, weights: FirstWeights | None = None
) -> ModelRef:
    """Construct and build the network for the data's image shape and classes, and write ``model.keras``.

    Args:
        config: The network.
        data: What it is for.
        seed: Decides the first weights, where no others are given.
        folder: Where it is written.
        weights: What it starts from, as far as they fit; by default all weights are new.

    Raises:
        ConfigError: If the network can't be made for images of this shape, or if none of the weights fit.
        MirrorError: If the mirror lacks the ImageNet weights or holds damaged ones.
        UnreachableError: If they must be downloaded and can't be.
    """
    with seeded(seed):
        network = make_model(config, len(data.classes), data.image_shape)
    loaded = _load(network, config, data, weights) if weights else None
    network.save(folder / "model.keras")
    if user_code.is_own(config.name):
        user_code.ensure_reloadable(config.name, network, folder / "model.keras", data.image_shape)
    summary = io.StringIO()
    network.summary(print_fn=lambda line, line_break=True: summary.write(f"{line}\n"))
    log.info("%s of %d parameters\n%s", config.name, network.count_params(), summary.getvalue())
    return ModelRef(
        name=config.name,
        digest=digest_of(config.name, folder / "model.keras"),
        parameters=network.count_params(),
        settings=_settings_of(network, config),
        weights=loaded,
    )


def _load(network: keras.Model, config: ModelConfig, data: DatasetRef, weights: FirstWeights) -> LoadedWeights:
    if config.weights != "imagenet":
        assert weights.file
        is_other = weights.classes not in (None, data.classes)
        return load_weights(network, weights.file, weights.source, weights.license, {"logits"} if is_other else set())
    application = config.name.removeprefix(PREFIX)
    file = published(application, config.options or {}, data.image_shape[:2])
    loaded = load_weights(network, fetch(file, weights.file), weights.source, weights.license)
    if MODULES[application] == "efficientnet":
        scale_as_imagenet_does(network)
    return loaded


def _settings_of(network: keras.Model, config: ModelConfig) -> dict[str, Any]:
    """Each setting that a network was made with, the defaults of its constructor too."""
    first = {} if config.weights == "none" else {"weights": config.weights}
    if config.name not in MODELS and not is_application(config.name):
        return {**config.settings, **first}
    made = network.get_config()
    return {field: made[field] for field in MODELS.get(config.name, APPLICATION)} | first
