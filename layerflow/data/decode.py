"""From an image file's bytes to ``uint8`` arrays of one size: what is taken, and how it is made to fit."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from layerflow.data import resize

# For good, because the threads that read share one list of filters: of a file that is read nothing need be said.
warnings.filterwarnings("ignore", module=r"PIL\.")

#: What is read. Not everything that Pillow knows: its reader of PostScript, for one, starts another program.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
#: Most pixels of one image: 100 million are 300 MB once decoded. A small file can claim any number.
MAX_PIXELS = 100_000_000
#: Most pixels of one side: a million need 50 MB to be weighted.
_MAX_SIDE = 1_000_000
#: Whole numbers wider than a byte, of which the upper byte is taken, and numbers that have no fixed range.
_WIDE, _UNBOUNDED = ("I;16", "I;16B", "I;16L", "I;16N"), ("I", "F")
#: What cameras write (TIFF is turned by Pillow itself), and the tag in which they note how they were held. Pillow calls
#: a JPEG that carries a second image MPO.
_JPEG, _CAMERAS, _ORIENTATION = ("JPEG", "MPO"), ("JPEG", "MPO", "WEBP"), 0x0112
#: The values of that tag for which rows and columns change places, and those for which left and right, top and bottom
#: change places then (Exif 2.32, 4.6.4).
_ON_ITS_SIDE, _MIRRORED, _UPSIDE_DOWN = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)
#: What libjpeg decodes to, by Pillow's mode of a JPEG.
_COLOURS = {"L": "GRAY", "RGB": "RGB"}
#: libjpeg's warnings of compressed pixels that can't be what was written. Its other ones are of oddities.
_DAMAGE = re.compile(r"Corrupt JPEG data|Premature end of JPEG|Inconsistent progression")

RULE = (
    "the first frame, turned as the camera was held, transparency left out, 16 bits cut to the upper 8, palettes and "
    f"CMYK to RGB, grey to colour by repetition, colour to grey by ITU-R 601; {resize.RULE}"
)


class BrokenImageError(Exception):
    """The file is no image that can be read; the text says why."""


def look(content: bytes) -> tuple[int, int, int]:
    """Height, width and channels (1 or 3) of an image, by its header alone.

    Raises:
        BrokenImageError: If it is no image of a known format, or too large.
    """
    with _named():
        image = _open(content)
        height, width = image.height, image.width
        if _orientation(image) in _ON_ITS_SIDE:
            height, width = width, height
        return height, width, 1 if image.mode in ("1", "L", "LA") or _is_wide(image) else 3


def read(content: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """Decode an image, by ``RULE``, into ``uint8`` of ``shape`` (height, width, channels).

    Raises:
        BrokenImageError: If it can't be decoded to its last pixel, or only by repair.
    """
    with _named():
        image = _open(content)
        pixels = _decode_jpeg(image, content) if image.format in _JPEG else None
        if pixels is None:
            pixels = _pixels(image, shape[2])
        return fit(_upright(pixels, _orientation(image)), shape)


def fit(pixels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Pixels ``uint8`` of ``(rows, columns, 1, 3 or 4)`` as ``shape``, by ``RULE``, contiguous in memory."""
    height, width, channels = shape
    if pixels.shape[2] != channels:
        pixels = _pixels(Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels), channels)
    return np.ascontiguousarray(resize.resize(pixels, height, width))


def _pixels(image: Image.Image, channels: int) -> np.ndarray:
    image.load()
    if _is_wide(image):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P":  # a palette may hold transparency, which Pillow converts only this way
        image = image.convert("RGBA")
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    return np.asarray(image).reshape(image.height, image.width, channels)


def _orientation(image: Image.Image) -> int | None:
    return image.getexif().get(_ORIENTATION) if image.format in _CAMERAS else None


def _upright(pixels: np.ndarray, orientation: int | None) -> np.ndarray:
    if orientation in _ON_ITS_SIDE:
        pixels = pixels.swapaxes(0, 1)
    if orientation in _MIRRORED:
        pixels = pixels[:, ::-1]
    return pixels[::-1] if orientation in _UPSIDE_DOWN else pixels


def _is_wide(image: Image.Image) -> bool:
    return image.mode in _WIDE or (image.mode == "I" and image.format == "PPM")  # whose numbers have 16 bits


def _open(content: bytes) -> Image.Image:
    if not content:
        raise BrokenImageError("empty")
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise BrokenImageError(f"more than {MAX_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        raise BrokenImageError("no image") from error
    if max(image.size) > _MAX_SIDE:
        raise BrokenImageError(f"{image.height:,} x {image.width:,} pixels, more than {_MAX_SIDE:,} on a side")
    if image.width * image.height > MAX_PIXELS:
        raise BrokenImageError(f"{image.height:,} x {image.width:,} pixels, more than {MAX_PIXELS:,}")
    if image.mode in _UNBOUNDED and not _is_wide(image):
        raise BrokenImageError("numbers without a fixed range in place of grey values")
    return image


def _decode_jpeg(image: Image.Image, content: bytes) -> np.ndarray | None:
    """The pixels of an opened JPEG, or nothing where Pillow must decode it.

    libjpeg decodes it once, and raises what it warns of; Pillow, whose pixels are the same, drops those warnings. It
    decodes what libjpeg does not convert, such as CMYK, and what has oddities that libjpeg warns of.

    Raises:
        BrokenImageError: If pixels are damaged, though libjpeg may repair them: a half of the image may be grey.
    """
    if image.mode in _COLOURS:
        with suppress(ValueError):
            return simplejpeg.decode_jpeg(content, _COLOURS[image.mode])
    _require_whole(content)
    return None


def _require_whole(jpeg: bytes) -> None:
    """Refuse a JPEG of whose pixels libjpeg warns, and not one with an oddity in its notes.

    JPEG has no checksum: damage is found if it breaks the chain of codes, as a lost end and nearly every zeroed disk
    sector do. An eighth of each side is decoded, for that finds the same damage in a third of the time or less.
    """
    content = _without_notes(jpeg)
    try:
        _, _, colours, _ = simplejpeg.decode_jpeg_header(content)
        colours = "CMYK" if colours in ("CMYK", "YCCK") else "GRAY"
        simplejpeg.decode_jpeg(content, colours, fastdct=True, fastupsample=True, min_height=1, min_width=1)
    except ValueError as error:
        if _DAMAGE.search(str(error)):
            raise BrokenImageError(f"{str(error)[0].lower()}{str(error)[1:]}") from error


def _without_notes(jpeg: bytes) -> bytes:
    """A JPEG without its application segments and comments: a warning of one would hide that of damaged pixels."""
    kept, at = [jpeg[:2]], 2
    while jpeg[at : at + 1] == b"\xff" and (marker := jpeg[at + 1 : at + 2]) not in (b"\xda", b""):
        if marker == b"\xff":  # a fill byte
            at += 1
            continue
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4])
        if not (b"\xe0" <= marker <= b"\xef" or marker == b"\xfe"):
            kept.append(jpeg[at:end])
        at = end
    return b"".join([*kept, jpeg[at:]])


@contextmanager
def _named() -> Iterator[None]:
    """Give whatever a broken file makes Pillow raise one name."""
    try:
        yield
    except (BrokenImageError, MemoryError):
        raise
    except Exception as error:
        raise BrokenImageError(" ".join(str(error).split()) or type(error).__name__) from error
