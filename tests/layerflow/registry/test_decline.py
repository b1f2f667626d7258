"""No decline adds up: a new model is measured against the best version too. With real models that get worse."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from layerflow import artifacts, checksums, store
from layerflow.data.arrays import images_and_labels
from layerflow.evaluation.evaluate import evaluate
from layerflow.export import saved_model, verification
from layerflow.models.networks import load_model
from layerflow.records import Evaluation, ExportRef, TrainedRef, Verification
from layerflow.registry import layout, versions
from layerflow.registry.ledger import read_ledger
from layerflow.registry.receipt import Challenger
from layerflow.registry.rollback import roll_back
from tests.layerflow.conftest import VERIFIER, Decide

NAME = "mlp-digits"
#: Of 360 images: 5 fewer are within it, 10 are not.
MARGIN = 0.02
Weaken = Callable[[int], Challenger]


@pytest.fixture
def weakened(contenders: dict[str, Challenger], session_store: Path, shelf: Path) -> Weaken:
    """A model that is right on so many test images fewer than the good one: its weights, with some noise."""
    good = contenders["good"]
    images, labels = images_and_labels(good.data, "test")

    def make(fewer: int) -> Challenger:
        network = load_model("mlp", session_store / good.trained.keras)
        weights, wanted = network.get_weights(), sum(good.verification.class_right) - fewer
        for seed in range(500):
            chance = np.random.default_rng(seed)
            scale = chance.uniform(0.01, 0.3)
            network.set_weights([each + chance.normal(0, scale, each.shape) for each in weights])
            if (network(images).numpy().argmax(axis=-1) == labels).sum() == wanted:
                break
        else:
            raise AssertionError(f"no noise makes {fewer} images fewer right")

        def keep(folder: Path) -> TrainedRef:
            network.save(folder / "model.keras")
            return good.trained.model_copy(update={"digest": checksums.sha256(folder / "model.keras")})

        key = f"weakened-{fewer}"
        trained = artifacts.make("train_model", key, TrainedRef, keep)
        scored = artifacts.make("evaluate_model", key, Evaluation, lambda folder: evaluate(trained, good.data, folder))
        exported = artifacts.make(
            "export_model", key, ExportRef, lambda folder: saved_model.export(trained, good.data, folder)
        )
        proved = artifacts.make(
            "verify_export",
            key,
            Verification,
            lambda folder: verification.verify(exported, scored, good.data, VERIFIER),
        )
        return good._replace(trained=trained, evaluation=scored, export=exported, verification=proved)

    return make


def test_small_steps_down_end_where_the_margin_below_the_best_version_ends(decide: Decide, weakened: Weaken) -> None:
    decide("good")
    second = decide(weakened(5), margin=MARGIN)
    assert (second.code, second.best) == ("promoted_not_worse", None)
    third = decide(weakened(10), margin=MARGIN)
    assert (third.code, third.version) == ("kept_worse", 2)
    assert third.comparison
    assert third.best
    assert (third.comparison.champion_version, third.best.champion_version) == (2, 1)
    assert third.comparison.difference == pytest.approx(-5 / 360)
    assert third.best.difference == pytest.approx(-10 / 360)
    assert third.reason.startswith("not worse: accuracy")
    assert "; but against the best version it is worse: accuracy 0.9389 against 0.9667 of version 1" in third.reason
    decision = json.loads(store.path(third.receipt).read_text())["decision"]
    assert decision["best"]["champion_version"] == 1
    # Back up: as good as the best, and the one that the others are measured by from now on.
    again = decide("good", margin=MARGIN)
    assert (again.code, again.version, versions.best_of(NAME)) == ("promoted_not_worse", 3, 3)


def test_each_comparison_is_a_look_at_the_test_images(decide: Decide, weakened: Weaken) -> None:
    assert decide("good").comparison is None
    compared = [decide(weakened(fewer), margin=MARGIN).comparison for fewer in (5, 10)]
    assert [each.look for each in compared if each] == [1, 2], "whether it was published or not"
    assert read_ledger(NAME).looks == 2


def test_the_best_version_is_never_pruned(decide: Decide, weakened: Weaken) -> None:
    decide("good")
    for fewer in (5, 4, 6):
        assert decide(weakened(fewer), registry={"keep": 1}, margin=MARGIN).code == "promoted_not_worse"
    assert versions.numbers(NAME) == [4, 3, 1]
    assert versions.best_of(NAME) == 1


def test_what_is_better_than_the_live_version_is_published_though_it_is_not_the_best(
    decide: Decide, weakened: Weaken
) -> None:
    """Keeping a still worse model in service would serve nobody."""
    decide("good")
    decide("poor", force="the other one offends customers")
    assert versions.best_of(NAME) == 2, "whoever forces a model wants the others measured by it"
    better = decide(weakened(10))
    assert (better.code, versions.best_of(NAME)) == ("promoted_better", 3)


def test_a_rolled_back_version_is_no_longer_the_best(decide: Decide) -> None:
    decide("poor")
    decide("good")
    assert read_ledger(NAME).best == 2
    roll_back(NAME)
    assert versions.best_of(NAME) == 3


def test_without_the_files_of_the_best_version_the_live_one_alone_decides(
    decide: Decide, weakened: Weaken, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    decide("good")
    decide(weakened(5), margin=MARGIN)
    file = layout.home(NAME) / "1" / "saved_model.pb"
    file.write_bytes(file.read_bytes()[:-1])
    made = decide(weakened(10), margin=MARGIN)
    assert (made.code, made.best) == ("promoted_not_worse", None)
    assert "the best version, 1, can't be compared: version 1 is not as it was published" in caplog.text
