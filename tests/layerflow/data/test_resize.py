"""The resizing of images: the stated rule, bit by bit, and near what others do."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from layerflow.data import resize

#: Rows and columns before and after: smaller, larger, both, by whole numbers, to one and from one.
SIZES = [
    ((37, 50), (22, 22)),
    ((8, 8), (20, 13)),
    ((30, 7), (11, 19)),
    ((64, 64), (32, 16)),
    ((9, 5), (1, 1)),
    ((1, 1), (4, 3)),
    ((5, 40), (5, 17)),
]


def noise(rows: int, columns: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(rows * columns).integers(0, 256, (rows, columns, channels), np.uint8)


def triangle(before: int, after: int, pixel: int) -> list[int]:
    """The weights of one pixel in 65,536ths, by fractions: the filter's definition, and the stated rounding."""
    scale = Fraction(before, after)
    middle = (pixel + Fraction(1, 2)) * scale
    heights = [max(Fraction(0), 1 - abs(j + Fraction(1, 2) - middle) / max(scale, 1)) for j in range(before)]
    sums = [round(65_536 * sum(heights[:count], Fraction(0)) / sum(heights)) for count in range(before + 1)]
    return [later - earlier for earlier, later in itertools.pairwise(sums)]


def halves_up(sums: np.ndarray) -> np.ndarray:
    return (sums + 32_768) // 65_536


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_each_pixel_is_what_the_rule_says(before: tuple[int, int], after: tuple[int, int]) -> None:
    image = noise(*before)
    down, across = (
        np.array([triangle(*pair, pixel) for pixel in range(pair[1])]) for pair in zip(before, after, strict=True)
    )
    scaled = halves_up(np.einsum("ij,jkc->ikc", down, image.astype(np.int64)))
    expected = halves_up(np.einsum("ij,kjc->kic", across, scaled))
    assert (resize.resize(image, *after) == expected).all()


@pytest.mark.parametrize(("before", "after"), [*SIZES, ((375, 500), (224, 224)), ((100, 100), (333, 301))])
def test_no_pixel_differs_by_more_than_one_from_pillow_and_tensorflow(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    image = noise(*before)
    found = resize.resize(image, *after).astype(int)
    pillow = Image.fromarray(image).resize(after[::-1], Image.Resampling.BILINEAR)
    tensorflow = tf.image.resize(image, after, antialias=True)
    assert abs(found - np.asarray(pillow)).max() <= 1
    # Each of two roundings adds at most a half, and TensorFlow rounds nothing.
    assert abs(found - tensorflow.numpy()).max() <= 1.01


@pytest.mark.parametrize("compiled", [False, True], ids=["graph", "xla"])
def test_a_tensorflow_graph_gives_the_same_bits(compiled: bool) -> None:
    image = noise(375, 500)
    down, across = (resize.weights(*pair).toarray() for pair in ((375, 224), (500, 224)))

    @tf.function(jit_compile=compiled)
    def graph(pixels: tf.Tensor) -> tf.Tensor:
        scaled = tf.floor(tf.einsum("ij,jkc->ikc", down, tf.cast(pixels, tf.float32)) + 0.5)
        return tf.cast(tf.floor(tf.einsum("ij,kjc->kic", across, scaled) + 0.5), tf.uint8)

    assert (graph(image).numpy() == resize.resize(image, 224, 224)).all()


@pytest.mark.parametrize(("before", "after"), [(500, 224), (224, 500), (1, 7), (7, 1), (1_000_000, 3), (3, 99_999)])
def test_the_weights_of_a_pixel_sum_to_one_and_are_whole_parts(before: int, after: int) -> None:
    matrix = resize.weights(before, after)
    assert matrix.shape == (after, before)
    assert (matrix.sum(axis=1) == 1).all()
    parts = matrix.data * resize.PARTS
    assert (parts == np.rint(parts)).all()
    assert parts.min() > 0


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_an_image_of_one_value_keeps_it(value: int) -> None:
    assert (resize.resize(np.full((31, 47, 3), value, np.uint8), 13, 64) == value).all()


def test_the_size_of_the_parts_that_are_handled_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(37, 50)
    whole = resize.resize(image, 22, 22)
    monkeypatch.setattr(resize, "_MOST_VALUES", 100)
    assert (resize.resize(image, 22, 22) == whole).all()


def test_an_image_of_the_right_size_is_as_it_was() -> None:
    image = noise(12, 10)
    assert resize.resize(image, 12, 10) is image
