"""`layers.ReLU` and `layers.relu` against Keras' own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from layers import ReLU, relu

VALUES = np.array([[-np.inf, -2.0, -0.0], [0.0, 3.5, np.inf]], "float32")


@pytest.mark.parametrize("call", [relu, ReLU()], ids=["function", "layer"])
def test_outputs_and_gradients_equal_those_of_keras_even_at_zero(call: object) -> None:
    results = []
    for function in (call, keras.layers.ReLU()):
        x = tf.constant(VALUES)
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = function(x)
        results.append((outputs.numpy(), tape.gradient(outputs, x).numpy()))
    np.testing.assert_array_equal(results[0], results[1])


def test_not_a_number_stays_not_a_number() -> None:
    assert np.isnan(relu(tf.constant([np.nan]))).all()


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4, 5)])
def test_any_shape_eager_symbolic_and_xla(shape: tuple[int, ...]) -> None:
    inputs = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    symbolic = keras.Input(shape)
    expected = np.maximum(inputs, 0)
    np.testing.assert_array_equal(keras.Model(symbolic, ReLU()(symbolic))(inputs), expected)
    np.testing.assert_array_equal(tf.function(relu, jit_compile=True)(tf.constant(inputs)), expected)


def test_low_precision_is_kept() -> None:
    assert relu(tf.constant([1.0], tf.bfloat16)).dtype == tf.bfloat16
