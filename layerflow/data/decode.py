"""From an image file's bytes to ``uint8`` arrays of one size: what is taken, and how it is made to fit."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

# For good, because the threads that read share one list of filters: of a file that is read nothing need be said.
warnings.filterwarnings("ignore", module=r"PIL\.")

#: What is read. Not everything that Pillow knows: its reader of PostScript, for one, starts another program.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
#: Most pixels of one image: 100 million are 300 MB once decoded. A small file can claim any number.
MAX_PIXELS = 100_000_000
#: Whole numbers wider than a byte, of which the upper byte is taken, and numbers that have no fixed range.
_WIDE, _UNBOUNDED = ("I;16", "I;16B", "I;16L", "I;16N"), ("I", "F")
#: What cameras write (TIFF is turned by Pillow itself), the tag in which they note how they were held, and its values
#: that change height and width. Pillow calls a JPEG that carries a second image MPO.
_CAMERAS, _ORIENTATION, _ON_ITS_SIDE = ("JPEG", "MPO", "WEBP"), 0x0112, (5, 6, 7, 8)
#: libjpeg's warnings of compressed pixels that can't be what was written. Its other ones are of oddities.
_DAMAGE = re.compile(r"Corrupt JPEG data|Premature end of JPEG|Inconsistent progression")

RULE = (
    "the first frame, turned as the camera was held, transparency left out, 16 bits cut to the upper 8, palettes and "
    "CMYK to RGB, grey to colour by repetition, colour to grey by ITU-R 601; to image_size by Pillow's antialiased "
    "bilinear filter, each side by itself"
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
        if image.format in _CAMERAS and image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE:
            height, width = width, height
        return height, width, 1 if image.mode in ("1", "L", "LA") or _is_wide(image) else 3


def read(content: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """Decode an image, by ``RULE``, into ``uint8`` of ``shape`` (height, width, channels).

    Raises:
        BrokenImageError: If it can't be decoded to its last pixel, or only by repair.
    """
    with _named():
        image = _open(content)
        if image.format in ("JPEG", "MPO"):
            _require_whole(content)
        image.load()
        return fit(ImageOps.exif_transpose(image) if image.format in _CAMERAS else image, shape)


def fit(image: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """An image as ``uint8`` of ``shape``, by ``RULE``."""
    height, width, channels = shape
    if _is_wide(image):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P":  # a palette may hold transparency, which Pillow converts only this way
        image = image.convert("RGBA")
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(shape)


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
    if image.width * image.height > MAX_PIXELS:
        raise BrokenImageError(f"{image.height:,} x {image.width:,} pixels, more than {MAX_PIXELS:,}")
    if image.mode in _UNBOUNDED and not _is_wide(image):
        raise BrokenImageError("numbers without a fixed range in place of grey values")
    return image


def _require_whole(jpeg: bytes) -> None:
    """Refuse what libjpeg warns of and repairs: Pillow drops its warnings, and a half of the image may be grey.

    Decodes to an eighth of each side, for a tenth to a third of the time of reading. JPEG has no checksum: damage is
    found if it breaks the chain of codes, as a lost end and nearly every zeroed disk sector do.
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
