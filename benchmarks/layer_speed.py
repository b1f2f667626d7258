"""Each layer against its counterpart in ``keras.layers``: forward and training step, compiled, in one run.

Usage: ``python benchmarks/layer_speed.py [ROUNDS]``. Milliseconds are medians of alternated calls; a ratio above 1
means that ours is faster. As the engine does, what has convolutions runs as a graph and everything else under XLA.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from rich.console import Console
from rich.table import Table

import layers as ours

theirs = keras.layers
#: Name, our layer, Keras' own, input shape, whether XLA compiles it.
PAIRS: list[tuple[str, Callable[[], Any], Callable[[], Any], tuple[int, ...], bool]] = [
    ("Dense", lambda: ours.Dense(256), lambda: theirs.Dense(256), (256, 784), True),
    ("ReLU", lambda: ours.ReLU(), lambda: theirs.ReLU(), (128, 28, 28, 32), True),
    ("GELU", lambda: ours.GELU(), lambda: theirs.Activation("gelu"), (128, 64, 256), True),
    ("Flatten", lambda: ours.Flatten(), lambda: theirs.Flatten(), (128, 28, 28, 32), True),
    ("Rescale", lambda: ours.Rescale(), lambda: theirs.Rescaling(1 / 255), (128, 28, 28, 32), True),
    ("Dropout", lambda: ours.Dropout(0.5), lambda: theirs.Dropout(0.5), (128, 4096), True),
    (
        "BatchNormalization",
        lambda: ours.BatchNormalization(),
        lambda: theirs.BatchNormalization(),
        (128, 28, 28, 32),
        False,
    ),
    ("LayerNormalization", lambda: ours.LayerNormalization(), lambda: theirs.LayerNormalization(), (128, 64, 64), True),
    ("Conv2D", lambda: ours.Conv2D(32, 3), lambda: theirs.Conv2D(32, 3), (64, 28, 28, 16), False),
    ("MaxPooling2D", lambda: ours.MaxPooling2D(), lambda: theirs.MaxPooling2D(), (128, 28, 28, 32), False),
    (
        "GlobalAveragePooling2D",
        lambda: ours.GlobalAveragePooling2D(),
        lambda: theirs.GlobalAveragePooling2D(),
        (128, 28, 28, 32),
        True,
    ),
    (
        "MultiHeadAttention",
        lambda: ours.MultiHeadAttention(4),
        lambda: SelfAttention(theirs.MultiHeadAttention(4, 16)),
        (128, 49, 64),
        True,
    ),
    ("RandomFlip", lambda: ours.RandomFlip(), lambda: theirs.RandomFlip("horizontal"), (128, 28, 28, 1), False),
    ("RandomShift", lambda: ours.RandomShift(2), lambda: theirs.RandomTranslation(0.07, 0.07), (128, 28, 28, 1), False),
]


class SelfAttention(theirs.Layer):
    """Keras' attention with one input."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.attention = attention

    def call(self, x: Any) -> Any:
        return self.attention(x, x)


def compiled(layer: Any, x: tf.Tensor, xla: bool) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The forward call outside training, and a call in training with all its gradients."""
    layer(x)

    @tf.function(jit_compile=xla)
    def forward(x: tf.Tensor) -> Any:
        return layer(x)

    takes_training = layer._call_has_training_arg

    @tf.function(jit_compile=xla)
    def step(x: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=True) if takes_training else layer(x)
            loss = tf.reduce_sum(outputs * outputs)
        return tape.gradient(loss, [x, *[weight.value for weight in layer.trainable_weights]])

    return lambda: forward(x), lambda: step(x)


def milliseconds(calls: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Median time of each call; in each round, each is called in turn."""
    times: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + 2):
        for call, taken in zip(calls, times, strict=True):
            began = time.perf_counter()
            tf.nest.map_structure(lambda result: result.numpy() if hasattr(result, "numpy") else result, call())
            if number > 1:  # the first compile
                taken.append((time.perf_counter() - began) * 1000)
    return [statistics.median(taken) for taken in times]


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    table = Table("", "forward ms", "Keras", "ratio", "training step ms", "Keras", "ratio", title=f"median of {rounds}")
    for name, mine, reference, shape, xla in PAIRS:
        x = tf.random.stateless_normal(shape, [1, 2])
        (forward, step), (their_forward, their_step) = (compiled(make(), x, xla) for make in (mine, reference))
        cells = []
        for pair in ([forward, their_forward], [step, their_step]):
            one, other = milliseconds(pair, rounds)
            cells += [f"{one:.2f}", f"{other:.2f}", f"{other / one:.2f}"]
        table.add_row(name, *cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
