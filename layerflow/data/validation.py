"""Looking at the data before an hour is spent on them: what is wrong in them, and what changed."""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import jensenshannon

from layerflow.data.arrays import images_and_labels
from layerflow.errors import DataError
from layerflow.findings import Finding, Profile
from layerflow.memory import give_back
from layerflow.packed import Images
from layerflow.records import DataReport, DatasetRef
from layerflow.settings.checks import ChecksConfig, Level

log = logging.getLogger(__name__)

_SPLITS = ("train", "validation", "test")
#: Bins of pixel values and brightness, 8 values each: finer ones would find noise in small data sets.
_BINS = 32
#: Bytes of images that are looked at together.
_BATCH_BYTES = 2**23


_may_be_let_through = set(ChecksConfig.model_fields)
#: How a class gets more images in a split.
_MORE = {
    "train": "add images of them, or join them with other classes",
    "validation": "raise data.validation_fraction, or add images of them",
    "test": "add test images of them, or without a test split of the data's own raise data.test_fraction",
}
_RANKS: tuple[Level, ...] = ("info", "warn", "stop")


class _Split(NamedTuple):
    """What one pass over a split tells: per image label, 64-bit digest and mean; of all, how often each value is there.

    Among a million images the chance that any two digests are equal by accident is one in 40 million.
    """

    labels: np.ndarray
    digests: np.ndarray
    means: np.ndarray
    constant: int
    values: np.ndarray


def validate(config: ChecksConfig, data: DatasetRef, baseline: Profile | None) -> DataReport:
    """Check the data, and compare them with those of the live version.

    Args:
        baseline: Profile of the data that the live version was trained on, if there is one.
    """
    splits = {split: _look_at(*images_and_labels(data, split)) for split in _SPLITS}
    profile = _profile(data, splits)
    found = [*_of_files(config, data), *_of_images(config, splits), *_of_classes(config, data, splits)]
    if baseline:
        found += _since(config, baseline, profile)
    report = DataReport(name=data.name, data_digest=data.digest, profile=profile, findings=tuple(found))
    for finding in found:
        log.log(logging.INFO if finding.level == "info" else logging.WARNING, "%s: %s", finding.check, finding.text)
    return report


def require_no_stop(report: DataReport) -> None:
    """Raise what must end the run.

    Raises:
        DataError: With every finding whose level is ``stop``.
    """
    _require_no_stop(report.name, report.findings)


def require_classes(config: ChecksConfig, name: str, before: tuple[str, ...], now: tuple[str, ...]) -> None:
    """Raise what ``require_no_stop`` will raise of the classes, where they are known before the images.

    Raises:
        DataError: If a class of the live version is gone, or one is new, at the level ``stop``.
    """
    _require_no_stop(name, classes_since(config, before, now))


def _require_no_stop(name: str, findings: Iterable[Finding]) -> None:
    stops = [finding for finding in findings if finding.level == "stop"]
    if stops:
        texts = "; ".join(finding.text for finding in stops)
        fields = [f"checks.{name}" for name in sorted({finding.check for finding in stops} & _may_be_let_through)]
        remedy = f", or set {' and '.join(fields)} to warn" if fields else ""
        raise DataError(f"The data of {name} must pass the checks. They do not: {texts}{remedy}.")


def _look_at(images: Images, labels: np.ndarray) -> _Split:
    digests, means = np.empty(len(images), np.uint64), np.empty(len(images))
    values, constant = np.zeros(256, np.int64), 0
    for start, batch in _batches(images):
        flat = batch.reshape(len(batch), -1)
        rows = slice(start, start + len(batch))
        digests[rows] = [
            int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little") for row in flat
        ]
        means[rows] = flat.mean(axis=1)
        constant += int((flat.min(axis=1) == flat.max(axis=1)).sum())
        values += np.bincount(flat.ravel(), minlength=256)
    return _Split(np.array(labels), digests, means, constant, values)


