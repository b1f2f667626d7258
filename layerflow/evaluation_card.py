"""An evaluation as people look at it: what is mixed up with what, how sure it is, its most confident mistakes."""

from pathlib import Path

import numpy as np

from layerflow.calibration import Calibration, calibration
from layerflow.cards import (
    COLOURS,
    INK,
    colours_of,
    drawn,
    new_figure,
    new_sheet,
    numbers_told,
    picture,
    plain,
    put,
    slant,
    table,
    write,
)
from layerflow.data import images_and_labels
from layerflow.records import DatasetRef, Evaluation, TrainedRef

#: Classes whose bars, and whose counts in the matrix, fit on a page; names fit for twice as many.
_CLASSES = 20
#: Side of the largest matrix that is drawn cell by cell: at least two pixels for each.
_CELLS = 200
#: A count and its outline, of which one stands out from any cell on any page: the product of their contrasts with what
#: is below them is at least that of the two, 16, and so one of them is at least 4.
_FILL, _OUTLINE = "#ffffff", "#1d2127"
_CONFUSIONS, _MISTAKES, _ACROSS = 10, 16, 8


def write_card(evaluation: Evaluation, trained: TrainedRef, data: DatasetRef, folder: Path) -> None:
    """Write ``card.md``, from the record and the arrays in ``folder``."""
    if not evaluation.confusion:
        counts = np.load(folder / "confusion.npy", allow_pickle=False)
        evaluation = evaluation.model_copy(update={"confusion": counts})
    images, labels = images_and_labels(data, "test")
    probabilities = np.load(folder / "predictions.npy", mmap_mode="r", allow_pickle=False)
    found = calibration(probabilities, labels)
    wrong = evaluation.test_examples - sum(row[number] for number, row in enumerate(evaluation.confusion))
    some = f" (of {len(data.classes):,} the {_CLASSES} of lowest recall)" if len(data.classes) > _CLASSES else ""
    parts = [
        f"# Evaluation: {plain(trained.model)} on {plain(data.name)}",
        f"**Accuracy {evaluation.accuracy:.4f}** (95 % interval {evaluation.accuracy_low:.4f} to "
        f"{evaluation.accuracy_high:.4f}), {wrong:,} mistakes among {evaluation.test_examples:,} test examples; "
        f"loss {evaluation.loss:.4f}; expected calibration error {found.error:.4f}.",
        "## What is taken for what",
        numbers_told(data.classes),
        _matrix(evaluation, wrong),
        _confusions(evaluation),
        f"## Classes{some}",
        _bars(evaluation),
        "## How sure it is",
        _reliability(found),
        "Examples by the probability of the predicted class, in 15 bins: how many of them are right, and the dot how "
        "many should be. Their distance, on the average, is the expected calibration error (Guo and others, On "
        "calibration of modern neural networks, 2017).",
        "## The most confident mistakes",
        _mistakes(probabilities, images, labels, data.classes),
    ]
    write(folder, parts)


def _matrix(evaluation: Evaluation, wrong: int) -> str:
    counts = np.array(evaluation.confusion)
    shares = _reduced(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    side, names = len(shares), drawn([score.name for score in evaluation.per_class])
    right = np.eye(side, dtype=bool)
    # The cube root: one mistake in a hundred must be seen beside what is right.
    strength = np.where(right, shares, np.cbrt(shares))
    from matplotlib.patheffects import withStroke

    figure, axis = new_figure(5.5, 5.5)
    axis.imshow(np.where(right[..., None], _rgba("test", strength), _rgba("bad", strength)), interpolation="nearest")
    if len(names) <= _CLASSES:
        for row, column in np.argwhere(counts):
            number = axis.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=7)
            number.set(color=_FILL, path_effects=[withStroke(linewidth=1.5, foreground=_OUTLINE)])
    if len(names) <= 2 * _CLASSES:
        axis.set_xticks(range(side), names, rotation=90 if max(map(len, names)) > 2 else 0, parse_math=False)
        axis.set_yticks(range(side), names, parse_math=False)
    else:
        axis.set(xticks=(), yticks=())
    axis.set_xlabel("predicted", color=INK, fontsize=8)
    axis.set_ylabel("true", color=INK, fontsize=8)
    return picture(figure, f"Confusion matrix of {len(names)} classes: {wrong} mistakes are off the diagonal")


