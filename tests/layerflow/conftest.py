"""Models that really differ, and a store of the test's own to publish them in."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from layerflow import artifacts, store
from layerflow.config import RetrainConfig
from layerflow.data.arrays import images_and_labels
from layerflow.data.slice_files import SliceFiles
from layerflow.evaluation.evaluate import evaluate
from layerflow.export import process, saved_model, verification
from layerflow.models.build import build
from layerflow.outcomes import Promotion, Retrained
from layerflow.records import DataReport, DatasetRef, Evaluation, ExportRef, ModelRef, TrainedRef, Verification
from layerflow.registry.promotion import promote
from layerflow.registry.receipt import Challenger
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training.train import train
from tests.made_data import write_version
from tests.shared import copy_artifact, once

Decide = Callable[..., Promotion]
#: Scores both models of each comparison, in one process.
VERIFIER = process.Verifier()
#: No floor: what a poor model is published with, where a test is about something else.
NO_FLOOR = {"baseline": "none", "min_class_recall": 0}


def make_challenger(
    key: str, data: DatasetRef, checked: DataReport, model: ModelConfig, settings: TrainingConfig
) -> Challenger:
    """What the steps before the decision make of a config, for real."""
    built = artifacts.make("build_model", key, ModelRef, lambda folder: build(model, data, settings.seed, folder))
    trained = artifacts.make("train_model", key, TrainedRef, lambda folder: train(settings, built, data, folder))
    scored = artifacts.make("evaluate_model", key, Evaluation, lambda folder: evaluate(trained, data, folder))
    exported = artifacts.make("export_model", key, ExportRef, lambda folder: saved_model.export(trained, data, folder))
    proved = artifacts.make(
        "verify_export", key, Verification, lambda folder: verification.verify(exported, scored, data)
    )
    return Challenger(data, checked, built, trained, scored, exported, proved)


@pytest.fixture(scope="session")
def contenders(first_run: Retrained, session_store: Path) -> dict[str, Challenger]:
    """``good``: the first run's; ``similar``: the same with another seed; ``poor``: two hidden units, one epoch."""
    good = Challenger(*(getattr(first_run, part) for part in Challenger._fields))
    written = TypeAdapter(list[Challenger])

    def others() -> str:
        copy_artifact(good.data.folder, session_store, store.root())
        similar = make_challenger("similar", good.data, good.checked, ModelConfig(), TrainingConfig(seed=1))
        poor = make_challenger("poor", good.data, good.checked, ModelConfig(hidden=(2,)), TrainingConfig(epochs=1))
        return written.dump_json([similar, poor]).decode()

    folder, made = once("contenders", others)
    shutil.copytree(folder, session_store, dirs_exist_ok=True)
    similar, poor = written.validate_json(made)
    assert good.evaluation.accuracy > 0.95 > 0.6 > poor.evaluation.accuracy
    assert abs(good.evaluation.accuracy - similar.evaluation.accuracy) < 0.02
    return {"good": good, "similar": similar, "poor": poor}


@pytest.fixture
def small(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Publishes a version of `drill` that has a few bytes and no network to load, and returns its number."""
    monkeypatch.setattr(verification, "inspect", lambda folder, verifier: {})
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    from remote_drill import publish_one

    return lambda label, **named: publish_one(label, tmp_path / "exports", **named)


@pytest.fixture
def remade(shelf: Path) -> Callable[[Challenger], Challenger]:
    """Builds, trains, exports a contender once more, as a run does whose folders were deleted."""

    def make(contender: Challenger) -> Challenger:
        return make_challenger("remade", contender.data, contender.checked, ModelConfig(), TrainingConfig())

    return make


@pytest.fixture
def shelf(contenders: dict[str, Challenger], session_store: Path, empty_store: Path) -> Path:
    """A store in which nothing is published yet, with what is needed to publish the contenders."""
    for each in contenders.values():
        for record in (each.data, each.evaluation, each.export):
            copy_artifact(record.folder, session_store, empty_store)
    return empty_store


#: The cameras of the test images of ``sliced``, one after the other.
CAMERAS = ("left", "middle", "right")


@pytest.fixture
def sliced(failed_camera: Challenger, shelf: Path, session_store: Path) -> Challenger:
    """The challenger of ``failed_camera`` in the store of the test."""
    for record in (failed_camera.data, failed_camera.trained, failed_camera.evaluation):
        copy_artifact(record.folder, session_store, shelf)
    return failed_camera


@pytest.fixture(scope="session")
def failed_camera(contenders: dict[str, Challenger], session_store: Path) -> Challenger:
    """The good model, scored and proved on test images of three cameras, of which the middle one has failed.

    Its images are black. Every twentieth image is of night ``1``; of the others no night is known.
    """
    good = contenders["good"]

    def load(folder: Path) -> DatasetRef:
        splits = {split: images_and_labels(good.data, split) for split in good.data.counts}
        images, rows = np.array(splits["test"][0]), SliceFiles(("camera", "night"))
        images[1::3] = 0
        for number in range(len(images)):
            rows.add((CAMERAS[number % 3], "" if number % 20 else "1"))
        rows.write(folder)
        like = good.data.model_copy(update={"slices": ("camera", "night")})
        return write_version(folder, {**splits, "test": (images, splits["test"][1])}, like)

    def prove(folder: Path) -> Verification:
        return verification.verify(good.export, scored, data, VERIFIER)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYERFLOW_STORE", str(session_store))
        data = artifacts.make("load_data", "sliced", DatasetRef, load)
        scored = artifacts.make("evaluate_model", "sliced", Evaluation, lambda to: evaluate(good.trained, data, to))
        proved = artifacts.make("verify_export", "sliced", Verification, prove)
    return good._replace(data=data, evaluation=scored, verification=proved)


@pytest.fixture
def decide(contenders: dict[str, Challenger], shelf: Path) -> Decide:
    """``decide("poor", rule="better")`` lets a contender, or any challenger, ask to be published, with no floor."""

    def ask(who: str | Challenger, registry: dict[str, object] | None = None, **gate: object) -> Promotion:
        config = RetrainConfig.model_validate({"gate": NO_FLOOR | gate, "registry": registry or {}})
        return promote(config, contenders[who] if isinstance(who, str) else who, "run", verifier=VERIFIER)

    return ask
