"""Image files of every kind, made by code: what a folder of pictures from many cameras and programs holds."""

import io
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from PIL import Image

from layerflow.data.decode import _ORIENTATION

XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
OTHER_XMP = b"<tiff:Orientation>8</tiff:Orientation>"
Made = Callable[[np.random.Generator, int, int], bytes]


def picture(random: np.random.Generator, height: int, width: int, mode: str = "RGB") -> Image.Image:
    """A smooth random picture with some grain."""
    cells = random.integers(0, 256, (height // 7 + 1, width // 7 + 1, 3), np.uint8)
    smooth = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
    grain = np.asarray(smooth) + random.normal(0, 4, (height, width, 3))
    colour = Image.fromarray(grain.clip(0, 255).astype(np.uint8))
    if mode in ("RGBA", "LA"):
        colour.putalpha(Image.fromarray(random.integers(0, 256, (height, width), np.uint8)))
    return colour.convert(mode)


def exif(orientation: int, endian: str = "<") -> bytes:
    notes = Image.Exif()
    notes.endian = endian
    notes[0x010F], notes[_ORIENTATION], notes[0x0131] = "a maker of cameras", orientation, "a program"
    return notes.tobytes()


def saved(kind: str, mode: str = "RGB", **how: object) -> Made:
    """What makes a file by Pillow."""

    def make(random: np.random.Generator, height: int, width: int) -> bytes:
        file = io.BytesIO()
        picture(random, height, width, mode).save(file, kind, **how)
        return file.getvalue()

    return make


def palette(kind: str, colours: int, **how: object) -> Made:
    def make(random: np.random.Generator, height: int, width: int) -> bytes:
        file = io.BytesIO()
        picture(random, height, width).quantize(colours).save(file, kind, **how)
        return file.getvalue()

    return make


def wide(channels: int) -> Made:
    """A PNG of 16 bits, which Pillow can't write in colour."""

    def make(random: np.random.Generator, height: int, width: int) -> bytes:
        pixels = random.integers(0, 2**16, (height, width, channels), np.uint16)
        return bytes(tf.io.encode_png(pixels).numpy())

    return make


def frames(kind: str, mode: str = "RGB", **how: object) -> Made:
    def make(random: np.random.Generator, height: int, width: int) -> bytes:
        file, (first, *others) = io.BytesIO(), [picture(random, height, width, mode) for _ in range(3)]
        first.save(file, kind, save_all=True, append_images=others, **how)
        return file.getvalue()

    return make


def interlaced(random: np.random.Generator, height: int, width: int) -> bytes:
    """A PNG whose pixels come in seven passes (PNG specification, 8.2), which Pillow can't write."""
    import struct
    import zlib

    pixels, lines = np.asarray(picture(random, height, width)), b""
    for top, left, down, right in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)):
        for line in pixels[top::down, left::right]:
            lines += b"\0" + line.tobytes() if line.size else b""
    for line in pixels[1::2]:
        lines += b"\0" + line.tobytes()

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


#: What the graph decodes to the pixels of training.
DECODED: dict[str, Made] = {
    **{
        f"jpeg-{name}{suffix}": saved("JPEG", subsampling=sampling, quality=85, **how)
        for name, sampling in {"444": 0, "422": 1, "420": 2}.items()
        for suffix, how in {
            "": {},
            "-progressive": {"progressive": True},
            "-restarts": {"restart_marker_blocks": 2},
        }.items()
    },
    "jpeg-grey": saved("JPEG", "L"),
    "jpeg-rgb": saved("JPEG", keep_rgb=True),
    **{f"jpeg-turned-{number}": saved("JPEG", exif=exif(number)) for number in range(10)},
    **{f"jpeg-turned-{number}-big": saved("JPEG", exif=exif(number, ">")) for number in (3, 6)},
    "jpeg-xmp": saved("JPEG", xmp=XMP),
    "jpeg-other-xmp": saved("JPEG", xmp=OTHER_XMP + XMP),
    "jpeg-xmp-and-exif": saved("JPEG", xmp=XMP, exif=exif(1)),
    "jpeg-comment": saved("JPEG", comment=b"\xff\xe1\x00\x08Exif\0\0", icc_profile=b"x" * 70_000),
    **{f"png-{mode.lower()}": saved("PNG", mode) for mode in ("RGB", "RGBA", "L", "LA", "1", "I;16")},
    **{f"png-wide-{channels}": wide(channels) for channels in (1, 2, 3, 4)},
    **{f"png-palette-{colours}": palette("PNG", colours) for colours in (2, 4, 16, 200)},
    "png-palette-clear": palette("PNG", 200, transparency=3),
    "png-l-clear": saved("PNG", "L", transparency=200),
    "png-rgb-clear": saved("PNG", transparency=(1, 2, 3)),
    "png-turned": saved("PNG", exif=exif(6)),
    "png-interlaced": interlaced,
    "gif": palette("GIF", 200),
    "gif-l": saved("GIF", "L"),
    "gif-interlaced": palette("GIF", 100, interlace=1),
    "gif-clear": palette("GIF", 100, transparency=5),
    "gif-frames": frames("GIF", duration=50),
    "gif-clear-frames": frames("GIF", "RGBA", disposal=2),
    "webp": saved("WEBP", quality=70),
    "webp-lossless": saved("WEBP", lossless=True),
    "webp-rgba": saved("WEBP", "RGBA", lossless=True, exact=True),
    "webp-rgba-lossy": saved("WEBP", "RGBA"),
    "webp-turned": saved("WEBP", exif=exif(6)),
    "webp-xmp": saved("WEBP", xmp=XMP),
    "bmp": saved("BMP"),
    "bmp-rgba": saved("BMP", "RGBA"),
    "bmp-l": saved("BMP", "L"),
    "bmp-palette": palette("BMP", 200),
}
#: What only Pillow reads, and why the graph refuses it.
REFUSED: dict[str, tuple[Made, str]] = {
    "tiff": (saved("TIFF"), "must be one of these: JPEG"),
    "ppm": (saved("PPM"), "must be one of these: JPEG"),
    "jpeg-cmyk": (saved("JPEG", "CMYK"), "is a CMYK JPEG"),
    "webp-frames": (frames("WEBP"), "is an animated WebP"),
    "bmp-1": (saved("BMP", "1"), "is a BMP with compression, or not of 8, 24 or 32 bits"),
}
