"""The card of an evaluation: confusion matrix, classes, calibration, most confident mistakes."""

from pathlib import Path

import numpy as np

from layerflow.cards.confusion import CLASSES, confusion_parts
from layerflow.cards.drawing import (
    COLOURS,
    INK,
    colours_of,
    drawn,
    new_figure,
    new_sheet,
    picture,
    put,
    slant,
)
from layerflow.cards.markdown import plain, table, write
from layerflow.data.arrays import images_and_labels
from layerflow.evaluation.calibration import Calibration, calibration
from layerflow.packed import Images
from layerflow.records import DatasetRef, Evaluation, TrainedRef

_MISTAKES, _ACROSS = 16, 8
#: Slices that are shown: of a column with a value for each patient, the lowest.
_SLICES = 20


def write_card(evaluation: Evaluation, trained: TrainedRef, data: DatasetRef, folder: Path) -> None:
    """Write ``card.md``, from the record and the arrays in ``folder``."""
    counts = np.array(evaluation.confusion or np.load(folder / "confusion.npy", allow_pickle=False))
    images, labels = images_and_labels(data, "test")
    probabilities = np.load(folder / "predictions.npy", mmap_mode="r", allow_pickle=False)
    found = calibration(probabilities, labels)
    wrong = evaluation.test_examples - counts.trace()
    some = f" (the {CLASSES} of lowest recall, of {len(data.classes):,})" if len(data.classes) > CLASSES else ""
    parts = [
        f"# Evaluation: {plain(trained.model)} on {plain(data.name)}",
        f"**Accuracy {evaluation.accuracy:.4f}** (95 % interval {evaluation.accuracy_low:.4f} to "
        f"{evaluation.accuracy_high:.4f}): {wrong:,} mistakes in {evaluation.test_examples:,} test images; "
        f"loss {evaluation.loss:.4f}; expected calibration error {found.error:.4f}.",
        "## Confusion matrix",
        *confusion_parts(data.classes, counts),
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


def _bars(evaluation: Evaluation) -> str:
    names = drawn([score.name for score in evaluation.per_class])
    named = list(zip(names, evaluation.per_class, strict=True))
    if len(named) > CLASSES:
        named = sorted(named, key=lambda each: each[1].recall)[:CLASSES]
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
