"""Images made larger or smaller by one rule, with the same pixels on every machine and in a TensorFlow graph."""

import functools

import numpy as np
from scipy.sparse import csr_array

#: The parts that the weight of a pixel is a whole number of. With these, a sum of weighted pixels has 24 bits: float32
#: holds it exactly, so that neither the order of the sum nor fused operations change a bit.
PARTS = 2**16
#: Values that are converted to float32 at a time: 4 MiB of memory, and a photograph of half a megapixel in one step.
_MOST_VALUES = 2**20

RULE = (
    "to image_size by an antialiased bilinear filter, first the height, then the width, with weights rounded to "
    "1/65,536 and each result to a whole number"
)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize an image by the triangle filter, whose reach grows with the factor by which the image shrinks.

    The result differs by at most 1 from Pillow's ``BILINEAR`` and from ``tf.image.resize(..., antialias=True)``.
    In a TensorFlow graph, ``tf.floor(tf.matmul(weights, pixels) + 0.5)`` for each side gives these very pixels.

    Args:
        image: ``uint8`` of shape ``(rows, columns, channels)``.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        ``uint8`` of shape ``(height, width, channels)``.

    References:
        Heckbert, Fundamentals of Texture Mapping and Image Warping (1989), on filters that antialias.
    """
    rows, columns, channels = image.shape
    if (rows, columns) == (height, width):
        return image
    scaled = _weighted(image.reshape(rows, -1), height)
    turned = np.ascontiguousarray(scaled.T).reshape(columns, -1)
    return _weighted(turned, width).reshape(width, channels, height).transpose(2, 0, 1)


def _weighted(pixels: np.ndarray, after: int) -> np.ndarray:
    """Each row a weighted mean of those of ``pixels``, rounded; ``uint8`` of shape ``(after, values)``."""
    before, values = pixels.shape
    if before == after:
        return pixels
    matrix, result = weights(before, after), np.empty((after, values), np.uint8)
    step = max(1, _MOST_VALUES // before)
    for start in range(0, values, step):
        part = matrix @ pixels[:, start : start + step].astype(np.float32)
        part += np.float32(0.5)
        result[:, start : start + step] = part  # which cuts
    return result


@functools.lru_cache(maxsize=32)
def weights(before: int, after: int) -> csr_array:
    """The weights of ``before`` pixels in a row in each of ``after``: ``float32`` of shape ``(after, before)``.

    Each row sums to 1. With ``longer = max(before, after)``, pixel ``j`` counts in pixel ``i`` in proportion to
    ``max(0, 2 longer - |(2j + 1) after - (2i + 1) before|)``, a whole number. Sums of these over the first pixels are
    rounded to ``1/PARTS`` of their total, and a weight is the difference of two such sums.
    """
    reach, middles = 2 * max(before, after), (2 * np.arange(after) + 1) * before
    first = (middles - reach - after) // (2 * after) + 1
    pixels = first[:, None] + np.arange(reach // after + 1)
    nearness = np.maximum(reach - abs((2 * pixels + 1) * after - middles[:, None]), 0)
    nearness *= (pixels >= 0) & (pixels < before)
    sums = np.cumsum(nearness, axis=1)
    shares = np.diff(np.rint(sums / sums[:, -1:] * PARTS), prepend=0, axis=1) / PARTS
    used = shares > 0
    starts = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
    return csr_array((shares[used].astype(np.float32), pixels[used], starts), shape=(after, before))