def _batches(images: Images) -> Iterator[tuple[int, np.ndarray]]:
    size = max(1, _BATCH_BYTES // int(np.prod(images.shape[1:])))
    for start in range(0, len(images), size):
        yield start, np.asarray(images[start : start + size])
        give_back(images)


def _profile(data: DatasetRef, splits: dict[str, _Split]) -> Profile:
    values, present = splits["train"].values, np.flatnonzero(splits["train"].values)
    mean = float(np.average(np.arange(256), weights=values))
    brightness, _ = np.histogram(splits["train"].means, bins=_BINS, range=(0, 256))
    return Profile(
        classes=data.classes,
        counts={name: _per_class(data, split) for name, split in splits.items()},
        pixels=_shares(values.reshape(_BINS, -1).sum(axis=1)),
        brightness=_shares(brightness),
        lowest=int(present[0]),
        highest=int(present[-1]),
        mean=mean,
        deviation=float(np.sqrt(np.average((np.arange(256) - mean) ** 2, weights=values))),
    )


def _per_class(data: DatasetRef, split: _Split) -> tuple[int, ...]:
    known = split.labels[(split.labels >= 0) & (split.labels < len(data.classes))]
    return tuple(np.bincount(known, minlength=len(data.classes)).tolist())


def _shares(counts: np.ndarray) -> tuple[float, ...]:
    return tuple((counts / counts.sum()).round(6).tolist())


def _finding(check: str, level: Level, text: str, remedy: str) -> Finding:
    return Finding(check=check, level=level, text=f"{text}; {remedy}")


def _of_files(config: ChecksConfig, data: DatasetRef) -> Iterator[Finding]:
    if data.broken:
        text = f"{data.broken:,} of {sum(data.counts.values()) + data.broken:,} files can't be read and were left out"
        yield _finding("left_out", config.left_out, text, "fix or remove them; the log of load_data names each")


def _of_images(config: ChecksConfig, splits: dict[str, _Split]) -> Iterator[Finding]:
    learned = np.concatenate([splits["train"].digests, splits["validation"].digests])
    leaked, tests = int(np.isin(splits["test"].digests, learned).sum()), len(splits["test"].digests)
    if leaked:
        share = leaked / tests
        text = f"{leaked:,} of {tests:,} test images ({share:.2%}) are in train or validation too"
        few = share <= config.max_leakage
        yield _finding("leakage", "info" if few else config.leakage, text, "remove them from one of the two")
    repeated = {name: len(split.digests) - len(np.unique(split.digests)) for name, split in splits.items()}
    if any(repeated.values()):
        text = ", ".join(f"{count:,} in {name}" for name, count in repeated.items() if count)
        text = f"images that are there several times: {text}"
        yield _finding("duplicates", config.duplicates, text, "remove the copies, unless they should count more")
    if conflicts := _conflicts(splits):
        text = f"{conflicts:,} images are there under several classes"
        yield _finding("conflicts", config.conflicts, text, "keep each in the right one")
    if constant := {name: split.constant for name, split in splits.items() if split.constant}:
        text = ", ".join(f"{count:,} in {name}" for name, count in constant.items())
        text = f"images of one value: {text}"
        yield _finding("constant_images", config.constant_images, text, "remove them, unless they should be blank")


def _conflicts(splits: dict[str, _Split]) -> int:
    digests = np.concatenate([split.digests for split in splits.values()])
    labels = np.concatenate([split.labels for split in splits.values()])
    order = np.lexsort((labels, digests))
    same_image = digests[order][1:] == digests[order][:-1]
    other_label = labels[order][1:] != labels[order][:-1]
    return len(np.unique(digests[order][1:][same_image & other_label]))


def _of_classes(config: ChecksConfig, data: DatasetRef, splits: dict[str, _Split]) -> Iterator[Finding]:
    counts = {name: _per_class(data, split) for name, split in splits.items()}
    outside = sum(len(split.labels) - sum(counts[name]) for name, split in splits.items())
    if outside:  # no model can be trained on them, whatever the config says
        text = f"{outside:,} images have a label outside the {len(data.classes)} classes"
        yield _finding("labels", "stop", text, "correct their labels")
    for name, per_class in counts.items():
        if 0 in per_class:
            missing = _some([data.classes[number] for number in np.flatnonzero(np.equal(per_class, 0))])
            text, level = f"classes without an image in {name}: {missing}", config.missing_class
            if name == "validation":  # it only chooses the best epoch, and a small share of few images misses one soon
                level = min(level, "warn", key=_RANKS.index)
            yield _finding("missing_class", level, text, _MORE[name])
        fewest = config.min_class_validation_images if name == "validation" else config.min_class_images
        named = zip(data.classes, per_class, strict=True)
        if small := [f"{each} ({count})" for each, count in named if 0 < count < fewest]:
            text = f"classes with fewer than {fewest} images in {name}: {_some(small)}"
            # Validation only chooses the best epoch; the smallest data have so few, those of the tutorial too.
            level = "info" if name == "validation" else config.small_class
            yield _finding("small_class", level, text, _MORE[name])
    yield from _imbalance(config, data.classes, counts["train"])


def _imbalance(config: ChecksConfig, classes: tuple[str, ...], counts: tuple[int, ...]) -> Iterator[Finding]:
    """Whether the largest class has too many times the images of the smallest that has any."""
    most, fewest = max(counts), min(filter(None, counts), default=0)
    if most > config.max_imbalance * fewest:
        largest, smallest = (classes[counts.index(count)] for count in (most, fewest))
        text = (
            f"{largest} has {most / fewest:.1f} times the images of {smallest} ({most:,} and {fewest:,} in train), "
            f"more than {config.max_imbalance:g}"
        )
        remedy = f"add images of {smallest}, set training.class_weight to balanced, or join it with another class"
        yield _finding("imbalance", config.imbalance, text, remedy)


def classes_since(config: ChecksConfig, before: tuple[str, ...], now: tuple[str, ...]) -> Iterator[Finding]:
    """Classes that came or went since the model in service was trained."""
    if new := sorted(set(now) - set(before)):
        text = f"classes that the live version does not know: {_some(new)}"
        yield _finding("new_class", config.new_class, text, "remove them, unless they are intended")
    if lost := sorted(set(before) - set(now)):
        text = f"classes of the live version that are gone: {_some(lost)}"
        yield _finding("lost_class", config.lost_class, text, "restore them, unless they were removed on purpose")


def _since(config: ChecksConfig, before: Profile, now: Profile) -> Iterator[Finding]:
    """What changed since the model in service was trained."""
    yield from classes_since(config, before.classes, now.classes)
    if before.classes == now.classes:
        psi = stability_index(before.counts["train"], now.counts["train"])
        if psi > config.max_psi:
            text = f"class shares differ from those of the live version: PSI {psi:.2f}, above {config.max_psi:g}"
            yield _finding("class_drift", config.class_drift, text, "see where the new images come from")
    pairs = {"pixels": (before.pixels, now.pixels), "brightness": (before.brightness, now.brightness)}
    distances = {name: float(jensenshannon(*pair, base=2)) for name, pair in pairs.items()}
    if max(distances.values()) > config.max_distance:
        text = ", ".join(f"{name} by {distance:.2f}" for name, distance in distances.items())
        text = f"images differ from those of the live version (Jensen-Shannon distance): {text}"
        text = f"{text}, above {config.max_distance:g}"
        yield _finding("pixel_drift", config.pixel_drift, text, "see how the new images were taken and scaled")


def stability_index(before: tuple[int, ...], now: tuple[int, ...]) -> float:
    """Population stability index of two rows of counts; half an image more each, so that an empty class is no infinity.

    The sum of Kullback and Leibler's divergences in both directions (1951): 0 for equal shares, 0.2 for a clear shift.
    """
    old, new = (np.asarray(counts) + 0.5 for counts in (before, now))
    old, new = old / old.sum(), new / new.sum()
    return float(((new - old) * np.log(new / old)).sum())


def _some(names: list[str]) -> str:
    """Up to ten names, and how many more there are."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10:,} more" if len(names) > 10 else "")
