"""`layers.Dense` against Keras' own, with equal weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from layers import Dense

# Sums of 20 products, each rounded to 2**-24 of values near 1: a few units in the last place.
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}


def equal_pair(inputs: np.ndarray, units: int = 7, **kwargs: object) -> tuple[Dense, keras.layers.Dense]:
    ours, theirs = Dense(units, **kwargs), keras.layers.Dense(units, **kwargs)
    ours(inputs)
    theirs(inputs)
    theirs.set_weights(ours.get_weights())
    return ours, theirs


@pytest.mark.parametrize("shape", [(5, 20), (3, 4, 20), (2, 3, 4, 20)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_outputs_and_gradients_equal_those_of_keras(shape: tuple[int, ...], use_bias: bool) -> None:
    inputs = np.random.default_rng(0).normal(size=shape).astype("float32")
    ours, theirs = equal_pair(inputs, use_bias=use_bias)
    results = []
    for layer in (ours, theirs):
        x = tf.constant(inputs)
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x)
            loss = tf.reduce_sum(outputs**2)
        results.append([outputs, *tape.gradient(loss, [x, *[weight.value for weight in layer.weights]])])
    for mine, reference in zip(*results, strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-5, atol=1e-4)


def test_weights_are_named_w_and_b_and_start_as_the_tutorial_says() -> None:
    keras.utils.set_random_seed(0)
    layer = Dense(300)
    layer(np.zeros((1, 400), "float32"))
    assert [weight.name for weight in layer.weights] == ["w", "b"]
    # 120,000 draws: the standard error of their standard deviation is 0.05 / sqrt(240,000) = 0.0001.
    assert abs(float(np.std(layer.w.numpy())) - 0.05) < 0.0005
    assert not layer.b.numpy().any()


def test_weights_are_made_once_from_the_first_input() -> None:
    layer = Dense(3)
    assert layer.weights == []
    layer(np.zeros((2, 5), "float32"))
    first = layer.w
    layer(np.ones((4, 5), "float32"))
    assert layer.w is first
    assert layer.w.shape == (5, 3)


def test_symbolic_eager_and_xla_calls_agree() -> None:
    inputs = np.random.default_rng(1).normal(size=(4, 6)).astype("float32")
    layer = Dense(3)
    symbolic = keras.Input((6,))
    model = keras.Model(symbolic, layer(symbolic))
    eager = layer(inputs)
    compiled = tf.function(layer, jit_compile=True)(tf.constant(inputs))
    np.testing.assert_allclose(model(inputs), eager, **ROUNDING)
    np.testing.assert_allclose(compiled, eager, **ROUNDING)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_computes_low_and_keeps_weights_in_float32(policy: str) -> None:
    layer = Dense(3, dtype=policy)
    outputs = layer(np.ones((2, 4), "float32"))
    assert keras.backend.standardize_dtype(outputs.dtype) == policy.removeprefix("mixed_")
    assert layer.w.dtype == "float32"


def test_config_is_the_same_before_and_after_build_and_makes_an_equal_layer() -> None:
    layer = Dense(3, use_bias=False, name="head")
    before = layer.get_config()
    layer(np.zeros((2, 5), "float32"))
    assert layer.get_config() == before
    again = Dense.from_config(before)
    assert (again.units, again.use_bias, again.name) == (3, False, "head")


@pytest.mark.parametrize("units", [0, -1, 2.5, "7", True, None])
def test_units_that_are_no_positive_integer_are_refused(units: object) -> None:
    with pytest.raises(ValueError, match="`units` must be a positive integer"):
        Dense(units)


def test_an_input_without_a_fixed_last_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="fixed number of features"):
        Dense(3).build((None, None))
    with pytest.raises(ValueError, match="fixed number of features"):
        Dense(3).build((4,))
