"""Image files decoded in a TensorFlow graph, to the pixels that ``layerflow.data.decode`` made for training.

What the graph can't decode to the same pixels, it refuses. Each function takes a scalar string and the image's place in
the batch, which the error names, and gives ``uint8`` pixels ``(rows, columns, 3)``, and the EXIF and XMP notes.
"""

import numpy as np
import tensorflow as tf

from layerflow.data.decode import MAX_PIXELS
from layerflow.export.file_kinds import DECODED
from layerflow.export.graph_bytes import Field, begins_with, checked, either, length_of, numbers, part, whole

_MAX_SIDE = 1_000_000
#: Most segments of a JPEG before its pixels, chunks of a WebP, and blocks of a GIF up to the end of its first frame:
#: real files have dozens, GIF blocks 255 bytes each, and a file made to be slow is refused.
_MOST_SEGMENTS, _MOST_BLOCKS = 1000, 100_000
#: Bytes by which a file is recognized; None is any byte.
_BEGINNINGS: tuple[tuple[bytes | None, ...], ...] = (
    (b"\xff\xd8\xff",),
    (b"\x89PNG\r\n\x1a\n",),
    (b"GIF8",),
    (b"BM",),
    (b"RIFF", None, None, None, None, b"WEBP"),
    (),
)
Decoded = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


def jpeg(content: tf.Tensor, place: tf.Tensor) -> Decoded:
    """Decode a JPEG, with the accurate transform and the smooth chroma of libjpeg; CMYK is refused."""
    height, width, colours = tf.unstack(tf.io.extract_jpeg_shape(content, tf.int64))
    content = checked(content, place, colours != 4, "is a CMYK JPEG, which can't be decoded to the pixels of training")
    content, progressive, first, exif, xmp = _jpeg_notes(_sized(content, place, height, width), place)
    complete = tf.cond(progressive, lambda: _has_all_scans(content, first, colours), lambda: tf.constant(True))
    content = checked(content, place, complete, "is a progressive JPEG without its last scans")
    return tf.io.decode_jpeg(content, 3, dct_method="INTEGER_ACCURATE", fancy_upscaling=True), exif, xmp


def png(content: tf.Tensor, place: tf.Tensor) -> Decoded:
    """Decode a PNG; alpha is left out, and 16 bits are cut to 8."""
    width, height = numbers(content, 0, Field(16, 4, big=True), Field(20, 4, big=True))
    return tf.io.decode_png(_sized(content, place, height, width), 3), tf.constant(b""), tf.constant(b"")


def gif(content: tf.Tensor, place: tf.Tensor) -> Decoded:
    """Decode the first frame of a GIF, without transparency; nothing else of the file is looked at."""
    width, height, flags = numbers(content, 0, Field(6, 2), Field(8, 2), Field(10, 1))
    content = _sized(content, place, height, width)
    start = 13 + _colours(flags)
    content, first, end = _gif_frame(content, start, place)
    corner, *size = numbers(content, first, Field(1, 4), Field(5, 2), Field(7, 2))
    fills = (corner == 0) & (size[0] == width) & (size[1] == height)
    content = checked(content, place, fills, "is a GIF whose first frame doesn't fill it")
    alone = [part(content, 0, start), part(content, first, end - first), b";"]
    return tf.io.decode_gif(tf.strings.join(alone))[0], tf.constant(b""), tf.constant(b"")


