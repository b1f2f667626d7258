"""Pixels of training against those of the exported graph, over a folder of mixed image files.

Usage: ``python -m benchmarks.image_skew [FILES]``. Makes 1,000 files of every kind in ``tests/image_files.py``: JPEG,
PNG and the others, of random sizes, turned, grey, CMYK, with palettes, 16 bits, and alpha. Each is read as training
reads it, and decoded by the graph that ships as the signature ``pixels``. Prints for each format how many files became
the same pixels, how many were refused, and how many became others, which must be none. Then it prints milliseconds per
photograph of 500x375 pixels, by training's reader and by the graph.
"""

import collections
import functools
import io
import sys
import time

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from benchmarks.photos import photograph
from layerflow.data import decode
from layerflow.export.image_bytes import pixels_of
from tests import image_files

SHAPE, PHOTOS = (64, 64, 3), 64


def compare(count: int) -> dict[str, collections.Counter[str]]:
    """For each format, how many files became the same pixels, were refused, and became others."""
    random, graph = np.random.default_rng(0), traced(SHAPE)
    makers = {**image_files.DECODED, **{kind: make for kind, (make, _) in image_files.REFUSED.items()}}
    found: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for number in range(count):
        kind = list(makers)[number % len(makers)]
        file = makers[kind](random, *random.integers(3, 400, 2).tolist())
        expected = decode.read(file, SHAPE)
        try:
            same = np.array_equal(graph(tf.constant([file]))[0], expected)
        except tf.errors.InvalidArgumentError:
            found[kind.partition("-")[0]]["refused"] += 1
            continue
        found[kind.partition("-")[0]]["same" if same else "different"] += 1
    return found


def traced(shape: tuple[int, int, int]) -> tf.types.experimental.ConcreteFunction:
    """The graph that ships, for one shape."""
    files = tf.TensorSpec((None,), tf.string)
    return tf.function(functools.partial(pixels_of, shape=shape), [files], autograph=False).get_concrete_function()


def speed() -> dict[str, float]:
    """Milliseconds per photograph on all cores."""

    files = list[bytes]()
    for number in range(PHOTOS):
        file = io.BytesIO()
        photograph(number).save(file, "JPEG", quality=92)
        files.append(file.getvalue())
    shape, graph = (224, 224, 3), traced((224, 224, 3))
    batch, times = tf.constant(files), collections.defaultdict[str, list[float]](list)
    for _ in range(5):
        began = time.perf_counter()
        graph(batch)
        times["the graph, all cores"].append(time.perf_counter() - began)
        began = time.perf_counter()
        for file in files:
            decode.read(file, shape)
        times["training's reader, one core"].append(time.perf_counter() - began)
    return {name: 1000 * float(np.median(taken[1:])) / PHOTOS for name, taken in times.items()}


def main() -> None:
    """Measure, and print two tables."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    table = Table("files", "same pixels", "refused", "other pixels", title=f"{count:,} files")
    found = compare(count)
    for kind, counts in sorted(found.items()):
        table.add_row(kind, *(f"{counts[each]:,}" for each in ("same", "refused", "different")))
    Console(width=110).print(table)
    table = Table("photographs of 500x375 to 224x224", "ms")
    for name, taken in speed().items():
        table.add_row(name, f"{taken:.2f}")
    Console(width=110).print(table)
    sys.exit(any(counts["different"] for counts in found.values()))


if __name__ == "__main__":
    main()
