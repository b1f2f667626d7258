"""What every layer must do, checked by one table. A new layer gets all of it by adding its row."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import layers
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
from tests import forked

Layer = keras.layers.Layer


@dataclass(frozen=True)
class Row:
    """A layer to be checked.

    Attributes:
        make: Makes it.
        shape: An input's shape, without the batch.
        weights: Names and shapes of its weights, in order.
        oracle: What its output must be outside training, from the input and the weights' values by name, in NumPy or
            with layers of Keras' own.
        frozen: How many of the weights, counted from the end, no gradient changes.
        random: Whether it draws in training.
        wrong: Constructor calls that must be refused, with a part of the sentence.
        odd: Input shapes, without the batch, that must be refused.
    """

    make: Callable[..., Layer]
    shape: tuple[int, ...]
    weights: dict[str, tuple[int, ...]] = field(default_factory=dict)
    oracle: Callable[..., Any] = lambda x, w: x
    frozen: int = 0
    random: bool = False
    wrong: tuple[tuple[Callable[[], Layer], str], ...] = ()
    odd: tuple[tuple[int | None, ...], ...] = ()


def like_keras(make: Callable[[], Layer], names: str = "") -> Callable[..., Any]:
    """The oracle is a layer of Keras' own with the same weights, named in Keras' order."""

    def answer(x: Any, w: dict[str, np.ndarray]) -> Any:
        theirs = make()
        theirs.build(x.shape)
        theirs.set_weights([w[name] for name in names.split()])
        return theirs(x)

    return answer


def attention_of_keras(x: Any, w: dict[str, np.ndarray]) -> Any:
    theirs = keras.layers.MultiHeadAttention(num_heads=2, key_dim=4)
    theirs.build(x.shape, x.shape)
    values = []
    for name in ("query", "key", "value"):
        values += [w[f"{name}_w"].reshape(8, 2, 4), w[f"{name}_b"].reshape(2, 4)]
    theirs.set_weights([*values, w["output_w"].reshape(2, 4, 8), w["output_b"]])
    return theirs(x, x)


def patches_by_slicing(x: Any, w: dict[str, np.ndarray]) -> Any:
    tokens = [x[:, top : top + 2, left : left + 3] for top in (0, 2, 4) for left in (0, 3)]
    flat = [ops.reshape(token, (-1, 2 * 3 * 2)) for token in tokens]
    return ops.stack(
        [token @ w["w"] + w["b"] + place for token, place in zip(flat, w["position"], strict=True)], axis=1
    )


def branch_and_input(x: Any, w: dict[str, np.ndarray]) -> Any:
    branch = ops.maximum(ops.conv(x, w["w"], 2, "same"), 0)
    return branch + ops.conv(x, w["w_1"], 2, "same")


ROWS = {
    "Dense": Row(
        lambda **k: Dense(5, **k),
        (7,),
        {"w": (7, 5), "b": (5,)},
        like_keras(lambda: keras.layers.Dense(5), "w b"),
        wrong=(
            (lambda: Dense(0), "`units` must be a positive integer"),
            (lambda: Dense(3, input_dim=-1), "`input_dim`"),
        ),
        odd=((None,),),
    ),
    "Dense, explicit size, no bias": Row(
        lambda **k: Dense(5, use_bias=False, input_dim=7, **k),
        (3, 7),
        {"w": (7, 5)},
        lambda x, w: x @ w["w"],
        odd=((6,),),
    ),
    "ReLU": Row(lambda **k: ReLU(**k), (6, 2), oracle=lambda x, w: ops.maximum(x, 0)),
    "GELU": Row(lambda **k: GELU(**k), (6,), oracle=lambda x, w: keras.activations.gelu(x)),
    "Flatten": Row(
        lambda **k: Flatten(**k), (3, 4, 2), oracle=lambda x, w: ops.reshape(x, (-1, 24)), odd=((3, None, 2),)
    ),
    "Rescale": Row(
        lambda **k: Rescale(2.0, -1.0, **k),
        (3, 4, 2),
        oracle=lambda x, w: x * 2.0 - 1.0,
        wrong=((lambda: Rescale("2"), "`scale` must be a number"), (lambda: Rescale(1.0, None), "`offset` must be")),
    ),
    "Dropout": Row(
        lambda **k: Dropout(0.4, seed=3, **k),
        (50,),
        {"key": (2,)},
        frozen=1,
        random=True,
        wrong=((lambda: Dropout(1.0), "`rate` must be a number"), (lambda: Dropout(0.5, seed=-1), "`seed` must be")),
    ),
    "BatchNormalization": Row(
        lambda **k: BatchNormalization(momentum=0.8, **k),
        (5, 4, 3),
        {"gamma": (3,), "beta": (3,), "moving_mean": (3,), "moving_variance": (3,)},
        like_keras(lambda: keras.layers.BatchNormalization(), "gamma beta moving_mean moving_variance"),
        frozen=2,
        wrong=(
            (lambda: BatchNormalization(momentum=1), "`momentum` must be a number"),
            (lambda: BatchNormalization(epsilon=0), "`epsilon` must be a finite number above 0"),
        ),
        odd=((4, None),),
    ),
    "LayerNormalization": Row(
        lambda **k: LayerNormalization(**k),
        (5, 8),
        {"gamma": (8,), "beta": (8,)},
        like_keras(lambda: keras.layers.LayerNormalization(), "gamma beta"),
        wrong=((lambda: LayerNormalization(epsilon=-1), "`epsilon` must be a finite number above 0"),),
        odd=((4, None),),
    ),
    "Conv2D": Row(
        lambda **k: Conv2D(4, 3, **k),
        (7, 6, 2),
        {"w": (3, 3, 2, 4), "b": (4,)},
        like_keras(lambda: keras.layers.Conv2D(4, 3), "w b"),
        wrong=(
            (lambda: Conv2D(0, 3), "`filters` must be a positive integer"),
            (lambda: Conv2D(4, (3, 0)), "`kernel_size` must be a positive integer or a pair"),
            (lambda: Conv2D(4, 3, strides=(1, 2, 3)), "`strides` must be a positive integer or a pair"),
            (lambda: Conv2D(4, 3, padding="SAME"), '`padding` must be "valid" or "same"'),
        ),
        odd=((7, 6), (7, 6, None)),
    ),
    "Conv2D, strides, same, no bias": Row(
        lambda **k: Conv2D(4, (3, 2), (2, 3), "same", use_bias=False, **k),
        (7, 8, 2),
        {"w": (3, 2, 2, 4)},
        like_keras(lambda: keras.layers.Conv2D(4, (3, 2), (2, 3), "same", use_bias=False), "w"),
    ),
    "MaxPooling2D": Row(
        lambda **k: MaxPooling2D(**k),
        (7, 6, 2),
        oracle=like_keras(lambda: keras.layers.MaxPooling2D()),
        wrong=(
            (lambda: MaxPooling2D(0), "`pool_size` must be a positive integer or a pair"),
            (lambda: MaxPooling2D(padding="full"), '`padding` must be "valid" or "same"'),
        ),
        odd=((7, 6),),
    ),
    "MaxPooling2D, overlapping": Row(
        lambda **k: MaxPooling2D((3, 2), 2, "same", **k),
        (7, 6, 2),
        oracle=like_keras(lambda: keras.layers.MaxPooling2D((3, 2), 2, "same")),
    ),
    "GlobalAveragePooling2D": Row(
        lambda **k: GlobalAveragePooling2D(**k), (5, 3, 4), oracle=lambda x, w: ops.mean(x, axis=(1, 2)), odd=((5, 4),)
    ),
    "Residual": Row(
        lambda **k: Residual([Conv2D(4, 3, 1, "same", use_bias=False, **k), Dropout(0.0, **k), ReLU(**k)], **k),
        (6, 5, 4),
        {"w": (3, 3, 4, 4), "key": (2,)},
        lambda x, w: x + ops.maximum(ops.conv(x, w["w"], 1, "same"), 0),
        frozen=1,
        wrong=(
            (lambda: Residual([]), "`branch` must be a list"),
            (lambda: Residual(["relu"]), "`branch` must be a list"),
        ),
    ),
    "Residual, projected": Row(
        lambda **k: Residual([Conv2D(6, 3, 2, "same", use_bias=False, **k), ReLU(**k)], **k),
        (7, 8, 4),
        {"w": (3, 3, 4, 6), "w_1": (1, 1, 4, 6)},
        branch_and_input,
    ),
    "Residual, of tokens": Row(
        lambda **k: Residual([Dense(5, use_bias=False, **k)], **k),
        (4, 3),
        {"w": (3, 5), "w_1": (3, 5)},
        lambda x, w: x @ w["w"] + x @ w["w_1"],
    ),
    "PatchEmbedding": Row(
        lambda **k: PatchEmbedding((2, 3), 5, **k),
        (6, 6, 2),
        {"w": (12, 5), "b": (5,), "position": (6, 5)},
        patches_by_slicing,
        wrong=(
            (lambda: PatchEmbedding(0, 5), "`patch_size` must be a positive integer or a pair"),
            (lambda: PatchEmbedding(2, 0), "`units` must be a positive integer"),
        ),
        odd=((7, 6, 2), (None, 6, 2)),
    ),
    "MultiHeadAttention": Row(
        lambda **k: MultiHeadAttention(2, **k),
        (5, 8),
        {
            f"{name}_{part}": (8, 8)[: 2 if part == "w" else 1]
            for name in ("query", "key", "value", "output")
            for part in "wb"
        },
        attention_of_keras,
        wrong=((lambda: MultiHeadAttention(0), "`heads` must be a positive integer"),),
        odd=((5, 7), (5, None), (8,)),
    ),
    "RandomShift": Row(
        lambda **k: RandomShift(2, seed=3, **k),
        (6, 5, 2),
        {"key": (2,)},
        frozen=1,
        random=True,
        wrong=(
            (lambda: RandomShift(0), "`pixels` must be a positive integer"),
            (lambda: RandomShift(1, 0.5), "`seed`"),
        ),
        odd=((6, 5),),
    ),
    "RandomFlip": Row(
        lambda **k: RandomFlip(seed=3, **k),
        (6, 5, 2),
        {"key": (2,)},
        frozen=1,
        random=True,
        wrong=((lambda: RandomFlip("diagonal"), '`direction` must be "horizontal" or "vertical"'),),
        odd=((6, 5),),
    ),
}
every_row = pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
#: Sums of up to a hundred products of numbers near 1, in another order than the oracle's.
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}


def inputs(row: Row, batch: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, *row.shape)).astype("float32")


def made(row: Row, **kwargs: Any) -> Layer:
    """A built layer whose weights are no round numbers, so that a wrong one shows."""
    layer = row.make(**kwargs)
    layer(inputs(row))
    random = np.random.default_rng(1)
    for weight in layer.weights:
        if weight.dtype == "float32":
            weight.assign(random.uniform(0.1, 1.0, weight.shape))
    return layer


def values(layer: Layer, row: Row) -> dict[str, np.ndarray]:
    return dict(zip(row.weights, (weight.numpy() for weight in layer.weights), strict=True))


def test_every_public_layer_has_a_row() -> None:
    classes = {name for name in layers.__all__ if isinstance(getattr(layers, name), type)}
    assert {name.partition(",")[0] for name in ROWS} == classes


@every_row
def test_weights_are_made_once_and_named(row: Row) -> None:
    layer = row.make()
    layer(inputs(row))
    first = list(layer.weights)
    layer(inputs(row, batch=2))
    assert all(one is other for one, other in zip(first, layer.weights, strict=True))
    assert [tuple(weight.shape) for weight in first] == list(row.weights.values())
    assert [weight.name for weight in first] == [name.removesuffix("_1") for name in row.weights]
    assert len(layer.non_trainable_weights) == row.frozen
    assert len({weight.path for weight in first}) == len(first)


@every_row
def test_output_and_gradients_are_the_oracles(row: Row) -> None:
    layer = made(row)
    results = []
    for call in (layer, lambda x: row.oracle(x, values(layer, row))):
        x = tf.constant(inputs(row))
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = tf.convert_to_tensor(call(x))
            loss = tf.reduce_sum(
                outputs * tf.cos(tf.cast(tf.reshape(tf.range(tf.size(outputs)), outputs.shape), "float32"))
            )
        results.append((outputs, tape.gradient(loss, x)))
    for mine, reference in zip(*results, strict=True):
        np.testing.assert_allclose(mine, reference, **ROUNDING)
    assert tuple(results[0][0].shape) == tuple(layer.compute_output_shape((4, *row.shape)))


@every_row
def test_the_gradient_reaches_every_trainable_weight(row: Row) -> None:
    layer = made(row)
    with tf.GradientTape() as tape:
        outputs = layer(inputs(row), training=True) if row.random or row.frozen else layer(inputs(row))
        loss = tf.reduce_sum(outputs * tf.random.stateless_normal(outputs.shape, [1, 2]))
    gradients = tape.gradient(loss, [weight.value for weight in layer.trainable_weights])
    assert all(gradient is not None and np.abs(gradient).sum() > 0 for gradient in gradients)


@every_row
@pytest.mark.parametrize("training", [False, True])
def test_symbolic_eager_graph_and_xla_calls_agree(row: Row, training: bool) -> None:
    def fresh() -> Layer:
        return made(row)

    reference = fresh()
    passes = {"training": training} if reference._call_has_training_arg else {}
    expected = [np.asarray(reference(inputs(row), **passes)) for _ in range(2)]
    for xla in (False, True):
        layer = fresh()
        unknown_batch = tf.TensorSpec((None, *row.shape), tf.float32)
        compiled = tf.function(
            lambda x, layer=layer: layer(x, **passes), jit_compile=xla, input_signature=[unknown_batch]
        )
        for outputs in expected:
            np.testing.assert_allclose(compiled(tf.constant(inputs(row))), outputs, **ROUNDING)
    layer, symbolic = fresh(), keras.Input(row.shape)
    model = keras.Model(symbolic, layer(symbolic))
    np.testing.assert_allclose(model(inputs(row), training=training), expected[0], **ROUNDING)


@every_row
def test_config_is_the_same_before_and_after_build_and_makes_an_equal_layer(row: Row) -> None:
    layer = row.make(name="mine")
    before = layer.get_config()
    layer(inputs(row))
    assert layer.get_config() == before
    again = type(layer).from_config(json.loads(json.dumps(before)))
    assert again.name == "mine"
    again(inputs(row))
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(inputs(row)), layer(inputs(row)))


@every_row
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_computes_low_and_keeps_weights_in_float32(row: Row, policy: str) -> None:
    layer = made(row, dtype=policy)
    low = policy.removeprefix("mixed_")
    outputs = layer(inputs(row).astype("float32"))
    wide = ("RandomShift", "RandomFlip", "Flatten")  # what only moves numbers may leave them as they are
    assert keras.backend.standardize_dtype(outputs.dtype) in (
        (low, "float32") if type(layer).__name__ in wide else (low,)
    )
    assert {weight.dtype for weight in layer.weights} <= {"float32", "int64"}
    reference = made(row)(inputs(row))
    scale = float(np.abs(reference).max())
    # bfloat16 keeps 8 bits: each of some dozens of products is off by at most 2**-8.
    np.testing.assert_allclose(np.asarray(outputs, "float32"), reference, atol=0.06 * scale)


@pytest.mark.slow
@every_row
def test_it_trains_in_fit_of_plain_keras(row: Row) -> None:
    model = keras.Sequential([keras.Input(row.shape), row.make(), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    before = model.get_weights()
    history = model.fit(inputs(row, 9), np.ones((9, 2)), batch_size=4, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    changed = {
        weight.path: bool((old != new).any())
        for weight, old, new in zip(model.weights, before, model.get_weights(), strict=True)
    }
    # A layer that draws nothing leaves the state of its random numbers as it is: `Residual` has a dropout of 0.
    assert changed == {path: row.random or not path.endswith("/key") for path in changed}


@pytest.mark.parametrize(
    ("make", "sentence"),
    [pytest.param(*case, id=f"{name}-{number}") for name, row in ROWS.items() for number, case in enumerate(row.wrong)],
)
def test_a_wrong_argument_is_one_sentence(make: Callable[[], Layer], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the sentence is checked below)
        make()
    assert sentence in str(caught.value)
    assert "Received: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape"),
    [pytest.param(name, shape, id=f"{name}-{shape}") for name, row in ROWS.items() for shape in row.odd],
)
def test_an_odd_input_is_one_sentence(name: str, shape: tuple[int | None, ...]) -> None:
    layer = ROWS[name].make()
    with pytest.raises(ValueError, match=r"Received: .*input_shape="):
        layer.compute_output_shape((None, *shape)) if name == "Flatten" else layer.build((None, *shape))


@pytest.mark.process
def test_saved_as_keras_and_as_savedmodel_every_layer_answers_the_same_in_a_fresh_process(tmp_path: Path) -> None:
    """In a process of its own, which knows only what was saved."""
    for number, (name, row) in enumerate(ROWS.items()):
        model = keras.Sequential([keras.Input(row.shape), made(row)])
        folder = tmp_path / str(number)
        folder.mkdir()
        model.save(folder / "model.keras")
        model.export(folder / "exported", verbose=False)
        np.savez(folder / "golden.npz", inputs=inputs(row), outputs=model(inputs(row)), name=name)
    done = forked.run(
        [sys.executable, forked.PROGRAMS / "loads_every_layer.py", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.endswith("all the same\n"), done.stderr[-3000:]
