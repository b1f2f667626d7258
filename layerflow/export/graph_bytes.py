"""Reading a file's bytes in a TensorFlow graph, and refusing a file there.

A file is a scalar string. Every operation is one more to trace at each export, so numbers are read many at a time.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf


class Field(NamedTuple):
    """A whole number without sign in a file: where it begins, its bytes, and whether the first one weighs most."""

    at: int
    size: int
    big: bool = False


def part(content: tf.Tensor, at: tf.Tensor | int, size: tf.Tensor | int) -> tf.Tensor:
    """At most so many bytes from a place on, which must not be beyond the end."""
    return tf.strings.substr(content, whole(at), whole(size))


def whole(value: tf.Tensor | int) -> tf.Tensor:
    """A number as ``int64``."""
    return tf.cast(value, tf.int64) if tf.is_tensor(value) else tf.constant(value, tf.int64)


def length_of(content: tf.Tensor) -> tf.Tensor:
    """The bytes of a file, ``int64``."""
    return whole(tf.strings.length(content))


def either(condition: tf.Tensor, one: tf.Tensor | int, other: tf.Tensor | int) -> tf.Tensor:
    """One of two numbers, ``int64``."""
    return tf.where(condition, whole(one), whole(other))


def numbers(content: tf.Tensor, at: tf.Tensor | int, *fields: Field) -> list[tf.Tensor]:
    """The numbers of ``fields``, whose places count from ``at``: ``int64``; bytes beyond the end count as 0."""
    size = max(field.at + field.size for field in fields)
    raw = tf.io.decode_raw(part(content, at, size), tf.uint8, fixed_length=size)
    return tf.unstack(tf.linalg.matvec(tf.constant(weights_of(size, fields)), tf.cast(raw, tf.int64)))


def weights_of(size: int, fields: tuple[Field, ...]) -> np.ndarray:
    """What each of ``size`` bytes counts in each field: ``int64`` of shape ``(fields, size)``."""
    weights = np.zeros((len(fields), size), np.int64)
    for row, (at, length, big) in zip(weights, fields, strict=True):
        powers = 256 ** np.arange(length)
        row[at : at + length] = powers[::-1] if big else powers
    return weights


def begins_with(content: tf.Tensor, text: bytes, at: tf.Tensor | int = 0) -> tf.Tensor:
    """Whether these bytes are at a place, which must not be beyond the end."""
    return part(content, at, len(text)) == text


def checked(content: tf.Tensor, place: tf.Tensor, condition: tf.Tensor, reason: str) -> tf.Tensor:
    """The same content, which nothing can read before the condition is seen to hold.

    Where it doesn't, the graph fails, and names the image's place in the batch.
    """
    failure = tf.debugging.Assert(condition, ["image_bytes", place, reason])
    with tf.control_dependencies([failure]):
        return tf.identity(content)
