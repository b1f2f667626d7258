"""A confusion matrix as a picture, and its most frequent mistakes as a table."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from layerflow.cards.drawing import COLOURS, INK, drawn, new_figure, numbers_told, picture
from layerflow.cards.markdown import plain, table

#: Classes whose bars, and whose counts in the matrix, fit on a page; names fit for twice as many.
CLASSES = 20
#: Side of the largest matrix that is drawn cell by cell: at least two pixels for each.
_CELLS = 200
#: Width of the matrix in pixels, which the narrowest of the pages that show it does not shrink (the artifact page of
#: Prefect's second UI, in a window of 1,280), and the size of its numbers: there, 10 points.
_WIDTH, _NUMBERS = 560, 9.7
#: Cells go from this grey to their colour, all of them opaque and about as light: black stands out from each.
_GREY, _BLACK = "#a0a6ae", "#000000"
_CONFUSIONS = 10
_TOLD = (
    "One row for each true class, one column for each predicted class. Green is correct, orange is wrong. A dot or an "
    "empty cell is zero."
)


def confusion_parts(names: Sequence[str], counts: np.ndarray) -> list[str]:
    """Markdown of the picture and the table.

    Args:
        names: The classes, in the order of their numbers.
        counts: Images by true class, in rows, and predicted class, in columns.
    """
    return [_TOLD, numbers_told(names), _matrix(names, counts), _confusions(names, counts)]


def _matrix(names: Sequence[str], counts: np.ndarray) -> str:
    shares = _reduced(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    side, names = len(shares), drawn(names)
    # The cube root: one mistake in a hundred must be seen beside what is right.
    right, strength = np.eye(side, dtype=bool)[..., None], np.cbrt(shares)
    numbered = side <= CLASSES and _fits(counts, names)
    figure, axis = new_figure(_WIDTH / 100, 1.4 + 0.4 * side if numbered else 5.5)
    colours = np.where(right, _rgba("test", shares), _rgba("bad", strength))
    axis.imshow(colours, interpolation="nearest", aspect="auto" if numbered else "equal")
    if numbered:
        _write_numbers(axis, counts)
    axis.xaxis.set(ticks_position="top", label_position="top")
    if len(names) <= 2 * CLASSES:
        axis.set_xticks(range(side), names, rotation=90 if max(map(len, names)) > 4 else 0, parse_math=False)
        axis.set_yticks(range(side), names, parse_math=False)
    else:
        axis.set(xticks=(), yticks=())
    axis.tick_params(length=0, labelsize=9)
    axis.spines[:].set_visible(False)
    axis.set_xlabel("predicted", color=INK, fontsize=9)
    axis.set_ylabel("true", color=INK, fontsize=9)
    wrong = counts.sum() - counts.trace()
    return picture(figure, f"Confusion matrix of {len(names)} classes: {wrong} mistakes are off the diagonal")


def _fits(counts: np.ndarray, names: list[str]) -> bool:
    """Whether each number has a cell as wide as itself."""
    letter = 0.64 * _NUMBERS / 0.72  # pixels, of the font's digits
    cell = (_WIDTH - 60 - letter * max(map(len, names))) / (len(counts) + 1.5)
    return letter * max(len(_brief(int(count))) for count in (counts.max(), *counts.sum(axis=0))) <= cell


def _write_numbers(axis: Any, counts: np.ndarray) -> None:
    """Each cell's count, of nothing a dot; after each row the recall, below each column how often it was predicted."""
    side = len(counts)
    put_in = functools.partial(axis.text, ha="center", va="center", fontsize=_NUMBERS)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            put_in(column, row, _brief(count), color=_BLACK)
        else:
            missed = row == column and counts[row].any()
            put_in(column, row, "0" if missed else "·", color=COLOURS["bad"] if missed else INK)
    for row, total in enumerate(counts.sum(axis=1)):
        put_in(side + 0.25, row, f"{counts[row, row] / total:.0%}" if total else "", color=INK)
    for column, predicted in enumerate(counts.sum(axis=0)):
        put_in(column, side + 0.1, _brief(predicted), color=INK if predicted else COLOURS["bad"])
    put_in(side + 0.25, -0.8, "recall", color=INK, fontsize=9)
    put_in(-0.65, side + 0.1, "sum", color=INK, fontsize=9, ha="right")
    axis.set(xlim=(-0.5, side + 0.9), ylim=(side + 0.5, -0.5))


def _brief(count: int) -> str:
    """In at most four letters up to 999,999."""
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"


def _reduced(shares: np.ndarray) -> np.ndarray:
    """The matrix with at most ``_CELLS`` rows, of several cells the largest: a mean would hide single mistakes."""
    block = -(-len(shares) // _CELLS)
    padded = np.pad(shares, (0, -len(shares) % block))
    side = len(padded) // block
    return padded.reshape(side, block, side, block).max(axis=(1, 3))


def _rgba(colour: str, strength: np.ndarray) -> np.ndarray:
    """From grey to the colour, and nothing where the strength is 0."""
    low, high = (np.array([int(each[at : at + 2], 16) for at in (1, 3, 5)]) / 255 for each in (_GREY, COLOURS[colour]))
    mixed = low + strength[..., None] * (high - low)
    return np.concatenate([mixed, (strength > 0)[..., None]], axis=-1)


def _confusions(names: Sequence[str], counts: np.ndarray) -> str:
    off = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    largest = [divmod(int(at), len(counts)) for at in np.argsort(-off, axis=None, kind="stable")[:_CONFUSIONS]]
    rows = [
        (
            plain(names[true]),
            plain(names[taken]),
            f"{off[true, taken]:,}",
            f"{off[true, taken] / counts[true].sum():.1%}",
        )
        for true, taken in largest
        if off[true, taken]
    ]
    return (
        table(("true", "predicted", "images", "share of the true class"), rows)
        if rows
        else "No class was confused with another."
    )
