"""What cards are made of: Markdown with its pictures inside, readable on a dark page and on a light one."""

import base64
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Grey that stands out from white and from black.
INK = "#8a8f98"
#: Of the colours that are told apart by nearly everybody (Okabe and Ito, 2008), those that stand out from both too.
COLOURS = {"train": "#0072b2", "validation": "#e69f00", "test": "#009e73", "bad": "#d55e00"}


def write(folder: Path, parts: Iterable[str]) -> None:
    """Write ``card.md``, a paragraph for each part."""
    (folder / "card.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


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


def picture(figure: "Figure", alt: str) -> str:
    """The figure as a Markdown picture that needs no other file; ``alt`` says what it shows."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100, transparent=True)
    return _inline(stream.getvalue(), alt)


def strip(images: np.ndarray, alt: str) -> str:
    """``uint8`` images ``(count, height, width, channels)`` side by side as a Markdown picture, 32 to 48 high."""
    count, height, width, channels = images.shape
    row = np.zeros((height, count * (width + 1) - 1, channels), np.uint8)
    for number, image in enumerate(images):
        row[:, number * (width + 1) : number * (width + 1) + width] = image
    drawn = Image.fromarray(row.squeeze(-1) if channels == 1 else row)
    scale = 32 / height
    if scale > 1:
        drawn = drawn.resize((round(drawn.width * scale), 32), Image.Resampling.NEAREST)
    elif height > 48:
        drawn.thumbnail((drawn.width, 48))
    if channels > 1:  # colours of photographs take five times as many bytes without a palette
        drawn = drawn.quantize(64)
    stream = io.BytesIO()
    drawn.save(stream, "PNG", optimize=True)
    return _inline(stream.getvalue(), alt)


def _inline(png: bytes, alt: str) -> str:
    alt = re.sub(r"([\[\]])", r"\\\1", alt)
    return f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def short(value: object) -> str:
    """A value as it stands in a cell: of a float four digits, of a digest its beginning."""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:12]}…" if re.fullmatch("[0-9a-f]{32,}", text) else text
