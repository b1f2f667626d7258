"""What a network starts from."""

from layerflow.config import RetrainConfig
from layerflow.records import DatasetRef
from layerflow.registry import first_weights as registry
from layerflow.weights import FirstWeights


def first_weights(config: RetrainConfig, data: DatasetRef) -> FirstWeights | None:
    """The weights that ``model.weights`` names, as they are now; nothing if all are to be new."""
    return registry.first_weights(config, data.image_shape[:2])
