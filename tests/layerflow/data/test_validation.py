"""Looking at the data before training: each thing that can be found, planted and found."""

import itertools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from layerflow import artifacts
from layerflow.cards.data import write_card
from layerflow.data import validation
from layerflow.errors import DataError
from layerflow.findings import Profile
from layerflow.records import DataReport, DatasetRef
from layerflow.settings.checks import ChecksConfig

Splits = dict[str, tuple[np.ndarray, np.ndarray]]
_number = itertools.count()


def clean() -> Splits:
    """Noise, no image twice: 300 to train on, 60 to validate and 100 to test, of three classes."""
    random = np.random.default_rng(0)
    sizes = {"train": 300, "validation": 60, "test": 100}
    return {
        split: (random.integers(0, 256, (size, 8, 8, 1), np.uint8), np.arange(size, dtype=np.int32) % 3)
        for split, size in sizes.items()
    }


def stored(splits: Splits, classes: tuple[str, ...] = ("cat", "cow", "dog"), broken: int = 0) -> DatasetRef:
    def write(folder: Path) -> DatasetRef:
        for split, (images, labels) in splits.items():
            np.save(folder / f"{split}_images.npy", images)
            np.save(folder / f"{split}_labels.npy", labels)
        counts = {split: len(labels) for split, (_, labels) in splits.items()}
        facts = {
            "version": "1",
            "digest": "d",
            "test_digest": "t",
            "split_rule": "",
            "image_rule": "",
            "broken": broken,
        }
        shape = splits["train"][0].shape[1:]
        return DatasetRef(name="planted", classes=classes, counts=counts, image_shape=shape, **facts)

    return artifacts.make("load_data", f"planted-{next(_number)}", DatasetRef, write)


def check(
    splits: Splits,
    baseline: Profile | None = None,
    classes: tuple[str, ...] = ("cat", "cow", "dog"),
    broken: int = 0,
    **config: object,
) -> DataReport:
    return validation.validate(ChecksConfig.model_validate(config), stored(splits, classes, broken), baseline)


@pytest.fixture(autouse=True)
def _own_store(empty_store: Path) -> None: ...


def test_clean_data_have_no_findings_and_exact_figures() -> None:
    splits = clean()
    report = check(splits)
    assert report.findings == ()
    train = splits["train"][0]
    assert report.profile.counts == {"train": (100, 100, 100), "validation": (20, 20, 20), "test": (34, 33, 33)}
    assert report.profile.mean == pytest.approx(train.mean())
    assert report.profile.deviation == pytest.approx(train.std())
    assert (report.profile.lowest, report.profile.highest) == (0, 255)
    assert sum(report.profile.pixels) == pytest.approx(1, abs=1e-4)
    validation.require_no_stop(report)


def leak(splits: Splits, count: int) -> None:
    splits["train"][0][:count] = splits["test"][0][:count]
    splits["train"][1][:count] = splits["test"][1][:count]


def without(splits: Splits, label: int, split: str) -> None:
    images, labels = splits[split]
    splits[split] = images[labels != label], labels[labels != label]


def only(splits: Splits, label: int, split: str, count: int) -> None:
    images, labels = splits[split]
    kept = (labels != label) | (np.cumsum(labels == label) <= count)
    splits[split] = images[kept], labels[kept]


PLANTED: dict[str, tuple[Callable[[Splits], object], str, str, str]] = {  # what is planted, check, level, what is said
    "leakage": (lambda s: leak(s, 5), "leakage", "stop", r"5 of 100 test images \(5.00%\) are in train or validation"),
    "duplicates": (
        lambda s: [s["train"][0].__setitem__(3, s["train"][0][0]), s["train"][1].__setitem__(3, s["train"][1][0])],
        *("duplicates", "info", "several times: 1 in train"),
    ),
    "conflicts": (
        lambda s: s["train"][0].__setitem__(1, s["train"][0][0]),
        *("conflicts", "warn", "1 images are there under several classes"),
    ),
    "constant": (lambda s: s["test"][0].__setitem__(7, 9), "constant_images", "warn", "of one value: 1 in test"),
    "missing class": (lambda s: without(s, 1, "test"), "missing_class", "stop", "without an image in test: cow"),
    "class missing in validation": (
        lambda s: without(s, 1, "validation"),
        *("missing_class", "warn", "in validation: cow; raise data.validation_fraction, or add images of them"),
    ),
    "small class": (
        lambda s: s["train"][1].__setitem__(slice(0, 280), 0),
        *("small_class", "warn", r"fewer than 10 images in train: cow \(7\), dog \(7\); add images of them"),
    ),
    "small class in test": (
        lambda s: only(s, 1, "test", 6),
        *("small_class", "warn", r"fewer than 10 images in test: cow \(6\); add test images .* data.test_fraction"),
    ),
    "small class in validation": (
        lambda s: only(s, 1, "validation", 2),
        *("small_class", "info", r"fewer than 3 images in validation: cow \(2\); raise data.validation_fraction"),
    ),
    "imbalance": (
        lambda s: only(s, 2, "train", 9),
        *(
            "imbalance",
            "warn",
            r"cat has 11.1 times the images of dog \(100 and 9 in train\), more than 10; add images of dog, set "
            "training.class_weight to balanced, or join",
        ),
    ),
    "label outside": (
        lambda s: s["train"][1].__setitem__(0, 3),
        "labels",
        "stop",
        "1 images have a label outside",
    ),
}


