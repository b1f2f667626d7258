"""On which images two models are compared: those that neither has learned from, of the classes that both know."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from layerflow import artifacts
from layerflow.data.arrays import images_and_labels
from layerflow.data.image_digests import image_digests
from layerflow.data.split_files import SPLITS
from layerflow.outcomes import Comparison
from layerflow.records import DatasetRef, LoadedWeights
from layerflow.registry import layout, versions
from layerflow.registry.comparison import compare, learned_by
from layerflow.registry.decision import rival_of
from layerflow.registry.known_images import KnownImages
from layerflow.registry.receipt import Challenger
from layerflow.settings.gate import GateConfig
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import TrainingConfig
from tests.layerflow.conftest import VERIFIER, Decide, make_challenger
from tests.made_data import write_version

NAME = "mlp-digits"
Images = dict[str, tuple[np.ndarray, np.ndarray]]
Prepare = Callable[[str, Images], DatasetRef]


@pytest.fixture
def today(contenders: dict[str, Challenger], shelf: Path) -> Images:
    """The images and labels of the digits' splits, to be changed."""
    data = contenders["good"].data
    return {
        split: (np.asarray(images), labels) for split in SPLITS for images, labels in [images_and_labels(data, split)]
    }


@pytest.fixture
def prepare(contenders: dict[str, Challenger], shelf: Path) -> Prepare:
    """Writes splits as ``load`` does."""
    digits = contenders["good"].data

    def write(key: str, images: Images) -> DatasetRef:
        classes = digits.classes[: max(int(labels.max()) for _, labels in images.values()) + 1]

        def make(folder: Path) -> DatasetRef:
            return write_version(folder, images, digits, classes)

        return artifacts.make("load_data", key, DatasetRef, make)

    return write


def on(challenger: Challenger, data: DatasetRef) -> Challenger:
    """The same network, as if these were its data."""
    evaluation = challenger.evaluation.model_copy(update={"test_digest": data.test_digest})
    return challenger._replace(data=data, evaluation=evaluation)


def compared(challenger: Challenger, **gate: object) -> Comparison | str:
    live = versions.champion_of(NAME)
    assert live
    return compare(GateConfig(**gate), challenger, rival_of(NAME, live), lambda: learned_by(challenger), VERIFIER)


