"""Laws that mathematics gives, on inputs that hypothesis chooses; and what the layers do in training."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layers import (
    BatchNormalization,
    Conv2D,
    Dropout,
    GlobalAveragePooling2D,
    LayerNormalization,
    MaxPooling2D,
    MultiHeadAttention,
    RandomFlip,
    RandomShift,
    Residual,
)

lawful = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def images(seed: int, height: int = 9, width: int = 8, channels: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, height, width, channels)).astype("float32")


@lawful
@given(seed=seeds, down=st.integers(0, 3), across=st.integers(0, 3))
def test_a_convolution_of_a_moved_image_is_the_moved_convolution(seed: int, down: int, across: int) -> None:
    layer = Conv2D(3, 3, padding="valid")
    x = images(seed, 12, 12)
    moved = np.asarray(layer(x[:, down : down + 9, across : across + 9]))
    np.testing.assert_allclose(moved, layer(x)[:, down : down + 7, across : across + 7], rtol=1e-4, atol=1e-4)


@lawful
@given(seed=seeds, steps=st.integers(0, 3))
def test_pooling_of_an_image_moved_by_whole_windows_is_the_moved_pooling(seed: int, steps: int) -> None:
    x = images(seed, 14, 8)
    pooled = np.asarray(MaxPooling2D(2)(x))
    np.testing.assert_array_equal(MaxPooling2D(2)(x[:, 2 * steps :]), pooled[:, steps:])


@lawful
@given(seed=seeds)
def test_the_mean_of_an_image_does_not_depend_on_where_its_pixels_are(seed: int) -> None:
    x = images(seed)
    shuffled = np.random.default_rng(seed).permutation(x.reshape(2, -1, 2), axis=1).reshape(x.shape)
    np.testing.assert_allclose(GlobalAveragePooling2D()(shuffled), GlobalAveragePooling2D()(x), rtol=1e-4, atol=1e-5)


@lawful
@given(seed=seeds, scale=st.floats(0.5, 1000), offset=st.floats(-100, 100))
def test_layer_normalization_forgets_scale_and_offset(seed: int, scale: float, offset: float) -> None:
    x = np.random.default_rng(seed).normal(size=(3, 16)).astype("float32")
    layer = LayerNormalization(epsilon=1e-12)
    expected = np.asarray(layer(x))
    # x * scale + offset keeps seven digits of what is left when the offset is taken off again.
    lost = 1e-5 * (1 + abs(offset) / scale)
    np.testing.assert_allclose(layer(x * np.float32(scale) + np.float32(offset)), expected, atol=lost * 10)
    np.testing.assert_allclose(expected.mean(axis=-1), 0, atol=1e-5)
    np.testing.assert_allclose(expected.std(axis=-1), 1, atol=1e-3)


@lawful
@given(seed=seeds, scale=st.floats(0.5, 1000))
def test_batch_normalization_in_training_forgets_the_batchs_scale(seed: int, scale: float) -> None:
    x = np.random.default_rng(seed).normal(size=(32, 5)).astype("float32")
    layer = BatchNormalization(epsilon=1e-12)
    np.testing.assert_allclose(
        layer(x * np.float32(scale), training=True), layer(x, training=True), rtol=1e-3, atol=1e-4
    )


@lawful
@given(seed=seeds, tokens=st.integers(1, 9))
def test_attention_of_tokens_in_another_order_is_the_attention_in_that_order(seed: int, tokens: int) -> None:
    random = np.random.default_rng(seed)
    x = random.normal(size=(2, tokens, 8)).astype("float32")
    layer, order = MultiHeadAttention(2), random.permutation(tokens)
    np.testing.assert_allclose(layer(x[:, order]), np.asarray(layer(x))[:, order], rtol=1e-4, atol=1e-5)


@lawful
@given(seed=seeds, there=st.integers(1, 5))
def test_attention_gathers_nothing_from_masked_tokens(seed: int, there: int) -> None:
    random = np.random.default_rng(seed)
    x = random.normal(size=(2, 6, 8)).astype("float32")
    mask = np.arange(6)[None] < there
    layer = MultiHeadAttention(4)
    masked = np.asarray(layer(x, mask=np.repeat(mask, 2, axis=0)))
    np.testing.assert_allclose(masked[:, :there], layer(x[:, :there]), rtol=1e-4, atol=1e-5)


def test_batch_normalization_learns_the_averages_of_keras() -> None:
    ours, theirs = BatchNormalization(momentum=0.7), keras.layers.BatchNormalization(momentum=0.7)
    for step in range(4):
        x = images(step) * (step + 1) + step
        np.testing.assert_allclose(ours(x, training=True), theirs(x, training=True), rtol=1e-4, atol=1e-4)
    for mine, reference in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_a_frozen_batch_normalization_keeps_its_averages() -> None:
    layer = BatchNormalization()
    layer(images(0), training=True)
    layer.trainable = False
    before = layer.get_weights()
    np.testing.assert_array_equal(layer(images(1), training=True), layer(images(1)))
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_no_gradient_flows_into_the_averages() -> None:
    layer = BatchNormalization()
    layer.build((None, 3))
    assert [weight.name for weight in layer.trainable_weights] == ["gamma", "beta"]
    assert [weight.name for weight in layer.non_trainable_weights] == ["moving_mean", "moving_variance"]


def test_a_residual_hands_training_on_to_its_branch() -> None:
    layer = Residual([Dropout(0.5, seed=1)])
    x = np.ones((4, 50), "float32")
    np.testing.assert_array_equal(layer(x), 2 * x)
    assert set(np.unique(layer(x, training=True))) == {1.0, 3.0}


def test_every_shift_is_equally_likely_and_what_comes_in_is_zero() -> None:
    x = np.zeros((5_000, 7, 7, 1), "uint8")
    x[:, 3, 3] = 9
    layer = RandomShift(2, seed=4)
    moved = np.asarray(layer(x, training=True))
    assert moved.dtype == np.uint8
    assert (moved.sum(axis=(1, 2, 3)) == 9).all()
    _, rows, columns, _ = np.nonzero(moved)
    counts = np.histogram2d(rows, columns, bins=5, range=((0.5, 5.5), (0.5, 5.5)))[0]
    # 25 places with 200 expected in each: chi-square with 24 degrees of freedom is below 60 in 99.99 % of all trials.
    assert ((counts - 200) ** 2 / 200).sum() < 60
    np.testing.assert_array_equal(layer(x), x)
    ones = np.asarray(layer(np.ones((500, 7, 7, 1), "float32"), training=True))
    assert (ones.sum(axis=(1, 2, 3)) >= 25).all()
    assert ones.min() == 0


@pytest.mark.parametrize(("direction", "axis"), [("horizontal", 2), ("vertical", 1)])
def test_half_of_the_images_are_mirrored_the_others_not(direction: str, axis: int) -> None:
    x = np.random.default_rng(0).integers(0, 256, (4_000, 3, 4, 1), np.uint8)
    flipped = np.asarray(RandomFlip(direction, seed=5)(x, training=True))
    mirrored = (flipped == np.flip(x, axis)).all(axis=(1, 2, 3))
    same = (flipped == x).all(axis=(1, 2, 3))
    assert (mirrored | same).all()
    assert abs((mirrored & ~same).sum() - 2_000) < 4 * np.sqrt(1_000)
