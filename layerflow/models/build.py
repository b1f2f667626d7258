"""Making a network for the data's shape."""

import io
import logging
from pathlib import Path

import keras

from layerflow import user_code
from layerflow.models.network_digest import digest_of
from layerflow.models.networks import make_model
from layerflow.records import DatasetRef, ModelRef
from layerflow.settings.model import ModelConfig

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
