"""The card of an evaluation: confusion matrix, classes, calibration, most confident mistakes."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from layerflow.cards.drawing import (
    COLOURS,
    INK,
    colours_of,
    drawn,
    new_figure,
    new_sheet,
    numbers_told,
    picture,
    put,
    slant,
)
from layerflow.cards.markdown import plain, table, write
from layerflow.data.arrays import images_and_labels
from layerflow.evaluation.calibration import Calibration, calibration
from layerflow.packed import Images
from layerflow.records import DatasetRef, Evaluation, TrainedRef

#: Classes whose bars, and whose counts in the matrix, fit on a page; names fit for twice as many.
_CLASSES = 20
#: Side of the largest matrix that is drawn cell by cell: at least two pixels for each.
_CELLS = 200
#: Width of the matrix in pixels, which the narrowest of the pages that show it does not shrink (the artifact page of
#: Prefect's second UI, in a window of 1,280), and the size of its numbers: there, 10 points.
_WIDTH, _NUMBERS = 560, 9.7
#: Cells go from this grey to their colour, all of them opaque and about as light: black stands out from each.
_GREY, _BLACK = "#a0a6ae", "#000000"
_CONFUSIONS, _MISTAKES, _ACROSS = 10, 16, 8
#: Slices that are shown: of a column with a value for each patient, the lowest.
_SLICES = 20
_MATRIX_TOLD = (
    "One row for each true class, one column for each predicted class. Green is correct, orange is wrong. A dot or an "
    "empty cell is zero."
)


def write_card(evaluation: Evaluation, trained: TrainedRef, data: DatasetRef, folder: Path) -> None:
    """Write ``card.md``, from the record and the arrays in ``folder``."""
    if not evaluation.confusion:
        counts = np.load(folder / "confusion.npy", allow_pickle=False)
        evaluation = evaluation.model_copy(update={"confusion": counts})
    images, labels = images_and_labels(data, "test")
    probabilities = np.load(folder / "predictions.npy", mmap_mode="r", allow_pickle=False)
    found = calibration(probabilities, labels)
    wrong = evaluation.test_examples - sum(row[number] for number, row in enumerate(evaluation.confusion))
    some = f" (the {_CLASSES} of lowest recall, of {len(data.classes):,})" if len(data.classes) > _CLASSES else ""
    parts = [
        f"# Evaluation: {plain(trained.model)} on {plain(data.name)}",
        f"**Accuracy {evaluation.accuracy:.4f}** (95 % interval {evaluation.accuracy_low:.4f} to "
        f"{evaluation.accuracy_high:.4f}): {wrong:,} mistakes in {evaluation.test_examples:,} test images; "
        f"loss {evaluation.loss:.4f}; expected calibration error {found.error:.4f}.",
        "## Confusion matrix",
        _MATRIX_TOLD,
        numbers_told(data.classes),
        _matrix(evaluation, wrong),
        _confusions(evaluation),
        f"## Classes{some}",
        _bars(evaluation),
        *_slices(evaluation),
        "## Calibration",
        _reliability(found),
        "Test images in 15 bins by the probability of the predicted class. A bar shows the share of correct "
        "predictions, the dot the expected share. Their mean distance is the expected calibration error (Guo et al., "
        "On Calibration of Modern Neural Networks, 2017).",
        _calibrated(evaluation),
        _abstention(evaluation),
        "## Most confident mistakes",
        _mistakes(probabilities, images, labels, data.classes),
    ]
    write(folder, parts)


def _matrix(evaluation: Evaluation, wrong: int) -> str:
    counts = np.array(evaluation.confusion)
    shares = _reduced(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    side, names = len(shares), drawn([score.name for score in evaluation.per_class])
    # The cube root: one mistake in a hundred must be seen beside what is right.
    right, strength = np.eye(side, dtype=bool)[..., None], np.cbrt(shares)
    numbered = side <= _CLASSES and _fits(counts, names)
    figure, axis = new_figure(_WIDTH / 100, 1.4 + 0.4 * side if numbered else 5.5)
    colours = np.where(right, _rgba("test", shares), _rgba("bad", strength))
    axis.imshow(colours, interpolation="nearest", aspect="auto" if numbered else "equal")
    if numbered:
        _write_numbers(axis, counts, evaluation)
    axis.xaxis.set(ticks_position="top", label_position="top")
    if len(names) <= 2 * _CLASSES:
        axis.set_xticks(range(side), names, rotation=90 if max(map(len, names)) > 4 else 0, parse_math=False)
        axis.set_yticks(range(side), names, parse_math=False)
    else:
        axis.set(xticks=(), yticks=())
    axis.tick_params(length=0, labelsize=9)
    axis.spines[:].set_visible(False)
    axis.set_xlabel("predicted", color=INK, fontsize=9)
    axis.set_ylabel("true", color=INK, fontsize=9)
    return picture(figure, f"Confusion matrix of {len(names)} classes: {wrong} mistakes are off the diagonal")


def _fits(counts: np.ndarray, names: list[str]) -> bool:
    """Whether each number has a cell as wide as itself."""
    letter = 0.64 * _NUMBERS / 0.72  # pixels, of the font's digits
    cell = (_WIDTH - 60 - letter * max(map(len, names))) / (len(counts) + 1.5)
    return letter * max(len(_brief(int(count))) for count in (counts.max(), *counts.sum(axis=0))) <= cell


def _write_numbers(axis: Any, counts: np.ndarray, evaluation: Evaluation) -> None:
    """Each cell's count, of nothing a dot; after each row the recall, below each column how often it was predicted."""
    side = len(counts)
    put_in = functools.partial(axis.text, ha="center", va="center", fontsize=_NUMBERS)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            put_in(column, row, _brief(count), color=_BLACK)
        else:
            missed = row == column and counts[row].any()
            put_in(column, row, "0" if missed else "·", color=COLOURS["bad"] if missed else INK)
    for row, score in enumerate(evaluation.per_class):
        put_in(side + 0.25, row, f"{score.recall:.0%}" if counts[row].any() else "", color=INK)
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
    return (
        table(("true", "predicted", "images", "share of the true class"), rows)
        if rows
        else "No class was confused with another."
    )


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


