"""The data as people look at them: findings, figures, a histogram of the classes, some images of each."""

from pathlib import Path

import numpy as np

from layerflow import store
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
from layerflow.export.file_kinds import PILLOW_ONLY
from layerflow.records import DataReport, DatasetRef

#: Classes and images of each that are shown: what fits on a page, and of photographs into 300 kB.
_CLASSES, _SAMPLES = 20, 8
_MARKS = {"info": "info", "warn": "**warn**", "stop": "**stop**"}


def write_card(report: DataReport, data: DatasetRef, folder: Path) -> None:
    """Write ``card.md``."""
    profile = report.profile
    shown = f" (the first {_CLASSES} of {len(data.classes):,})" if len(data.classes) > _CLASSES else ""
    findings = [(_MARKS[each.level], each.check, plain(each.text)) for each in report.findings]
    counts = [
        (plain(name), *(f"{profile.counts[split][number]:,}" for split in data.counts))
        for number, name in enumerate(data.classes[:_CLASSES])
    ]
    height, width, channels = data.image_shape
    parts = [
        f"# Data: {plain(data.name)} {data.version}",
        f"{' + '.join(f'{count:,} {split}' for split, count in data.counts.items())} images of {height} x {width} x "
        f"{channels}, uint8 from {profile.lowest} to {profile.highest}, mean {profile.mean:.1f}, standard deviation "
        f"{profile.deviation:.1f}. {data.broken:,} files were left out.",
        "## Findings",
        table(("level", "check", "finding"), findings) if findings else "No findings.",
        f"## Classes{shown}",
        numbers_told(data.classes[:_CLASSES]),
        _histogram(report, data),
        table(("class", *data.counts), counts),
        f"## Images{shown}",
        _samples(data),
        f"Splits: {data.split_rule}. Images: {data.image_rule}. Digest `{data.digest}`.",
    ]
    if (store.path(data.folder) / "test_sources.npy").exists():  # the images were files
        parts.append(f"The exported model's signature `image_bytes` refuses {PILLOW_ONLY}; only training reads them.")
    write(folder, parts)


def _histogram(report: DataReport, data: DatasetRef) -> str:
    figure, axis = new_figure(8, 2.6)
    names = drawn(data.classes[:_CLASSES])
    bottom = np.zeros(len(names))
    for split, counts in report.profile.counts.items():
        axis.bar(range(len(names)), counts[:_CLASSES], bottom=bottom, color=COLOURS[split], label=split)
        bottom += counts[:_CLASSES]
    axis.set_xticks(range(len(names)), names, **slant(names))
    axis.set_ylabel("images", color=INK, fontsize=8)
    axis.legend(fontsize=8, labelcolor=INK, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return picture(figure, f"Bars: images of each class of {data.name}, by split")


def _samples(data: DatasetRef) -> str:
    images, labels = images_and_labels(data, "train")
    labels = np.asarray(labels)
    names = data.classes[:_CLASSES]
    figure, axis = new_sheet(_SAMPLES + 2, len(names), inches=0.4)
    for row, name in enumerate(drawn(names, most=12)):
        axis.text(1.8, row + 0.5, name, ha="right", va="center", fontsize=8, color=INK, parse_math=False)
        for column, at in enumerate(np.flatnonzero(labels == row)[:_SAMPLES]):
            put(axis, np.asarray(images[at]), column + 2, row)
    return picture(figure, f"Images: up to {_SAMPLES} of each class, {', '.join(names)}", colours_of(images))
