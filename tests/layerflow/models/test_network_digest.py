"""Which network a saved file holds."""

from pathlib import Path
from typing import Any

import keras
import pytest

from layerflow.models.build import make_model
from layerflow.models.network_digest import digest_of
from layerflow.settings.model import ModelConfig


def digest(folder: Path, network: keras.Model) -> str:
    network.save(folder / "model.keras")
    return digest_of("mlp", folder / "model.keras")


def mlp(**settings: Any) -> keras.Model:
    keras.utils.set_random_seed(7)
    return make_model(ModelConfig(hidden=(5,), **settings), 10, (8, 8, 1))


def sequential() -> keras.Model:
    keras.utils.set_random_seed(7)
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3, activation="relu")]
    return keras.Sequential(layers)


def functional() -> keras.Model:
    keras.utils.set_random_seed(7)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Dense(3, activation="relu")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Concatenate()([x, keras.layers.Dense(3)(x)])))


@pytest.mark.parametrize("make", [mlp, sequential, functional])
def test_a_network_that_is_made_and_saved_again_is_the_same(make: Any, tmp_path: Path) -> None:
    first, again = make(), make()
    assert [layer.name for layer in first.layers] != [layer.name for layer in again.layers], "Keras counts"
    assert digest(tmp_path, first) == digest(tmp_path, again)


def test_one_weight_one_setting_or_another_precision_make_another(tmp_path: Path) -> None:
    network = mlp()
    before = digest(tmp_path, network)
    assert digest(tmp_path, mlp(dropout=0.5)) != before, "the weights are the same"
    weights = network.get_weights()
    weights[0][0, 0] += 1e-7
    network.set_weights(weights)
    assert digest(tmp_path, network) != before
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert digest(tmp_path, mlp()) != before
    finally:
        keras.config.set_dtype_policy("float32")