def joined(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([one[0], other[0]]), np.concatenate([one[1], other[1]])


def flipped(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images that nobody has seen yet."""
    return np.ascontiguousarray(images[:, :, ::-1]), labels


def test_digests_are_those_of_the_images_in_their_order(contenders: dict[str, Challenger], shelf: Path) -> None:
    data = contenders["good"].data
    for split in SPLITS:
        images, _ = images_and_labels(data, split)
        expected = [int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:8], "big") for image in images]
        assert image_digests(data, split).tolist() == expected


def test_a_test_set_that_grew_is_compared_and_says_how_many_are_new(
    decide: Decide, contenders: dict[str, Challenger], today: Images, prepare: Prepare
) -> None:
    decide("poor")
    new = flipped(*(each[:28] for each in today["test"]))
    grown = prepare("grown", {**today, "test": joined(today["test"], new)})
    found = compared(on(contenders["good"], grown))
    assert isinstance(found, Comparison)
    assert (found.examples, found.new, found.left_out) == (388, 28, 0)
    assert found.images_text == "388 images (28 of them new)"
    assert found.test_set == hashlib.sha256(np.sort(image_digests(grown, "test")).tobytes()).hexdigest()
    assert found.challenger.accuracy > found.champion.accuracy


def test_what_the_live_version_has_learned_from_is_left_out(
    decide: Decide, contenders: dict[str, Challenger], today: Images, prepare: Prepare
) -> None:
    """Other fractions move images from training and validation to test: the live version knows their answers."""
    decide("good")
    for split, count in (("train", 40), ("validation", 7)):
        known, rest = (tuple(each[part] for each in today[split]) for part in (slice(count), slice(count, None)))
        today |= {split: rest, "test": joined(known, today["test"])}
    found = compared(on(contenders["similar"], prepare("moved", today)))
    assert isinstance(found, Comparison)
    assert (found.examples, found.new, found.left_out) == (360, 0, 47)


def test_what_the_new_model_has_learned_from_is_left_out_too(
    decide: Decide, contenders: dict[str, Challenger], today: Images, prepare: Prepare
) -> None:
    """A folder may have the same picture in train/ and in test/, where `checks.leakage` only warns."""
    decide("good")
    leaked = tuple(each[:9] for each in today["test"])
    found = compared(on(contenders["similar"], prepare("leaking", {**today, "train": joined(today["train"], leaked)})))
    assert isinstance(found, Comparison)
    assert (found.examples, found.left_out) == (351, 9)


def test_too_few_common_images_are_not_comparable(
    decide: Decide, contenders: dict[str, Challenger], today: Images, prepare: Prepare
) -> None:
    decide("good")
    swapped = {"train": today["test"], "validation": today["validation"], "test": today["train"]}
    reason = compared(on(contenders["similar"], prepare("swapped", swapped)))
    assert reason == (
        "only 0 of the test images are ones that neither version 1 nor the new model has learned from; "
        "gate.min_test_examples is 100"
    )


def test_images_in_another_form_are_not_comparable(
    decide: Decide, contenders: dict[str, Challenger], today: Images, prepare: Prepare
) -> None:
    decide("good")
    other = prepare("other", {**today, "test": flipped(*today["test"])})
    reason = compared(on(contenders["similar"], other.model_copy(update={"image_rule": "cropped"})))
    assert reason == "version 1 saw its images in another form: as they are; the new model: cropped"


def test_a_version_without_a_list_is_compared_on_the_same_test_images_alone(
    decide: Decide,
    contenders: dict[str, Challenger],
    today: Images,
    prepare: Prepare,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of an earlier layerflow have none."""
    with monkeypatch.context() as patch:
        patch.setattr(KnownImages, "as_bytes", None)
        decide("good")
    assert not (layout.home(NAME) / "1" / layout.IMAGES).exists()
    found = compared(contenders["similar"])
    assert isinstance(found, Comparison)
    assert (found.examples, found.new, found.left_out) == (360, 0, 0)
    grown = prepare("grown", {**today, "test": joined(today["test"], flipped(*today["test"]))})
    reason = compared(on(contenders["similar"], grown))
    assert reason == "version 1 was scored on other test examples, and it does not list what it learned from"


def test_the_images_of_the_version_that_it_started_from_count_as_learned(
    decide: Decide, contenders: dict[str, Challenger], today: Images, prepare: Prepare, caplog: pytest.LogCaptureFixture
) -> None:
    decide("good")
    fresh = prepare("fresh", {split: flipped(*pairs) for split, pairs in today.items()})
    weights = LoadedWeights.model_construct(source=f"{NAME}@1")
    warm = on(contenders["good"], fresh)
    warm = warm._replace(model=warm.model.model_copy(update={"weights": weights}))
    inherited = image_digests(contenders["good"].data, "train", "validation")
    assert np.isin(inherited, learned_by(warm).learned).all()
    gone = warm.model.model_copy(update={"weights": weights.model_copy(update={"source": f"{NAME}@7"})})
    assert not np.isin(inherited, learned_by(warm._replace(model=gone)).learned).any()
    assert f"which images {NAME}@7 has learned from is not known" in caplog.text


def test_a_changed_list_of_images_is_damage(decide: Decide, contenders: dict[str, Challenger]) -> None:
    """With fewer images in it, the live version would be judged by what it has learned from."""
    decide("good")
    file = layout.home(NAME) / "1" / layout.IMAGES
    nothing = np.array([], np.uint64)
    file.write_bytes(KnownImages(nothing, nothing).as_bytes)
    reason = compared(contenders["similar"])
    assert reason == f"version 1 is not as it was published: {layout.IMAGES} was changed"


@pytest.fixture
def nine(contenders: dict[str, Challenger], today: Images, prepare: Prepare) -> Challenger:
    """A model of the digits 0 to 8."""
    known = {split: tuple(each[labels < 9] for each in (images, labels)) for split, (images, labels) in today.items()}
    data = prepare("nine", known)
    return make_challenger("nine", data, contenders["good"].checked, ModelConfig(), TrainingConfig(epochs=3))


def test_models_with_other_classes_are_compared_on_those_that_both_know(
    decide: Decide, contenders: dict[str, Challenger], nine: Challenger
) -> None:
    tests_of_nine = nine.data.counts["test"]
    assert decide(nine).version == 1
    assert "can't be scored: it is for classes" in str(compared(contenders["good"]))
    for classes in ("new_allowed", "common"):
        found = compared(contenders["good"], classes=classes)
        assert isinstance(found, Comparison)
        assert (found.examples, found.left_out) == (tests_of_nine, 360 - tests_of_nine)
        assert found.champion.accuracy == nine.evaluation.accuracy
    made = decide("good", classes="new_allowed", min_class_recall=0.99, min_class_examples=1000)
    assert made.code == "kept_below_floor"
    assert "of the new class 9 is below gate.min_class_recall 0.99" in made.reason
    assert decide("good", classes="new_allowed").version == 2
    # The other way round, a class was lost.
    reason = compared(nine, classes="new_allowed")
    assert reason == "version 2 knows the class 9 and the new model does not; set gate.classes common"
    found = compared(nine, classes="common")
    assert isinstance(found, Comparison)
    assert found.examples == tests_of_nine
