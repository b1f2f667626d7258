"""Keras' own test of a layer, run against ours. It is private to Keras: this file alone imports it."""

from typing import Any

import pytest
from keras.src import testing

from layers import (
    GELU,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    LayerNormalization,
    MaxPooling2D,
    MultiHeadAttention,
    PatchEmbedding,
    RandomFlip,
    RandomShift,
    ReLU,
    Rescale,
    Residual,
)

#: Layer, arguments, input shape, output shape, trainable weights, other weights.
CASES: list[tuple[Any, dict[str, Any], tuple[int, ...], tuple[int, ...], int, int]] = [
    (Dense, {"units": 5}, (2, 3), (2, 5), 2, 0),
    (Dense, {"units": 5, "use_bias": False}, (2, 4, 3), (2, 4, 5), 1, 0),
    (ReLU, {}, (2, 3, 4), (2, 3, 4), 0, 0),
    (GELU, {}, (2, 3), (2, 3), 0, 0),
    (Flatten, {}, (2, 3, 4, 2), (2, 24), 0, 0),
    (Rescale, {"scale": 0.5, "offset": 1.0}, (2, 3), (2, 3), 0, 0),
    (Dropout, {"rate": 0.3, "seed": 1}, (2, 30), (2, 30), 0, 1),
    (BatchNormalization, {"momentum": 0.9}, (4, 3, 3, 2), (4, 3, 3, 2), 2, 2),
    (LayerNormalization, {}, (4, 5, 6), (4, 5, 6), 2, 0),
    (Conv2D, {"filters": 4, "kernel_size": 3}, (2, 7, 6, 3), (2, 5, 4, 4), 2, 0),
    (Conv2D, {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same"}, (2, 7, 6, 3), (2, 4, 3, 4), 2, 0),
    (MaxPooling2D, {"pool_size": 2}, (2, 7, 6, 3), (2, 3, 3, 3), 0, 0),
    (GlobalAveragePooling2D, {}, (2, 4, 3, 5), (2, 5), 0, 0),
    (PatchEmbedding, {"patch_size": 2, "units": 6}, (2, 4, 6, 3), (2, 6, 6), 3, 0),
    (MultiHeadAttention, {"heads": 2}, (2, 5, 8), (2, 5, 8), 8, 0),
    (RandomShift, {"pixels": 1, "seed": 1}, (2, 5, 4, 3), (2, 5, 4, 3), 0, 1),
    (RandomFlip, {"seed": 1}, (2, 5, 4, 3), (2, 5, 4, 3), 0, 1),
    (Residual, {"branch": [Conv2D(4, 3, padding="same")]}, (2, 5, 4, 3), (2, 5, 4, 4), 3, 0),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0].__name__}-{case[1]}")
def test_keras_own_test_of_a_layer_passes(case: Any) -> None:
    layer, arguments, shape, output, trainable, frozen = case
    # What only moves numbers leaves their dtype as it is; a branch's layers bring their own.
    as_told = layer not in (RandomShift, RandomFlip, Residual)
    testing.TestCase().run_layer_test(
        layer,
        init_kwargs=arguments,
        input_shape=shape,
        expected_output_shape=output,
        expected_num_trainable_weights=trainable,
        expected_num_non_trainable_weights=frozen,
        expected_num_seed_generators=0,
        expected_num_losses=0,
        supports_masking=layer
        in (ReLU, GELU, Dropout, LayerNormalization, MultiHeadAttention, RandomShift, RandomFlip),
        run_mixed_precision_check=as_told,
    )