def _reduced(shares: np.ndarray) -> np.ndarray:
    """The matrix with at most ``_CELLS`` rows, of several cells the largest: a mean would hide single mistakes."""
    block = -(-len(shares) // _CELLS)
    padded = np.pad(shares, (0, -len(shares) % block))
    side = len(padded) // block
    return padded.reshape(side, block, side, block).max(axis=(1, 3))


def _rgba(colour: str, strength: np.ndarray) -> np.ndarray:
    red, green, blue = (int(COLOURS[colour][at : at + 2], 16) / 255 for at in (1, 3, 5))
    return np.stack(
        [np.full_like(strength, red), np.full_like(strength, green), np.full_like(strength, blue), strength], -1
    )


def _confusions(evaluation: Evaluation) -> str:
    counts = np.array(evaluation.confusion)
    names = [score.name for score in evaluation.per_class]
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
    return table(("true", "predicted", "images", "of its class"), rows) if rows else "Nothing is."


def _bars(evaluation: Evaluation) -> str:
    names = drawn([score.name for score in evaluation.per_class])
    named = list(zip(names, evaluation.per_class, strict=True))
    if len(named) > _CLASSES:
        named = sorted(named, key=lambda each: each[1].recall)[:_CLASSES]
    figure, axis = new_figure(8, 2.6)
    for shift, kind, colour in ((-0.2, "precision", "train"), (0.2, "recall", "validation")):
        values = [getattr(score, kind) for _, score in named]
        bars = axis.bar(np.arange(len(named)) + shift, values, 0.38, color=COLOURS[colour], label=kind)
        axis.bar_label(bars, [f"{100 * value:.0f}" for value in values], fontsize=6, color=INK)
    names = [name for name, _ in named]
    axis.set_xticks(range(len(names)), names, **slant(names))
    axis.legend(fontsize=8, labelcolor=INK, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return picture(figure, f"Bars: precision and recall of {len(names)} classes, in percent")


def _reliability(found: Calibration) -> str:
    bins = len(found.counts)
    there = np.flatnonzero(found.counts)
    figure, axis = new_figure(5.5, 3.4)
    axis.bar((there + 0.5) / bins, found.accuracy[there], 0.9 / bins, color=COLOURS["train"], label="are right")
    for number in there:  # above all bars and dots, for they would lie on them
        axis.text((number + 0.5) / bins, 1.06, f"{found.counts[number]:,}", ha="center", fontsize=6, color=INK)
    axis.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1)
    axis.plot(
        found.confidence[there],
        found.confidence[there],
        "o",
        color=COLOURS["validation"],
        markersize=4,
        label="should be",
    )
    axis.set(xlim=(0, 1), ylim=(0, 1.12))
    axis.set_xlabel("probability of the predicted class", color=INK, fontsize=8)
    axis.set_ylabel("share that is right", color=INK, fontsize=8)
    axis.legend(fontsize=8, labelcolor=INK, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return picture(figure, f"Reliability diagram: accuracy by confidence, expected calibration error {found.error:.4f}")


def _mistakes(probabilities: np.ndarray, images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> str:
    predicted, confidence = probabilities.argmax(axis=-1), probabilities.max(axis=-1)
    wrong = np.flatnonzero(predicted != labels)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MISTAKES]
    if not len(chosen):
        return "There are none."
    figure, axis = new_sheet(_ACROSS, 1.6 * -(-len(chosen) // _ACROSS), inches=1)
    told, names = [], drawn(classes, most=12)
    for place, at in enumerate(chosen):
        row, column = divmod(place, _ACROSS)
        true, taken = labels[at], predicted[at]
        put(axis, np.asarray(images[at]), column, 1.6 * row)
        lines = (names[true], INK), (names[taken], COLOURS["bad"]), (f"{confidence[at]:.1%}", INK)
        for line, (text, colour) in enumerate(lines):
            below = 1.6 * row + 1.09 + 0.18 * line
            axis.text(column, below, text, fontsize=8, color=colour, parse_math=False)
        told.append(f"{classes[true]} taken for {classes[taken]}, {confidence[at]:.1%}")
    sheet = picture(figure, f"Images: {'; '.join(told)}", colours_of(images))
    return f"Each with its class, in colour what it was taken for, and how surely.\n\n{sheet}"
