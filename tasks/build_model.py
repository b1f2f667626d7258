"""Step 3: a network for the data's shape."""

from pathlib import Path

from layerflow.records import DatasetRef, ModelRef
from layerflow.settings.devices import DevicesConfig
from layerflow.settings.model import ModelConfig
from layerflow.weights import FirstWeights
from tasks.caching import step


@step("build_model", run_name="build-{config.name}-for-{data.name}")
def build_model(
    config: ModelConfig,
    data: DatasetRef,
    seed: int,
    devices: DevicesConfig,
    weights: FirstWeights | None,
    folder: Path,
) -> ModelRef:
    """Construct the network, build it for the data's shape, give it its first weights, and save it untrained."""
    from layerflow.devices import set_up
    from layerflow.models.build import build

    set_up(devices)
    return build(config, data, seed, folder, weights)
