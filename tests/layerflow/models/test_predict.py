"""A network's answers over a split."""

import numpy as np
import pytest
import tensorflow as tf

from layerflow.models.predict import make_predictor


@pytest.mark.parametrize("fails", [False, True])
def test_answers_are_computed_in_full_float32_and_training_may_go_on_in_tf32(fails: bool) -> None:
    """With a stand-in for the GPU: its switch is read, which a CPU ignores."""
    is_on = tf.config.experimental.tensor_float_32_execution_enabled
    seen = []

    def network(images: tf.Tensor, training: bool) -> tf.Tensor:
        seen.append(is_on())
        if fails:
            raise RuntimeError("no answer")
        return tf.cast(images[:, 0, 0], tf.float32)

    assert is_on()
    try:
        make_predictor(network, xla=False)(np.zeros((3, 2, 2, 1), np.uint8))
    except RuntimeError:
        assert fails
    assert seen == [False]
    assert is_on()
