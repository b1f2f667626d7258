"""Which image, which label, and which splits of a TensorFlow Datasets dataset are used."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from pydantic import ValidationError

from layerflow import artifacts, store
from layerflow.config import RetrainConfig
from layerflow.data import load, slice_files
from layerflow.data.arrays import images_and_labels
from layerflow.data.resize import resize
from layerflow.data.slices import slices_of
from layerflow.errors import DatasetError, config_sentence
from layerflow.parts import parts_of
from layerflow.records import DatasetRef, PackRef
from layerflow.settings.data import DataConfig, splits_in

pytestmark = pytest.mark.slow

#: First number and size of each split. Each image is full of its number, which is how the tests know it.
SPLITS = {"train": (0, 60), "validation": (100, 30), "extra": (200, 20)}


class ManySidedThings(tfds.core.GeneratorBasedBuilder):
    """Each example has two images and three class labels, and none of them is the dataset's own choice."""

    VERSION = tfds.core.Version("1.0.0")
    supervised: tuple[str, str] | None = None

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "front": tfds.features.Image(shape=(4, 4, 1)),
            "back": tfds.features.Image(shape=(4, 4, 1)),
            "colour": tfds.features.ClassLabel(names=["red", "green", "blue"]),
            "form": tfds.features.ClassLabel(names=["round", "square"]),
            "form/number": tfds.features.ClassLabel(num_classes=5),
            "weight": tfds.features.Scalar(np.int64),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=self.supervised
        )

    def _split_generators(self, manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(*numbers) for split, numbers in SPLITS.items()}

    def _generate_examples(self, first: int, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for number in range(first, first + count):
            front = np.full((4, 4, 1), number, np.uint8)
            labels = {"colour": number % 3, "form": number % 2, "form/number": number % 5}
            yield number, {"front": front, "back": 255 - front, "weight": number, **labels}


class SupervisedThings(ManySidedThings):
    """The same, and the dataset's own choice is the front with its form."""

    supervised = ("front", "form")


class ThingsOfManySizes(tfds.core.GeneratorBasedBuilder):
    """Noise of several sizes, in a train split alone."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(num_classes=2),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for number in range(50):
            yield number, {"image": noise(number), "label": number % 2}


def noise(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (20 + number % 7, 30, 3), np.uint8)


@pytest.fixture
def things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The datasets above are prepared once, in a folder that the tests share; the test's own folder is the store."""
    monkeypatch.setenv("LAYERFLOW_STORE", str(tmp_path))
    shared = tmp_path_factory.getbasetemp() / "things"
    monkeypatch.setenv("TFDS_DATA_DIR", str(shared))


CHOSEN = {"image": "front", "label": "form"}


def loaded(folder: Path, name: str = "many_sided_things", **settings: object) -> DatasetRef:
    return load.load(DataConfig.model_validate({"name": name, **settings}), folder)


def numbers(folder: Path, split: str) -> list[int]:
    return sorted(pairs(folder, split)[0].tolist())


def version_in(folder: Path) -> DatasetRef:
    """As much of the record of what was loaded into a folder of the store as reading its images needs."""
    pack = artifacts.record_in(store.path(parts_of(folder)[0]), PackRef)
    assert pack
    return DatasetRef.model_construct(folder=os.path.relpath(folder, store.root()), image_shape=pack.image_shape)


def pairs(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The number that is the first pixel of each image, and its label."""
    images, labels = images_and_labels(version_in(folder), split)
    return np.asarray(images)[:, 0, 0, 0], labels


def labels_by_number(folder: Path) -> dict[int, int]:
    found: dict[int, int] = {}
    for split in ("train", "validation", "test"):
        first, labels = pairs(folder, split)
        found |= dict(zip(first.tolist(), labels.tolist(), strict=True))
    return found


@pytest.mark.parametrize(("label", "classes"), [("colour", 3), ("form", 2), ("form/number", 5)])
def test_data_label_chooses_among_class_labels(label: str, classes: int, things: None, tmp_path: Path) -> None:
    made = loaded(tmp_path, image="front", label=label)
    assert len(made.classes) == classes
    found = labels_by_number(tmp_path)
    assert found == {number: number % classes for number in found}
    assert len(found) == 90


def test_data_image_chooses_among_images(things: None, tmp_path: Path) -> None:
    loaded(tmp_path, image="back", label="form")
    found = labels_by_number(tmp_path)
    assert found == {number: (255 - number) % 2 for number in found}
    assert 255 in found


def test_what_the_dataset_chooses_is_used_unless_another_is_asked_for(things: None, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    assert loaded(tmp_path / "own", "supervised_things").classes == ("round", "square")
    (tmp_path / "asked").mkdir()
    assert loaded(tmp_path / "asked", "supervised_things", label="colour").classes == ("red", "green", "blue")
    assert 255 not in labels_by_number(tmp_path / "asked"), "the image is still the dataset's own choice"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, r"holds several features of the kind Image: front, back; choose one, with --data.image front say"),
        ({"image": "front"}, r"the kind ClassLabel: colour, form, form/number; .* --data.label colour say"),
        (
            {"image": "fornt"},
            r"data.image must be a feature of .*: front, back. Received: 'fornt' \(did you mean front\?",
        ),
        (
            {"image": "front", "label": "weight"},
            r"data.label must be .* Received: 'weight', a Scalar; choose one of those",
        ),
        ({"image": "form"}, r"data.image must be .* Received: 'form', a ClassLabel"),
    ],
)
def test_a_feature_that_can_not_be_chosen_is_one_sentence(settings: dict[str, str], reason: str, things: None) -> None:
    with pytest.raises(DatasetError, match=reason) as caught:
        load.check(DataConfig.model_validate({"name": "many_sided_things", **settings}))
    assert str(caught.value).isprintable()


def test_each_split_is_what_its_expression_says_and_nothing_is_drawn(things: None, tmp_path: Path) -> None:
    splits = {"train": "train[:50%]+extra", "validation": "train[50%:]", "test": "validation[:10]"}
    made = loaded(tmp_path, splits=splits, **CHOSEN)
    assert made.counts == {"train": 50, "validation": 30, "test": 10}
    read = {split: numbers(tmp_path, split) for split in splits}
    assert set(read["train"]) >= set(range(200, 220))
    # TFDS shuffles the examples of a split when it prepares them: which ones are in a half is its own affair.
    assert sorted(read["train"] + read["validation"]) == [*range(60), *range(200, 220)]
    assert set(read["test"]) < set(range(100, 130))
    for split, expression in splits.items():
        assert f"{split} is the data's own `{expression}`" in made.split_rule
    assert "SHA-256" not in made.split_rule


def test_without_a_test_split_validation_is_the_test_and_is_called_that(things: None, tmp_path: Path) -> None:
    made = loaded(tmp_path, **CHOSEN)
    assert numbers(tmp_path, "test") == [*range(100, 130)]
    assert "test is the data's own `validation`" in made.split_rule
    assert made.counts["train"] + made.counts["validation"] == 60


@pytest.mark.parametrize("splits", [{"validation": "validation"}, {"train": "train+validation"}])
def test_a_split_that_is_used_otherwise_is_not_the_test_too(
    splits: dict[str, str], things: None, tmp_path: Path
) -> None:
    made = loaded(tmp_path, splits=splits, **CHOSEN)
    read = [number for split in made.counts for number in numbers(tmp_path, split)]
    assert sorted(read) == [*range(60), *range(100, 130)], "each example once"
    assert "an image of train tests if" in made.split_rule


@pytest.mark.parametrize(
    ("splits", "reason"),
    [
        ({"train": "trian"}, r"data.splits.train must name splits of .* Received: trian \(did you mean train"),
        ({"test": "train+tets"}, r"data.splits.test must name splits of .*, which are train, validation, extra"),
        ({"test": "train[:1000]"}, r"data.splits.test must be a part that .* has. Received: train\[:1000\] \("),
        ({"validation": "train[:0%]"}, r"data.splits.validation must .*train\[:0%\]"),
    ],
)
def test_a_split_that_the_dataset_lacks_is_one_sentence(
    splits: dict[str, str], reason: str, things: None, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=reason) as caught:
        loaded(tmp_path, splits=splits, **CHOSEN)
    assert str(caught.value).isprintable()


def test_images_of_several_sizes_are_made_fit_in_their_order_and_each_keeps_its_label(
    things: None, tmp_path: Path
) -> None:
    loaded(tmp_path, "things_of_many_sizes", image_size="10x10")
    resized = {resize(noise(number), 10, 10).tobytes(): number % 2 for number in range(50)}
    found = {}
    for split in ("train", "validation", "test"):
        images, labels = images_and_labels(version_in(tmp_path), split)
        found |= dict(zip([image.tobytes() for image in images], labels.tolist(), strict=True))
    assert found == resized


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("train", ["train"]),
        ("train[:80%]", ["train"]),
        ("train[10:-20]+validation", ["train", "validation"]),
        (" test[-99.5%:] + unlabelled_2 ", ["test", "unlabelled_2"]),
        ("train[3shard]", ["train"]),
        ("train[1shard:]", ["train"]),
    ],
)
def test_the_splits_that_an_expression_reads_are_known_without_tfds(expression: str, names: list[str]) -> None:
    assert splits_in(expression) == names
    config = DataConfig.model_validate({"splits": {"test": expression}})
    tfds.core.ReadInstruction.from_spec(config.splits.test)  # which takes it too


@pytest.mark.parametrize(
    "expression", ["", "train[", "train[:80", "train[80%]", "train[:]", "train[a:]", "train,test", "+", "train[1:2:3]"]
)
def test_an_expression_that_tfds_does_not_read_is_refused_before_the_run(expression: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RetrainConfig.model_validate({"data": {"splits": {"test": expression}}})
    assert "data.splits.test: a split expression of TensorFlow Datasets, such as" in config_sentence(caught.value)


@pytest.mark.parametrize("settings", [{"label": "a"}, {"image": "a"}, {"splits": {"train": "train"}}])
def test_a_folder_has_no_features_and_no_expressions(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as caught:
        DataConfig.model_validate({"name": "folder", "path": "pets", **settings})
    assert "a folder has train/<class>/ and test/<class>/ in their place" in config_sentence(caught.value)


class SlicedThings(tfds.core.GeneratorBasedBuilder):
    """Images full of their number, fixed or of two sizes, with all kinds of features to be sliced by."""

    VERSION = tfds.core.Version("1.0.0")
    size: int | None = 4

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(self.size, self.size, 1)),
            "label": tfds.features.ClassLabel(num_classes=2),
            "camera": tfds.features.Text(),
            "site": tfds.features.ClassLabel(names=["Oslo", "Rome"]),
            "night": tfds.features.Scalar(np.int64),
            "is_wet": tfds.features.Scalar(np.bool_),
            "brightness": tfds.features.Scalar(np.float32),
            "box": tfds.features.Tensor(shape=(2,), dtype=np.int64),
        }
        supervised = ("image", "label")
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=supervised
        )

    def _split_generators(self, manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(0, 40), "test": self._generate_examples(100, 30)}

    def _generate_examples(self, first: int, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for number in range(first, first + count):
            side = self.size or 4 + number % 2
            values = {"night": number % 5, "is_wet": number % 2 > 0, "brightness": number / 7, "box": [number, 0]}
            # No site is known of every tenth image: -1, as TFDS says it.
            site = -1 if number % 10 == 0 else number % 2
            image = np.full((side, side, 1), number, np.uint8)
            yield number, {"image": image, "label": number % 2, "camera": f"c{number % 3}", "site": site, **values}


class SlicedThingsOfTwoSizes(SlicedThings):
    """The same, in sizes that are made fit one by one."""

    size = None


@pytest.mark.parametrize("name", ["sliced_things", "sliced_things_of_two_sizes"])
@pytest.mark.parametrize("splits", [{}, {"test": "test", "train": "train[:20]+test[:50%]"}, {"train": "train+test"}])
def test_each_test_image_has_the_values_of_its_features(
    name: str, splits: dict[str, str], things: None, empty_store: Path
) -> None:
    folder = empty_store / "things"
    folder.mkdir(parents=True)
    made = loaded(folder, name, slices="camera, site,night,is_wet", splits=splits, image_size="4x4")
    made = made.model_copy(update={"folder": "things"})
    assert made.slices == ("camera", "site", "night", "is_wet")
    found, images = slices_of(made), np.asarray(images_and_labels(made, "test")[0])[:, 0, 0, 0].tolist()
    assert images
    for number, row in zip(images, found.numbers, strict=True):
        site = "" if number % 10 == 0 else ("Oslo", "Rome")[number % 2]
        values = [f"c{number % 3}", site, str(number % 5), str(number % 2 > 0)]
        assert [found.names[each] for each in row] == list(zip(made.slices, values, strict=True))
    chosen = np.array(images) % 2 == 0
    counts = dict(zip(found.names, found.counts(chosen), strict=True))
    assert counts["night", "3"] == sum(number % 5 == 3 and number % 2 == 0 for number in images)


@pytest.mark.parametrize("slices", ["brightness", "box", "image", "camera,cemara", "slices.csv"])
def test_a_feature_that_is_no_slice_is_one_sentence(slices: str, things: None, tmp_path: Path) -> None:
    reason = "that are a whole number, text or a class label: label, camera, site, night, is_wet. Received: "
    with pytest.raises(DatasetError, match=reason) as caught:
        load.check(DataConfig(name="sliced_things", slices=slices))
    assert str(caught.value).isprintable()
    assert ("did you mean camera?" in str(caught.value)) == ("cemara" in slices)


def test_a_feature_of_too_many_values_is_refused(things: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slice_files, "MOST_VALUES", 4)
    with pytest.raises(DatasetError, match=r"at most 4 values\. night has more"):
        loaded(tmp_path, "sliced_things", slices="night")
