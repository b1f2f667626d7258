"""Which networks have features, and that these are what the head takes."""

from typing import Any

import keras
import numpy as np
import pytest

from layerflow.models.application import Application
from layerflow.models.cnn import Cnn
from layerflow.models.embedding import embedding_of
from layerflow.models.mlp import Mlp

SHAPE = (32, 32, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), np.uint8)


class Mine(keras.Model):
    """A network whose ``call`` nobody can look into."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten, self.last = keras.layers.Flatten(), keras.layers.Dense(4)

    def call(self, images: Any) -> Any:
        return self.last(self.flatten(images))


def functional() -> keras.Model:
    images = keras.Input(SHAPE)
    hidden = keras.layers.Dense(5)(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images)))
    return keras.Model(images, keras.layers.Dense(4)(hidden))


def sequential() -> keras.Model:
    return keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(4)])


def ends_in_a_logarithm() -> keras.Model:
    images = keras.Input(SHAPE)
    return keras.Model(images, keras.ops.log(keras.ops.softmax(functional()(images)) + 1e-9))


def built(network: keras.Model) -> keras.Model:
    network.build((None, *SHAPE))
    return network


@pytest.mark.parametrize(
    ("make", "width"),
    [
        pytest.param(lambda: built(Mlp(4, hidden=(6,))), 6, id="mlp"),
        pytest.param(lambda: built(Mlp(4, hidden=())), 32 * 32 * 3, id="linear"),
        pytest.param(lambda: built(Cnn(4, width=2)), 8, id="cnn"),
        pytest.param(functional, 5, id="functional"),
        pytest.param(sequential, 32 * 32 * 3, id="sequential"),
        pytest.param(
            lambda: built(Application("MobileNetV3Small", 4, SHAPE, options={"minimalistic": True, "alpha": 0.75})),
            432,
            id="application",
        ),
    ],
)
def test_the_last_weights_make_the_logits_of_the_features(make: Any, width: int) -> None:
    network = make()
    found = embedding_of(network)
    assert found
    features, size = found
    assert size == width
    taken = np.asarray(features(IMAGES))
    assert taken.shape == (3, width)
    *_, weights, bias = (np.asarray(each) for each in network.get_weights())
    np.testing.assert_allclose(taken @ weights + bias, network(IMAGES, training=False), rtol=1e-3, atol=1e-3)


def test_a_network_whose_head_is_not_known_has_no_features() -> None:
    mine = Mine()
    mine(IMAGES)
    assert embedding_of(mine) is None
    assert embedding_of(ends_in_a_logarithm()) is None
