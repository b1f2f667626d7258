"""Making a network for the data's shape."""

import io
import logging
from pathlib import Path
from typing import Any

import keras

from layerflow import user_code
from layerflow.errors import ConfigError
from layerflow.models import hub_files
from layerflow.models.imagenet import fetch
from layerflow.models.logits import with_logits
from layerflow.models.network_digest import digest_of
from layerflow.models.networks import network_class
from layerflow.models.preset import WEIGHTS, Preset, read_preset
from layerflow.models.pretrained import load_weights, scale_as_imagenet_does
from layerflow.models.published import published
from layerflow.models.seeded import seeded
from layerflow.records import DatasetRef, ModelRef
from layerflow.settings.applications import MODULES, PREFIX, is_application
from layerflow.settings.hub import is_hub
from layerflow.settings.model import ModelConfig, fields_of, is_made_by_name
from layerflow.weights import FirstWeights, LoadedWeights

log = logging.getLogger(__name__)


def make_model(
    config: ModelConfig, classes: int, image_shape: tuple[int, int, int], preset: Preset | None = None
) -> keras.Model:
    """Return the network that ``config`` describes, built for images of this shape.

    ``preset`` is that of a network of KerasHub.

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
    if preset:
        settings = {**settings, **preset._asdict(), "image_shape": image_shape}
    try:
        network = network_class(config.name)(classes=classes, **settings)
        network.build((None, *image_shape))
    except ValueError as error:  # such as patches that do not fit, or images too small for a backbone
        reason = " ".join(str(error).split())
        remedy = "; set data.image_size or data.channels" if is_application(config.name) or preset else ""
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
        weights: What it starts from, as far as they fit; by default all weights are new. Those of a network of
            KerasHub say which preset describes it, too.

    Raises:
        ConfigError: If the network can't be made for images of this shape, or if none of the weights fit.
        MirrorError: If the mirror lacks the ImageNet weights or the preset, or holds damaged ones.
        UnreachableError: If they must be downloaded and can't be.
    """
    preset = _preset(config, weights)
    with seeded(seed):
        network = make_model(config, len(data.classes), data.image_shape, preset)
    loaded = _load(network, config, data, weights) if weights and config.weights != "none" else None
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


def _preset(config: ModelConfig, weights: FirstWeights | None) -> Preset | None:
    """What describes a network of KerasHub; nothing for other networks."""
    if not is_hub(config.name):
        return None
    assert weights
    assert weights.preset
    return read_preset(hub_files.fetch(config.name, weights.preset.folder, with_weights=False))


def _load(network: keras.Model, config: ModelConfig, data: DatasetRef, weights: FirstWeights) -> LoadedWeights:
    if config.weights == "preset":
        assert weights.preset
        folder = hub_files.fetch(config.name, weights.preset.folder, with_weights=True)
        return load_weights(network, folder / WEIGHTS, weights.source, weights.license)
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
    if not is_made_by_name(config.name):
        return {**config.settings, **first}
    made = network.get_config()
    return {field: made[field] for field in fields_of(config.name)} | first