@pytest.mark.parametrize("case", PLANTED)
def test_what_is_planted_is_found_named_and_counted(case: str) -> None:
    plant, name, level, text = PLANTED[case]
    splits = clean()
    plant(splits)
    report = check(splits)
    found = next(each for each in report.findings if each.check == name)
    assert found.level == level
    assert re.search(text, found.text), found.text
    assert all(re.search(r"; \w+ .*\w$", each.text) for each in report.findings), "each ends with what to do"
    if level == "stop":
        remedy = r"\w\.$" if name == "labels" else rf"\w, or set checks\.{name} to warn\.$"
        with pytest.raises(DataError, match=f"must pass the checks.*{text}.*{remedy}") as caught:
            validation.require_no_stop(report)
        assert "Fix them" not in str(caught.value), "each says what to do"
        assert "\n" not in str(caught.value)


def test_classes_at_the_bounds_are_not_small_and_their_shares_not_uneven() -> None:
    splits = clean()
    for split, count in (("train", 10), ("validation", 3), ("test", 10)):
        only(splits, 1, split, count)
    assert check(splits).findings == ()
    found = check(splits, min_class_images=11, min_class_validation_images=4, max_imbalance=9.9).findings
    assert [each.check for each in found] == ["small_class"] * 3 + ["imbalance"]


def test_a_class_without_training_images_is_missing_and_no_infinite_imbalance() -> None:
    splits = clean()
    without(splits, 1, "train")
    assert "imbalance" not in {each.check for each in check(splits).findings}


def test_files_that_were_left_out_are_a_finding() -> None:
    (found,) = check(clean(), broken=3).findings
    assert (found.check, found.level) == ("left_out", "warn")
    assert found.text.startswith("3 of 463 files can't be read and were left out; fix or remove them")
    with pytest.raises(DataError, match="left out"):
        validation.require_no_stop(check(clean(), broken=3, left_out="stop"))


def test_a_level_is_the_configs_word_and_a_small_leak_is_only_noted() -> None:
    splits = clean()
    leak(splits, 5)
    assert [each.level for each in check(splits, leakage="warn").findings] == ["warn"]


def test_a_leak_below_the_share_is_noted() -> None:
    splits = clean()
    leak(splits, 5)
    assert [each.level for each in check(splits, max_leakage=0.05).findings] == ["info"]


SINCE: dict[str, tuple[dict[str, object], list[tuple[str, str, str]]]] = {  # what was otherwise, and what is found
    "nothing changed": ({}, []),
    "a new class": ({"classes": ("cat", "dog")}, [("new_class", "stop", "does not know: cow")]),
    "a class that is gone": ({"classes": ("ape", "cat", "cow", "dog")}, [("lost_class", "stop", "gone: ape")]),
    "other shares": ({"counts": {"train": (250, 25, 25)}}, [("class_drift", "warn", "PSI 1.")]),
    "other pixels": (
        {"pixels": (1.0, *([0.0] * 31))},
        [("pixel_drift", "warn", "(Jensen-Shannon distance): pixels by 0.9")],
    ),
    "other brightness": ({"brightness": (1.0, *([0.0] * 31))}, [("pixel_drift", "warn", "brightness by 1.00")]),
}


@pytest.mark.parametrize("case", SINCE)
def test_what_changed_since_the_model_in_service_is_found(case: str) -> None:
    changes, expected = SINCE[case]
    before = check(clean()).profile.model_copy(update=changes)
    found = check(clean(), before).findings
    assert [(each.check, each.level) for each in found] == [(name, level) for name, level, _ in expected]
    for each, (_, _, text) in zip(found, expected, strict=True):
        assert text in each.text
        assert re.search(r"; \w+ .*\w$", each.text), "it ends with what to do"


def test_the_stability_index_is_the_published_sum() -> None:
    # Shares 0.5, 0.5 against 0.25, 0.75: -0.25 ln(0.5) + 0.25 ln(1.5) = 0.1733 + 0.1014; large counts drown the halves.
    assert validation.stability_index((10**9, 10**9), (10**9, 3 * 10**9)) == pytest.approx(0.27465, abs=1e-5)
    assert validation.stability_index((5, 5), (5, 5)) == 0
    assert np.isfinite(validation.stability_index((0, 10), (10, 0)))


def test_the_card_shows_findings_classes_and_images_and_needs_no_other_file(tmp_path: Path) -> None:
    splits = clean()
    leak(splits, 5)
    data = stored(splits)
    write_card(validation.validate(ChecksConfig(), data, None), data, tmp_path)
    card = (tmp_path / "card.md").read_text()
    assert "**stop** | leakage | 5 of 100 test images" in card
    assert "| cow | 100 | 20 | 33 |" in card
    assert card.count("](data:image/png;base64,") == 2, "a histogram, and images of each class"
    assert len(card) < 300_000
