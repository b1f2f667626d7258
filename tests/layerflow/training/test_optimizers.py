"""The warm-up of the learning rate, and the average of the weights."""

import keras
import numpy as np
import pytest

from layerflow.models.mlp import Mlp
from layerflow.settings.training import TrainingConfig
from layerflow.training.engine import Engine
from layerflow.training.optimizers import LinearWarmup, make_optimizer


@pytest.mark.parametrize("schedule", [None, "CosineDecay"])
def test_a_warm_up_rises_from_zero_as_that_of_keras_does_and_the_schedule_follows(schedule: str | None) -> None:
    config = TrainingConfig(warmup_epochs=1.5, epochs=10, learning_rate=0.3, schedule=schedule)
    rate = make_optimizer(config, steps_an_epoch=20)._learning_rate
    oracle = keras.optimizers.schedules.CosineDecay(
        0.0, 170, warmup_target=0.3, warmup_steps=30, alpha=0.0 if schedule else 1.0
    )
    for step in (0, 1, 15, 29, 30, 31, 100, 199, 250):
        assert float(rate(step)) == pytest.approx(float(oracle(step)), rel=1e-6, abs=1e-9)


def test_a_warm_up_is_saved_and_loaded_as_keras_does() -> None:
    rate = LinearWarmup(keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.5), 4)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rate))
    assert [float(again(step)) for step in range(9)] == [float(rate(step)) for step in range(9)]
    plain = LinearWarmup(0.1, 4)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(plain))
    assert float(again(2)) == pytest.approx(0.05)


def test_a_learning_rate_of_the_optimizer_is_the_one_that_a_schedule_starts_from() -> None:
    form = {"class_name": "SGD", "config": {"learning_rate": 0.5}}
    config = TrainingConfig(optimizer=form, schedule="CosineDecay", learning_rate=0.1)
    assert float(make_optimizer(config, 10).learning_rate) == pytest.approx(0.5)


@pytest.mark.slow
def test_the_average_of_the_weights_is_that_of_the_definition() -> None:
    """After one epoch: the weights after each of its steps, averaged in NumPy."""
    keras.utils.set_random_seed(3)
    random = np.random.default_rng(3)
    images, labels = random.integers(0, 256, (40, 6, 6, 1), np.uint8), random.integers(0, 4, 40, np.int32)
    network = Mlp(hidden=(8,), classes=4)
    network.build((None, 6, 6, 1))
    optimizer = make_optimizer(TrainingConfig(ema=0.8), 5)
    optimizer.build(network.trainable_variables)
    engine, after = Engine(network, optimizer, images, labels, 8, 0), list[list[np.ndarray]]()
    for _ in range(engine.steps):
        engine._chunk = 1
        engine.run_chunk(1)
        after.append([variable.numpy() for variable in network.trainable_variables])
    expected = after[0]
    for step in after[1:]:
        expected = [0.8 * average + 0.2 * weight for average, weight in zip(expected, step, strict=True)]
    optimizer.finalize_variable_values(network.trainable_variables)
    for mine, reference in zip(network.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-5, atol=1e-7)
