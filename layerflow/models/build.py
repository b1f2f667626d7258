"""Making a network for the data's shape."""

import io
import logging
from pathlib import Path

import keras

from layerflow import user_code
from layerflow.errors import ConfigError
from layerflow.models.cnn import Cnn
from layerflow.models.mlp import Mlp
from layerflow.models.network_digest import digest_of
from layerflow.models.resnet import Resnet
from layerflow.models.vit import Vit
from layerflow.records import DatasetRef, ModelRef
from layerflow.settings.model import ModelConfig


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


log = logging.getLogger(__name__)


def build(config: ModelConfig, data: DatasetRef, seed: int, folder: Path) -> ModelRef:
    """Construct and build the network for the data's image shape and classes, and write ``model.keras``.

    ``seed`` decides the first weights.

    Raises:
        ConfigError: If the network can't be made for images of this shape.
    """
    keras.utils.set_random_seed(seed)
    network = make_model(config, len(data.classes), data.image_shape)
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
    )
