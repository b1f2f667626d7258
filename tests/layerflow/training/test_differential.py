"""Randomly composed Keras models, trained by the engine and by Keras' `fit`: the same losses and the same weights.

``LAYERFLOW_MODELS`` is the number of models, half of them under XLA (default 4; `make drill` runs 100).
"""

import os
import random
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from layerflow.models.seeded import seeded
from layerflow.settings.training import TrainingConfig
from layerflow.training.engine import Engine
from layerflow.training.objective import make_objective
from layerflow.training.optimizers import make_optimizer

pytestmark = pytest.mark.slow

MODELS = int(os.environ.get("LAYERFLOW_MODELS", "4"))
EXAMPLES, BATCH, SIDE = 37, 8, 6
#: Of a loss, relative, and of a weight, absolute: float32 sums in another order, over five steps. Five times what was
#: measured over 29 models, 2.7e-7 and 6.5e-7. In front of a batch normalization, the gradient of a bias is rounding
#: alone, which RMSprop and Adam enlarge.
LOSS_TOLERANCE, WEIGHT_TOLERANCE = 1.4e-6, 3.3e-6


class AddsLoss(layers.Layer):
    """Adds the mean square of what passes to the loss."""

    def call(self, inputs: Any) -> Any:
        self.add_loss(0.1 * keras.ops.mean(keras.ops.square(inputs)))
        return inputs


class Composed(keras.Model):
    """Layers one after the other, as a subclass of `Model`."""

    def __init__(self, chain: list[layers.Layer]) -> None:
        super().__init__()
        self.chain = chain

    def call(self, images: Any, training: bool = False) -> Any:
        x = keras.ops.cast(images, "float32")
        for layer in self.chain:
            x = layer(x, training=training) if isinstance(layer, layers.BatchNormalization) else layer(x)
        return x


def regularizer(draw: random.Random) -> Any:
    return draw.choice(
        [None, None, keras.regularizers.L1(1e-3), keras.regularizers.L2(0.01), keras.regularizers.L1L2(1e-3, 1e-3)]
    )


def constraint(draw: random.Random) -> Any:
    return draw.choice(
        [None, None, keras.constraints.MaxNorm(0.8), keras.constraints.NonNeg(), keras.constraints.UnitNorm()]
    )


def dense(draw: random.Random, units: int) -> layers.Layer:
    return layers.Dense(
        units,
        draw.choice(["relu", "tanh", "gelu", None]),
        kernel_regularizer=regularizer(draw),
        bias_regularizer=regularizer(draw),
        activity_regularizer=draw.choice([None, None, keras.regularizers.L2(1e-3)]),
        kernel_constraint=constraint(draw),
    )


def convolution(draw: random.Random) -> layers.Layer:
    kind = draw.choice([layers.Conv2D, layers.SeparableConv2D])
    weights = "kernel" if kind is layers.Conv2D else "pointwise"
    extras = {f"{weights}_regularizer": regularizer(draw), f"{weights}_constraint": constraint(draw)}
    return kind(draw.choice([2, 4]), 3, padding="same", activation=draw.choice(["relu", "silu"]), **extras)


def compose(seed: int, channels: int, classes: int) -> keras.Model:
    """The model of a seed, functional or subclassed."""
    draw = random.Random(seed)
    chain: list[layers.Layer] = [layers.Rescaling(1 / 255)]
    for _ in range(draw.randint(0, 2)):
        chain += [convolution(draw), *draw.choice([[], [layers.BatchNormalization(momentum=0.8)]])]
        chain += draw.choice([[], [layers.MaxPooling2D()], [AddsLoss()]])
    chain.append(layers.Flatten())
    for _ in range(draw.randint(0, 2)):
        chain += [dense(draw, draw.choice([5, 9]))]
        chain += draw.choice([[], [layers.BatchNormalization()], [layers.LayerNormalization()], [AddsLoss()]])
    chain.append(layers.Dense(classes, kernel_regularizer=regularizer(draw)))
    shape = (SIDE, SIDE, channels)
    if draw.random() < 0.5:
        images = x = keras.Input(shape, dtype="uint8")
        for layer in chain:
            x = layer(x)
        return keras.Model(images, x)
    network = Composed(chain)
    network(np.zeros((1, *shape), np.uint8))
    return network


