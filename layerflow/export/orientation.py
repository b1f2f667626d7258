"""How a camera was held, read from a file's notes in a TensorFlow graph, and images turned upright there."""

import numpy as np
import tensorflow as tf

from layerflow.export.graph_bytes import Field, begins_with, checked, either, length_of, numbers, part, weights_of

#: The tag that says it, and the type that it must have: a number of two bytes (Exif 2.32, 4.6.4).
_ORIENTATION, _SHORT = 0x0112, 3
#: Bytes of a value by its type (TIFF 6.0, and types 13 and 16 of its supplements); of an unknown one none are read.
_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8)
_HEADING, _IN_XMP = b"Exif\0\0", "tiff:Orientation"
#: Bytes of an entry, and its tag, type, count, place or value, and value of two bytes.
_ENTRY, _FIELDS = 12, ((0, 2), (2, 2), (4, 4), (8, 4), (8, 2))


def orientation(exif: tf.Tensor, xmp: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """The orientation in the EXIF notes or, if they have none, in the XMP ones; 0 if neither has one.

    Args:
        exif: A scalar string; empty if the file has no such notes.
        xmp: As ``exif``.
        place: The image's place in the batch, for the error that refuses damaged notes.
    """

    def find() -> tf.Tensor:
        found = _in_exif(exif, place)
        return tf.where(found > 0, found, _in_xmp(xmp))

    return tf.cond(tf.strings.length(exif) + tf.strings.length(xmp) > 0, find, lambda: tf.constant(0, tf.int64))


def upright(pixels: tf.Tensor, turned: tf.Tensor) -> tf.Tensor:
    """Pixels ``(rows, columns, channels)`` of an image as it was seen; ``turned`` is its orientation."""

    def turn() -> tf.Tensor:
        image = tf.transpose(pixels, tf.where(turned >= 5, (1, 0, 2), (0, 1, 2)))
        # By orientation, 2 to 8: whether top and bottom, left and right change places then.
        flips = tf.constant(np.array([[0, 1], [1, 1], [1, 0], [0, 0], [0, 1], [1, 1], [1, 0]], bool))
        return tf.reverse(image, tf.boolean_mask(tf.range(2), flips[turned - 2]))

    return tf.cond((turned >= 2) & (turned <= 8), turn, lambda: pixels)


def _in_exif(exif: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """The orientation in EXIF notes, as Pillow reads it; what it reads only in part is refused."""
    damaged = "has damaged EXIF notes"
    size = len(_HEADING)
    start = either(begins_with(exif, 2 * _HEADING), 2 * size, either(begins_with(exif, _HEADING), size, 0))
    rest = part(exif, start, length_of(exif))
    notes = tf.where(rest == b"", b"II*\0\x08\0\0\0\0\0", rest)  # of empty notes: no entry
    size, little = length_of(notes), begins_with(notes, b"II*\0")
    notes = checked(notes, place, little | begins_with(notes, b"MM\0*"), damaged)
    starts = numbers(notes, 0, Field(4, 4), Field(4, 4, big=True))
    start = tf.where(little, *starts)
    notes = checked(notes, place, start + 2 <= size, damaged)
    count = tf.where(little, *numbers(notes, start, Field(0, 2), Field(0, 2, big=True)))
    notes = checked(notes, place, start + 2 + _ENTRY * count <= size, damaged)
    raw = tf.io.decode_raw(part(notes, start + 2, _ENTRY * count), tf.uint8)
    both = [np.transpose(weights_of(_ENTRY, tuple(Field(*field, big) for field in _FIELDS))) for big in (False, True)]
    entries = tf.cast(tf.reshape(raw, (-1, _ENTRY)), tf.int64)
    tags, kinds, counts, wheres, values = tf.unstack(tf.matmul(entries, tf.where(little, *both)), axis=1)
    is_it = tags == _ORIENTATION
    lengths = counts * tf.gather(tf.constant(_BYTES, tf.int64), either(kinds < len(_BYTES), kinds, 0))
    # Pillow reads no entry after one whose value is beyond the end.
    beyond = tf.reduce_any((lengths > 4) & (wheres + lengths > size)) & tf.reduce_any(is_it)
    other_type = tf.reduce_any(is_it & ((kinds != _SHORT) | (counts != 1)))
    values = checked(values, place, ~beyond & ~other_type, damaged)
    return tf.pad(values, [[0, 1]])[tf.argmax(tf.pad(is_it, [[0, 1]], constant_values=True))]


def _in_xmp(xmp: tf.Tensor) -> tf.Tensor:
    """The digit after the first ``tiff:Orientation="`` or ``tiff:Orientation>``; 0 if neither is there."""
    # Without all before it; if it is nowhere, all is before it. \C is a byte.
    digit = tf.strings.regex_replace(xmp, rf'^\C*?{_IN_XMP}(?:="|>)([0-9])\C*$', r"\1", replace_global=False)
    found = tf.strings.regex_full_match(digit, "[0-9]") & (tf.strings.length(xmp) > 1)
    return tf.strings.to_number(tf.where(found, digit, b"0"), tf.int64)