def bmp(content: tf.Tensor, place: tf.Tensor) -> Decoded:
    """Decode a BMP of 8 (with its palette), 24 or 32 bits without compression; others are refused."""
    fields = (Field(10, 4), Field(14, 4), Field(18, 4), Field(22, 4), Field(28, 2), Field(30, 4), Field(46, 4))
    start, header, width, height, bits, compression, colours = numbers(content, 0, *fields)
    known = (header >= 40) & (compression == 0) & ((bits == 8) | (bits == 24) | (bits == 32))
    content = checked(content, place, known, "is a BMP with compression, or not of 8, 24 or 32 bits")
    height = tf.where(height >= 2**31, 2**32 - height, height)  # whose rows are from top to bottom
    content = _sized(content, place, height, width)
    size = start + (width * bits // 8 + 3) // 4 * 4 * height
    colours = either(colours == 0, 256, colours)
    table = either(bits == 8, 4 * colours, 0)
    fits = (size <= length_of(content)) & (start >= 14 + header + table) & (colours > 2) & (table <= 1024)
    content = checked(content, place, fits, "is a BMP with a damaged header or without its end")
    pixels = tf.io.decode_bmp(part(content, 0, size))

    def by_palette() -> tf.Tensor:
        palette = tf.reshape(tf.io.decode_raw(part(content, 14 + header, table), tf.uint8), (-1, 4))
        chosen = tf.cast(pixels[..., 0], tf.int64)
        fits = tf.reduce_max(chosen) < colours
        return tf.gather(checked(palette, place, fits, "is a BMP whose palette lacks a colour")[:, 2::-1], chosen)

    return tf.cond(bits == 8, by_palette, lambda: pixels[..., :3]), tf.constant(b""), tf.constant(b"")


def webp(content: tf.Tensor, place: tf.Tensor) -> Decoded:
    """Decode a WebP of one frame; alpha is left out."""
    fields = (Field(20, 1), Field(21, 4), Field(24, 3), Field(26, 2), Field(27, 3), Field(28, 2))
    flags, packed, canvas_width, lossy_width, canvas_height, lossy_height = numbers(content, 0, *fields)
    extended, lossless = begins_with(content, b"VP8X", 12), begins_with(content, b"VP8L", 12)
    width = tf.where(lossless, packed % 2**14 + 1, lossy_width % 2**14)
    height = tf.where(lossless, packed // 2**14 % 2**14 + 1, lossy_height % 2**14)
    width, height = tf.where(extended, canvas_width + 1, width), tf.where(extended, canvas_height + 1, height)
    content = _sized(content, place, height, width)
    # All its frames would be decoded, of which nothing says how many there are.
    content = checked(content, place, ~extended | (flags // 2 % 2 == 0), "is an animated WebP")
    content, exif, xmp = _webp_notes(content, either(extended, flags, 0), place)
    # Not decode_image, which for several frames writes beyond its buffer: the verifier allows no graph to have it.
    return tf.raw_ops.DecodeWebP(contents=content, channels=0)[0, ..., :3], exif, xmp


def unknown(content: tf.Tensor, place: tf.Tensor) -> Decoded:
    """Refuse what has the beginning of no format that the graph decodes."""
    content = checked(content, place, tf.constant(False), f"must be one of these: {DECODED}")
    return tf.zeros((1, 1, 3), tf.uint8), content, tf.constant(b"")


DECODERS = (jpeg, png, gif, bmp, webp, unknown)


def kind_of(content: tf.Tensor) -> tf.Tensor:
    """The number in ``DECODERS`` of a file, by its first bytes."""
    patterns = np.full((len(_BEGINNINGS), 12), -1)
    for row, beginning in zip(patterns, _BEGINNINGS, strict=True):
        known = [byte for each in beginning for byte in (each or (-1,))]
        row[: len(known)] = known
    head = tf.io.decode_raw(part(content, 0, 12), tf.uint8, fixed_length=12)
    fits = tf.reduce_all((tf.cast(head, tf.int64) == patterns) | (patterns < 0), axis=1)
    return tf.argmax(fits, output_type=tf.int32)


def _sized(content: tf.Tensor, place: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """The content of an image of a bearable size, before anything is decoded: a small file can claim any."""
    fits = (height > 0) & (width > 0) & (height <= _MAX_SIDE) & (width <= _MAX_SIDE) & (height * width <= MAX_PIXELS)
    return checked(content, place, fits, f"must have 1 to {MAX_PIXELS:,} pixels, at most {_MAX_SIDE:,} on a side")


def _colours(flags: tf.Tensor) -> tf.Tensor:
    """Bytes of a GIF's table of colours, by the flags that announce it."""
    return either(flags >= 128, 3 * tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % 8), 0)


def _has_all_scans(content: tf.Tensor, first: tf.Tensor, colours: tf.Tensor) -> tf.Tensor:
    """Whether the scans of a progressive JPEG, from the first to its end, give all 64 coefficients of each colour.

    What libjpeg guesses in place of missing ones is not the same in all its versions.
    """
    data = tf.io.decode_raw(part(content, first, length_of(content)), tf.uint8)
    marks = tf.where(data[:-1] == 0xFF, data[1:], 0)
    last = tf.size(data, tf.int64) - 1
    end = tf.argmax(tf.concat([marks == 0xD9, [True]], 0))
    scans = tf.where(marks[:end] == 0xDA)[:, 0]

    def byte(places: tf.Tensor) -> tf.Tensor:
        return whole(tf.gather(data, tf.minimum(places, last)))

    in_scan = byte(scans + 4)
    at = scans + 5 + 2 * in_scan
    given = tf.where(byte(at + 2) % 16 == 0, in_scan * (byte(at + 1) - byte(at) + 1), 0)
    return tf.reduce_sum(given) >= 64 * colours


def _jpeg_notes(content: tf.Tensor, place: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """A JPEG, whether it is progressive, where its first scan is, and the EXIF and XMP notes in the segments before.

    EXIF in several segments is joined.
    """
    size, exif_name, xmp_name = length_of(content), b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"

    def is_segment(at: tf.Tensor, marker: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return (at < size) & (marker != 0xFFDA)

    def step(
        at: tf.Tensor, _: tf.Tensor, progressive: tf.Tensor, exif: tf.Tensor, xmp: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        marker, length = numbers(content, at, Field(0, 2, big=True), Field(2, 2, big=True))
        start, end = tf.minimum(at + 4, size), tf.minimum(at + 2 + length, size)
        has_notes = marker == 0xFFE1
        is_exif = has_notes & begins_with(content, exif_name, start)
        is_xmp = has_notes & begins_with(content, xmp_name, start)
        begins = start + either(is_xmp, len(xmp_name), either(is_exif & (exif != b""), len(exif_name), 0))
        segment = part(content, tf.minimum(begins, size), tf.maximum(end - begins, 0))
        # Not a segment, such as the end of the image or a restart: beyond the end.
        low = marker % 256
        known = (marker >= 0xFFC0) & ~((low >= 0xD0) & (low <= 0xD9)) & ((marker == 0xFFFF) | (length >= 2))
        following = tf.where(marker == 0xFFFF, at + 1, tf.where(marker == 0xFFDA, at, end))
        return (
            tf.where(known, following, size),
            marker,
            progressive | (marker == 0xFFC2) | (marker == 0xFFCA),
            tf.where(is_exif, tf.strings.join([exif, segment]), exif),
            tf.where(is_xmp, segment, xmp),
        )

    zero = tf.constant(0, tf.int64)
    first = (zero + 2, zero, tf.constant(False), tf.constant(b""), tf.constant(b""))
    at, marker, progressive, exif, xmp = tf.while_loop(is_segment, step, first, maximum_iterations=_MOST_SEGMENTS)
    content = checked(content, place, marker == 0xFFDA, "is a JPEG whose segments are out of order")
    return content, progressive, at, exif, xmp


def _webp_notes(content: tf.Tensor, flags: tf.Tensor, place: tf.Tensor) -> Decoded:
    """A WebP with its first EXIF and XMP chunks, of those that its flags announce."""
    (said,) = numbers(content, 0, Field(4, 4))  # bytes after these; what comes later is not of the WebP
    size, has_exif, has_xmp = tf.minimum(length_of(content), said + 8), flags // 8 % 2 == 1, flags // 4 % 2 == 1

    def is_chunk(at: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return (at + 8 <= size) & (has_exif | has_xmp)

    def step(at: tf.Tensor, exif: tf.Tensor, xmp: tf.Tensor) -> tuple[tf.Tensor, ...]:
        (length,) = numbers(content, at, Field(4, 4))
        name, chunk = part(content, at, 4), part(content, at + 8, length)
        is_exif, is_xmp = has_exif & (name == b"EXIF") & (exif == b""), has_xmp & (name == b"XMP ") & (xmp == b"")
        return at + 8 + (length + 1) // 2 * 2, tf.where(is_exif, chunk, exif), tf.where(is_xmp, chunk, xmp)

    first = (tf.constant(12, tf.int64), tf.constant(b""), tf.constant(b""))
    at, exif, xmp = tf.while_loop(is_chunk, step, first, maximum_iterations=_MOST_SEGMENTS)
    content = checked(content, place, ~is_chunk(at), f"is a WebP of more than {_MOST_SEGMENTS:,} chunks")
    return content, exif, xmp


def _gif_frame(content: tf.Tensor, start: tf.Tensor, place: tf.Tensor) -> Decoded:
    """A GIF, and where its first frame begins and ends, by walking from block to block."""
    size = length_of(content)

    def goes_on(at: tf.Tensor, frame: tf.Tensor, inside: tf.Tensor) -> tf.Tensor:
        return (at < size) & (inside | (frame < 0))

    def step(at: tf.Tensor, frame: tf.Tensor, inside: tf.Tensor) -> tuple[tf.Tensor, ...]:
        byte, flags = numbers(content, at, Field(0, 1), Field(9, 1))
        is_extension, is_frame = ~inside & (byte == 0x21), ~inside & (byte == 0x2C)
        block = tf.where(is_extension, at + 2, tf.where(is_frame, at + 11 + _colours(flags), size + 1))
        return (
            tf.where(inside, at + 1 + byte, block),
            tf.where(is_frame, at, frame),
            tf.where(inside, byte > 0, is_extension | is_frame),
        )

    first = (start, tf.constant(-1, tf.int64), tf.constant(False))
    at, frame, inside = tf.while_loop(goes_on, step, first, maximum_iterations=_MOST_BLOCKS)
    is_whole = (frame >= 0) & ~inside & (at <= size)
    return checked(content, place, is_whole, "is a GIF without a whole frame"), frame, at
