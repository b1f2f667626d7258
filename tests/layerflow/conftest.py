"""Models that really differ, and a store of the test's own to publish them in."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from layerflow import artifacts, store
from layerflow.config import RetrainConfig
from layerflow.evaluation.evaluate import evaluate
from layerflow.export import saved_model, verification
from layerflow.models.build import build
from layerflow.outcomes import Promotion, Retrained
from layerflow.records import DataReport, DatasetRef, Evaluation, ExportRef, ModelRef, TrainedRef, Verification
from layerflow.registry.promotion import promote
from layerflow.registry.receipt import Challenger
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training.train import train
from tests.shared import once

Decide = Callable[..., Promotion]
#: Scores both models of each comparison, in one process.
VERIFIER = verification.Verifier()
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
        shutil.copytree(session_store / good.data.folder, store.path(good.data.folder))
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
            shutil.copytree(session_store / record.folder, empty_store / record.folder, dirs_exist_ok=True)
    return empty_store


@pytest.fixture
def decide(contenders: dict[str, Challenger], shelf: Path) -> Decide:
    """``decide("poor", rule="better")`` lets a contender, or any challenger, ask to be published, with no floor."""

    def ask(who: str | Challenger, registry: dict[str, object] | None = None, **gate: object) -> Promotion:
        config = RetrainConfig.model_validate({"gate": NO_FLOOR | gate, "registry": registry or {}})
        return promote(config, contenders[who] if isinstance(who, str) else who, "run", verifier=VERIFIER)

    return ask
