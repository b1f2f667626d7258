"""The pictures of cards, inside their Markdown, readable on a dark page and on a light one."""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from layerflow.cards.markdown import plain
from layerflow.packed import Images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Grey that stands out from white and from black.
INK = "#8a8f98"
#: From the palette that nearly everybody can distinguish (Okabe and Ito, 2008): those that also stand out from both.
COLOURS = {"train": "#0072b2", "validation": "#e69f00", "test": "#009e73", "bad": "#d55e00"}


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> "tuple[Figure, Any]":
    """A transparent figure of ``width`` by ``height`` inches, and its axes."""
    from matplotlib.figure import Figure  # half a second, which a run that draws nothing must not take

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns)
    for axis in getattr(axes, "flat", [axes]):
        axis.tick_params(colors=INK, labelsize=8)
        for spine in axis.spines.values():
            spine.set_color(INK)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def slant(names: Sequence[str]) -> dict[str, Any]:
    """How these names stand below bars: slanting where they would touch, and ending at their bar."""
    plain = {"parse_math": False}  # a class may have a dollar in its name
    return {**plain, "rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 4 else plain


def picture(figure: "Figure", alt: str, colours: int | None = None) -> str:
    """The figure as a Markdown picture that needs no other file.

    Args:
        alt: What it shows, as text.
        colours: Number of colours for photographs, which take five times as many bytes otherwise; default: all.
    """
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100, transparent=True)
    if colours:
        few = Image.open(stream).quantize(colours, Image.Quantize.FASTOCTREE)  # the one way that keeps it transparent
        stream = io.BytesIO()
        few.save(stream, "PNG", optimize=True)
    return _inline(stream.getvalue(), alt)


def new_sheet(columns: float, rows: float, inches: float) -> "tuple[Figure, Any]":
    """A figure for images in cells of ``inches`` each, counted from the upper left, and its axis."""
    figure, axis = new_figure(columns * inches, rows * inches)
    axis.set_axis_off()
    axis.set(xlim=(0, columns), ylim=(rows, 0))
    return figure, axis


def put(axis: Any, image: np.ndarray, column: float, row: float) -> None:
    """Draw a ``uint8`` image ``(height, width, channels)`` into the cell whose upper left corner that is."""
    small = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    small.thumbnail((96, 96))
    longer, side = max(small.size), 0.92
    width, height = (side * size / longer for size in small.size)
    top = row + (side - height) / 2
    extent = (column, column + width, top + height, top)
    axis.imshow(small, cmap="gray", vmin=0, vmax=255, extent=extent, interpolation="nearest", aspect="auto")


def colours_of(images: Images) -> int | None:
    """With how many colours a sheet of ``(count, height, width, channels)`` is drawn: of grey ones all."""
    return 128 if images.shape[-1] > 1 else None


def drawn(names: Sequence[str], most: int = 16) -> list[str]:
    """Class names as pictures show them: shortened to ``most`` letters, or numbers if the font lacks a letter."""
    if not _has_letters(names):
        return [str(number) for number in range(len(names))]
    return [name if len(name) <= most else f"{name[: most - 1]}…" for name in names]


def numbers_told(names: Sequence[str]) -> str:
    """A paragraph on what the numbers in the pictures stand for; nothing where ``drawn`` gives names."""
    if _has_letters(names):
        return ""
    return f"In the pictures: {', '.join(f'{number} is {plain(name)}' for number, name in enumerate(names))}."


def _has_letters(names: Sequence[str]) -> bool:
    """Whether the font of the pictures has a glyph for each letter; for another it would draw a box."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    return all(font.get_char_index(ord(letter)) for letter in set("".join(names)))


def _inline(png: bytes, alt: str) -> str:
    return f"![{plain(alt)}](data:image/png;base64,{base64.b64encode(png).decode()})"