def recipe(seed: int, classes: int) -> TrainingConfig:
    """An optimizer, a loss and class weights."""
    draw = random.Random(seed + 1_000_000)
    # Adam divides by what may be nearly zero, where rounding is all that is left: a larger epsilon, as in practice.
    kind, settings = draw.choice(
        [
            ("SGD", {}),
            ("SGD", {"momentum": 0.9, "nesterov": True}),
            ("Adam", {"epsilon": 1e-2}),
            ("AdamW", {"epsilon": 1e-2, "weight_decay": 0.1}),
            ("RMSprop", {"epsilon": 1e-2}),
        ]
    )
    settings = settings | draw.choice([{}, {"clipnorm": 0.1}, {"global_clipnorm": 0.1}, {"clipvalue": 0.01}])
    loss = draw.choice(
        [
            "CategoricalCrossentropy",
            {"class_name": "CategoricalCrossentropy", "config": {"label_smoothing": 0.1}},
            {"class_name": "CategoricalFocalCrossentropy", "config": {"gamma": 1.5}},
            "BinaryCrossentropy",
        ]
    )
    return TrainingConfig(
        optimizer={"class_name": kind, "config": settings},
        learning_rate=0.01,
        loss=loss,
        class_weight=draw.choice([None, "balanced", {"0": 3.0, str(classes - 1): 0.5}]),
        ema=draw.choice([None, None, 0.7]),
        schedule=draw.choice([None, "CosineDecay"]),
        warmup_epochs=draw.choice([0, 0.4]),
        epochs=2,
    )


def losses_and_weights(seed: int) -> Iterator[tuple[float, list[np.ndarray]]]:
    """After one epoch: in the engine, and in `fit`."""
    xla, draw = bool(seed % 2), np.random.default_rng(seed)
    channels, classes = int(draw.integers(1, 4)), int(draw.integers(3, 6))
    images = draw.integers(0, 256, (EXAMPLES, SIDE, SIDE, channels), np.uint8)
    labels = draw.integers(0, classes, EXAMPLES, np.int32)
    config, names = recipe(seed, classes), tuple(map(str, range(classes)))

    optimizer = make_optimizer(config, -(-EXAMPLES // BATCH))
    with seeded(seed):
        network = compose(seed, channels, classes)
    optimizer.build(network.trainable_variables)
    objective = make_objective(config, labels, names)
    engine = Engine(network, optimizer, images, labels, BATCH, seed, xla=xla, objective=objective)
    while not engine.run_chunk(1):
        pass
    optimizer.finalize_variable_values(network.trainable_variables)  # the average, where there is one
    yield engine.loss, network.get_weights()

    optimizer = make_optimizer(config, -(-EXAMPLES // BATCH))
    with seeded(seed):
        oracle = compose(seed, channels, classes)
    form = {"class_name": config.loss, "config": {}} if isinstance(config.loss, str) else config.loss
    loss = keras.losses.deserialize({**form, "config": {**form["config"], "from_logits": True}})
    weights = config.class_weight
    if weights == "balanced":
        counts = np.bincount(labels, minlength=classes)
        weights = {name: EXAMPLES / (classes * count) for name, count in zip(names, counts, strict=True) if count}
    oracle.compile(optimizer, loss, jit_compile=xla)
    order = engine.windows.order(1)
    fitted = oracle.fit(
        images[order],
        keras.utils.to_categorical(labels[order], classes),
        BATCH,
        shuffle=False,
        verbose=0,
        class_weight={int(name): weight for name, weight in weights.items()} if weights else None,
    )
    yield fitted.history["loss"][0], oracle.get_weights()


@pytest.mark.parametrize("seed", range(MODELS))
def test_one_epoch_has_the_loss_and_the_weights_of_fit(seed: int) -> None:
    (loss, weights), (fitted, expected) = losses_and_weights(seed)
    assert loss == pytest.approx(fitted, rel=LOSS_TOLERANCE)
    for mine, reference in zip(weights, expected, strict=True):
        np.testing.assert_allclose(mine, reference, rtol=0, atol=WEIGHT_TOLERANCE)
