"""Networks that end in a softmax."""

import logging
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from layerflow.models.logits import with_logits

SHAPE = (6, 6, 1)


@keras.saving.register_keras_serializable("tests")
class Probabilities(keras.Model):
    """A custom class: nobody else knows what it does last."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.last = keras.layers.Dense(3)

    def call(self, images: tf.Tensor) -> tf.Tensor:
        x = keras.ops.reshape(keras.ops.cast(images, "float32") / 255, (-1, 36))
        return keras.ops.softmax(self.last(x))


def functional(last: Callable[[keras.KerasTensor], keras.KerasTensor]) -> keras.Model:
    images = keras.Input(SHAPE, dtype="uint8")
    return keras.Model(images, last(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))))


def shared() -> keras.Model:
    """Its last layer gives weights to attention, too: made linear, the network would be another."""
    images = keras.Input(SHAPE, dtype="uint8")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    square = keras.layers.Dense(3, activation="softmax")
    return keras.Model(images, square(square(keras.layers.Dense(3)(x))))


def sequential() -> keras.Model:
    parts = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(3), keras.layers.Softmax()]
    return keras.Sequential(parts)


DENSE = keras.layers.Dense
NETWORKS = {
    "softmax layer": (lambda: functional(lambda x: keras.layers.Softmax()(DENSE(3)(x))), "that layer is cut off"),
    "activation layer": (
        lambda: functional(lambda x: keras.layers.Activation("softmax")(DENSE(3)(x))),
        "that layer is cut off",
    ),
    "sequential": (sequential, "that layer is cut off"),
    "dense": (
        lambda: functional(lambda x: DENSE(3, activation="softmax", name="top")(x)),
        "its last layer, top, is linear now",
    ),
    "used twice": (shared, "a logarithm undoes it"),
    "operation": (lambda: functional(lambda x: keras.ops.softmax(DENSE(3)(x))), "a logarithm undoes it"),
    "class": (Probabilities, "a logarithm undoes it"),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_softmax_is_taken_off_and_the_log_says_how(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make, how = NETWORKS[kind]
    network = make()
    images = np.random.default_rng(1).integers(0, 256, (5, *SHAPE), np.uint8)
    probabilities = np.array(network(images))
    with caplog.at_level(logging.INFO, "layerflow"):
        logits = with_logits("mine:net", network, SHAPE)
    assert f"mine:net ends in a softmax, which the loss and the export apply; {how}" in caplog.text
    assert np.abs(np.sum(logits(images), axis=-1) - 1).max() > 0.01
    # Probabilities of float32 have seven digits.
    np.testing.assert_allclose(keras.ops.softmax(logits(images)), probabilities, rtol=1e-5, atol=1e-6)
    logits.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(images), logits(images), rtol=1e-5, atol=1e-6)
    assert len(logits.trainable_weights) == len(network.trainable_weights)


def test_a_network_of_logits_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    network = functional(DENSE(3))
    with caplog.at_level(logging.INFO, "layerflow"):
        assert with_logits("mine:net", network, SHAPE) is network
    assert caplog.text == ""


def test_an_impossible_class_has_a_finite_logit_and_gradients_stay_finite() -> None:
    network = Probabilities()
    network(np.zeros((1, *SHAPE), np.uint8))
    network.last.bias.assign([0.0, -200.0, 0.0])
    logits = with_logits("mine:net", network, SHAPE)
    images = np.full((2, *SHAPE), 100, np.uint8)
    with tf.GradientTape() as tape:
        answer = logits(images, training=True)
        loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits([0, 1], answer))
    assert np.isfinite(answer).all()
    for gradient in tape.gradient(loss, [weight.value for weight in logits.trainable_weights]):
        assert np.isfinite(gradient).all()
