"""The resizing and the colours of training, in a TensorFlow graph, with the same pixels."""

import numpy as np
import tensorflow as tf

from layerflow.data.resize import PARTS

#: Red, green, and blue in grey, in parts of 65,536, as Pillow has ITU-R 601. The sums have 24 bits: exact in float32.
_GREY = (19595.0, 38470.0, 7471.0)


def with_channels(pixels: tf.Tensor, channels: int) -> tf.Tensor:
    """Pixels ``uint8`` of ``(rows, columns, 3)`` in colour, or in grey for one channel."""
    if channels == 3:
        return pixels
    grey = tf.tensordot(tf.cast(pixels, tf.float32), tf.constant(_GREY)[:, None], 1)
    return tf.cast((grey + PARTS / 2) / PARTS, tf.uint8)  # which cuts


def resized(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """As ``layerflow.data.resize.resize``: ``uint8`` of shape ``(height, width, channels)``, bit by bit the same."""
    channels = image.shape[-1]
    rows, columns, _ = tf.unstack(tf.shape(image, tf.int64))

    def change() -> tf.Tensor:
        of_rows, of_columns = _weights(rows, columns, height, width)
        scaled = _weighted(of_rows, tf.reshape(image, (rows, columns * channels)))
        turned = _weighted(of_columns, tf.reshape(tf.transpose(scaled), (columns, channels * height)))
        return tf.transpose(tf.reshape(turned, (width, channels, height)), (2, 0, 1))

    same = (rows == height) & (columns == width)
    return tf.ensure_shape(tf.cond(same, lambda: image, change), (height, width, channels))


def _weighted(matrix: tf.SparseTensor, pixels: tf.Tensor) -> tf.Tensor:
    # Exact in any order: see PARTS.
    return tf.cast(tf.sparse.sparse_dense_matmul(matrix, tf.cast(pixels, tf.float32)) + 0.5, tf.uint8)  # which cuts


def _weights(rows: tf.Tensor, columns: tf.Tensor, height: int, width: int) -> tuple[tf.SparseTensor, tf.SparseTensor]:
    """The weights of both sides, as ``layerflow.data.resize.weights`` has those of one, in whole numbers of 64 bits.

    Both are computed at once, those of the rows first, because each operation is one more to trace and to load.
    """
    after = np.repeat([height, width], [height, width])[:, None]
    number = np.concatenate([np.arange(height), np.arange(width)])[:, None]
    before = tf.gather(tf.stack([rows, columns]), (np.arange(height + width) >= height).astype(np.int32))[:, None]
    reach, middles = 2 * tf.maximum(before, after), (2 * number + 1) * before
    first = (middles - reach - after) // (2 * after) + 1
    pixels = first + tf.range(tf.reduce_max(reach // after) + 1)
    nearness = tf.maximum(reach - tf.abs((2 * pixels + 1) * after - middles), 0)
    nearness = tf.where((pixels >= 0) & (pixels < before), nearness, 0)
    sums = tf.cast(tf.cumsum(nearness, axis=1), tf.float64)
    parts = tf.math.rint(sums / sums[:, -1:] * PARTS)
    shares = parts - tf.pad(parts, [[0, 0], [1, 0]])[:, :-1]
    used = tf.where(shares > 0)
    places = tf.stack([used[:, 0], tf.gather_nd(pixels, used)], axis=-1)
    values = tf.cast(tf.gather_nd(shares, used) / PARTS, tf.float32)
    end = tf.searchsorted(used[:, 0], [tf.constant(height, tf.int64)])[0]
    return (
        tf.SparseTensor(places[:end], values[:end], tf.stack([tf.constant(height, tf.int64), rows])),
        tf.SparseTensor(places[end:] - [height, 0], values[end:], tf.stack([tf.constant(width, tf.int64), columns])),
    )
