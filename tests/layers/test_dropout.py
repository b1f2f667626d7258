"""`layers.Dropout`: what it draws, when, and that it comes back after a restart."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from layers import Dropout

ONES = np.ones((400, 100), "float32")


def masks(layer: Dropout, calls: int) -> list[np.ndarray]:
    return [np.asarray(layer(ONES, training=True)) for _ in range(calls)]


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.9])
def test_the_share_left_out_is_the_rate_and_the_others_are_scaled(rate: float) -> None:
    (outputs,) = masks(Dropout(rate, seed=1), 1)
    # 40,000 draws: four standard errors of the share.
    assert abs((outputs == 0).mean() - rate) <= 4 * np.sqrt(rate * (1 - rate) / outputs.size)
    np.testing.assert_allclose(outputs[outputs != 0], 1 / (1 - rate), rtol=1e-6)


def test_each_place_is_left_out_independently() -> None:
    kept = np.mean([mask != 0 for mask in masks(Dropout(0.5, seed=2), 50)], axis=0)
    # A mean of 50 fair draws has a standard deviation of 0.0707; 40,000 places tell it to 1 %.
    assert kept.std() == pytest.approx(np.sqrt(0.25 / 50), rel=0.02)
    rows, columns = kept.mean(axis=1), kept.mean(axis=0)
    assert rows.std() == pytest.approx(np.sqrt(0.25 / 5_000), rel=0.2)
    assert columns.std() == pytest.approx(np.sqrt(0.25 / 20_000), rel=0.3)


def test_outside_training_the_inputs_pass_and_nothing_is_drawn() -> None:
    layer, other = Dropout(0.5, seed=3), Dropout(0.5, seed=3)
    np.testing.assert_array_equal(layer(ONES), ONES)
    np.testing.assert_array_equal(layer(ONES, training=False), ONES)
    np.testing.assert_array_equal(*[masks(each, 1)[0] for each in (layer, other)])


def test_masks_differ_from_call_to_call_and_from_layer_to_layer_and_follow_the_seed() -> None:
    keras.utils.set_random_seed(0)
    first, second = Dropout(0.5), Dropout(0.5)
    a, b = masks(first, 2)
    assert (a != b).any()
    assert (a != masks(second, 1)[0]).any()
    keras.utils.set_random_seed(0)
    np.testing.assert_array_equal(masks(Dropout(0.5), 2), [a, b])


def test_eager_function_and_xla_draw_the_same() -> None:
    expected = masks(Dropout(0.3, seed=5), 3)
    for xla in (False, True):
        layer = Dropout(0.3, seed=5)
        compiled = tf.function(lambda x, layer=layer: layer(x, training=True), jit_compile=xla)
        for mask in expected:
            np.testing.assert_allclose(compiled(tf.constant(ONES)), mask, rtol=1e-6)


def test_the_gradient_is_that_of_the_mask() -> None:
    x = tf.constant(ONES)
    layer = Dropout(0.4, seed=6)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, training=True)
    np.testing.assert_array_equal(tape.gradient(outputs, x), outputs)  # of ones: mask and gradient are the same


def test_a_saved_layer_goes_on_with_the_masks_that_would_have_come(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((100,)), Dropout(0.5, seed=7)])
    model(ONES, training=True)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(ONES, training=True), model(ONES, training=True))


def test_config_makes_an_equal_layer_even_where_the_seed_was_drawn() -> None:
    layer = Dropout(0.5, name="half")
    again = Dropout.from_config(layer.get_config())
    assert again.name == "half"
    np.testing.assert_array_equal(masks(again, 2), masks(layer, 2))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_the_dtype(policy: str) -> None:
    outputs = Dropout(0.5, seed=1, dtype=policy)(ONES, training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == policy.removeprefix("mixed_")


def test_fit_of_plain_keras_trains_on_the_inputs_that_the_mask_left() -> None:
    last = keras.layers.Dense(1, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((4,)), Dropout(0.5, seed=8), last])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    inputs, labels = np.ones((8, 4), "float32"), np.ones((8, 1), "float32")
    kept = np.asarray(Dropout(0.5, seed=8)(inputs, training=True))
    assert 0 < (kept == 0).sum() < kept.size
    history = model.fit(inputs, labels, batch_size=8, verbose=0)
    error = kept.sum(axis=1, keepdims=True) - labels
    np.testing.assert_allclose(history.history["loss"], [(error**2).mean()], rtol=1e-6)
    np.testing.assert_allclose(last.kernel, 1 - 0.1 * 2 * (kept * error).mean(axis=0)[:, None], rtol=1e-5)


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, "0.5", True, None])
def test_a_rate_out_of_range_is_refused(rate: object) -> None:
    with pytest.raises(ValueError, match="`rate` must be a number"):
        Dropout(rate)


@pytest.mark.parametrize("seed", [-1, 1.5, "7", True])
def test_a_seed_that_is_none_is_refused(seed: object) -> None:
    with pytest.raises(ValueError, match="`seed` must be a whole number"):
        Dropout(0.5, seed)