def _slices(evaluation: Evaluation) -> list[str]:
    """The slices, the surely lowest first; nothing without slices."""
    if not evaluation.slices:
        return []
    lowest = sorted(evaluation.slices, key=lambda score: score.accuracy_high)
    rows = [
        (
            plain(score.column),
            plain(score.value) or "*not given*",
            f"{score.examples:,}",
            f"{score.examples - score.right:,}",
            f"{score.accuracy:.4f}",
            f"{score.accuracy_low:.4f} to {score.accuracy_high:.4f}",
        )
        for score in lowest[:_SLICES]
    ]
    more = f" {len(lowest) - _SLICES:,} more are not shown." if len(lowest) > _SLICES else ""
    return [
        "## Slices",
        f"Lowest first, by the upper end of the interval, because a few images prove little.{more}",
        table(("column", "value", "images", "mistakes", "accuracy", "95 % interval"), rows),
    ]


def _reliability(found: Calibration) -> str:
    bins = len(found.counts)
    there = np.flatnonzero(found.counts)
    figure, axis = new_figure(5.5, 3.4)
    axis.bar((there + 0.5) / bins, found.accuracy[there], 0.9 / bins, color=COLOURS["train"], label="correct")
    for number in there:  # above all bars and dots, which would cover them
        axis.text((number + 0.5) / bins, 1.06, f"{found.counts[number]:,}", ha="center", fontsize=6, color=INK)
    axis.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1)
    axis.plot(
        found.confidence[there],
        found.confidence[there],
        "o",
        color=COLOURS["validation"],
        markersize=4,
        label="expected",
    )
    axis.set(xlim=(0, 1), ylim=(0, 1.12))
    axis.set_xlabel("probability of the predicted class", color=INK, fontsize=8)
    axis.set_ylabel("share of correct predictions", color=INK, fontsize=8)
    axis.legend(fontsize=8, labelcolor=INK, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return picture(figure, f"Reliability diagram: accuracy by confidence, expected calibration error {found.error:.4f}")


def _calibrated(evaluation: Evaluation) -> str:
    """What the temperature changed, where one was fitted."""
    found, temperature = evaluation.calibrated, evaluation.serving.temperature
    if found is None:
        return ""
    rows = [
        ("expected calibration error", f"{found.ece_before:.4f}", f"{found.ece_after:.4f}"),
        ("log loss", f"{found.loss_before:.4f}", f"{found.loss_after:.4f}"),
    ]
    said = (
        f"The logits are divided by the temperature {temperature:g}, which {found.images:,} validation images gave. "
        "The predicted classes are the same."
        + (" It stays 1 if fewer than ten of them are answered wrong." if temperature == 1 else "")
    )
    return f"{said}\n\n{table(('on the test images', 'before', 'after'), rows)}"


def _abstention(evaluation: Evaluation) -> str:
    """What the threshold accepts, where one was chosen."""
    found, threshold = evaluation.abstention, evaluation.serving.threshold
    if found is None or threshold is None:
        return ""
    rows = [
        ("accepted", f"{found.coverage:.2%}"),
        ("wrong, of the accepted", f"{found.error:.2%}"),
        ("accepted and wrong, of all", f"{found.wrong:.2%}"),
    ]
    said = (
        f"An answer is accepted if its probability is at least {threshold}, by {found.images:,} validation images. "
        f"An image drawn like them is accepted and wrong with a probability of at most {found.asked:g}."
    )
    return f"## Abstention\n\n{said}\n\n{table(('of the test images', 'share'), rows)}"


def _mistakes(probabilities: np.ndarray, images: Images, labels: np.ndarray, classes: tuple[str, ...]) -> str:
    predicted, confidence = probabilities.argmax(axis=-1), probabilities.max(axis=-1)
    wrong = np.flatnonzero(predicted != labels)
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MISTAKES]
    if not len(chosen):
        return "No mistakes."
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
        told.append(f"{classes[true]} predicted as {classes[taken]}, {confidence[at]:.1%}")
    sheet = picture(figure, f"Images: {'; '.join(told)}", colours_of(images))
    return f"Below each image: its true class, the predicted class in orange, and the predicted probability.\n\n{sheet}"
