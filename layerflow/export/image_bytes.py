"""Encoded images to the pixels of training, as a TensorFlow graph that ships with the model."""

import functools

import tensorflow as tf

from layerflow.export.formats import DECODERS, kind_of
from layerflow.export.graph_resize import resized, with_channels
from layerflow.export.orientation import orientation, upright

#: Images that are decoded at the same time. Each may need a gigabyte, if it is as large as it may be.
_AT_ONCE = 8


def pixels_of(files: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    """Decode, turn and resize a batch of encoded images, by ``layerflow.data.decode.RULE``.

    Args:
        files: Strings of shape ``(batch,)``.
        shape: Height, width and channels of the result.

    Returns:
        ``uint8`` of shape ``(batch, height, width, channels)``. The graph fails where it would give other pixels than
        training had, and names the image's place in the batch.
    """
    height, width, channels = shape

    def one(given: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        content, place = given
        branches = [functools.partial(decode, content, place) for decode in DECODERS]
        pixels, exif, xmp = tf.switch_case(kind_of(content), branches)
        pixels = with_channels(tf.ensure_shape(pixels, (None, None, 3)), channels)
        seen = upright(pixels, orientation(exif, xmp, place))
        return resized(tf.ensure_shape(seen, (None, None, channels)), height, width)

    # On the processor: a GPU may round the factors of a product, and can't decode.
    with tf.device("/CPU:0"):
        places = tf.range(tf.size(files))
        spec = tf.TensorSpec(shape, tf.uint8)
        return tf.map_fn(one, (files, places), fn_output_signature=spec, parallel_iterations=_AT_ONCE)
