"""A preset of KerasHub, from the mirror to a published version and its successor, by the steps of the flow."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import tasks
from layerflow import store
from layerflow.config import RetrainConfig
from layerflow.models.networks import load_model
from layerflow.outcomes import Promotion
from layerflow.records import TrainedRef
from layerflow.registry.first_weights import first_weights
from layerflow.registry.promotion import promote
from layerflow.registry.receipt import Challenger
from layerflow.registry.versions import receipt_of
from layerflow.settings.finetune import FinetuneConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training import session
from layerflow.training.checkpoint import Checkpoint
from layerflow.training.train import train
from tasks.caching import key_of, make
from tests import forked
from tests.made_presets import write_preset

pytest.importorskip("keras_hub", reason="KerasHub is not installed: make hub")
pytestmark = [pytest.mark.slow, pytest.mark.process]  # whoever verifies is a process of its own, always


class Night(NamedTuple):
    config: RetrainConfig
    made: Challenger
    promotion: Promotion


def config_of(mirror: Path, **model: Any) -> RetrainConfig:
    return RetrainConfig.model_validate(
        {
            "model": {"name": "hub:tiny", "weights": "preset", **model},
            "data": {"image_size": "32x32", "mirror": str(mirror)},
            "training": {"epochs": 2},
            "finetune": {"head_epochs": 1},
            "gate": {"baseline": "none", "min_class_recall": 0},
        }
    )


def made_by_the_steps(config: RetrainConfig) -> Challenger:
    devices = config.devices_for_model
    data = make(tasks.load_data, config.data, devices)
    checked = make(tasks.validate_data, config.checks, data, None)
    weights = first_weights(config, data.image_shape[:2])
    model = make(tasks.build_model, config.model, data, config.training.seed, devices, weights)
    trained = make(tasks.train_model, config.training, config.augment, config.finetune, model, data, devices)
    evaluation = make(tasks.evaluate_model, config.export, trained, data, devices)
    export = make(tasks.export_model, trained, evaluation.serving, data, devices)
    verification = make(tasks.verify_export, export, evaluation, data, config.data)
    return Challenger(data, checked, model, trained, evaluation, export, verification)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mirror")
    write_preset(folder / "keras_hub" / "tiny")
    return folder


@pytest.fixture(scope="module")
def night(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYERFLOW_STORE", str(tmp_path_factory.mktemp("store")))
        config = config_of(mirror)
        made = made_by_the_steps(config)
        yield Night(config, made, promote(config, made, "first"))


def test_it_is_trained_in_two_phases_exported_verified_and_published(night: Night) -> None:
    made = night.made
    assert (made.trained.epochs, made.trained.head_epochs) == (2, 1)
    assert made.verification.test_accuracy == made.evaluation.accuracy
    assert "embedding" in made.export.signatures
    assert night.promotion.version == 1
    receipt = receipt_of("tiny-digits", 1)
    assert receipt
    loaded = receipt["model"]["weights"]
    assert (loaded["source"], loaded["file"], loaded["license"]) == ("hub:tiny", "model.weights.h5", "unknown")
    assert (loaded["new_layers"], loaded["skipped"]) == (["head/dense"], 0)


def test_its_export_answers_where_there_is_no_keras_hub(night: Night) -> None:
    program = forked.PROGRAMS / "answers_without_keras_hub.py"
    saved = store.path(night.made.export.saved_model)
    done = forked.run([forked.sys.executable, program, str(saved)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_same_inputs_are_found_and_a_changed_preset_is_not(night: Night, mirror: Path, tmp_path: Path) -> None:
    shutil.copytree(mirror, tmp_path / "same")
    write_preset(tmp_path / "other" / "keras_hub" / "tiny", stackwise_num_filters=[64, 16])
    for place, is_found in ((mirror, True), (tmp_path / "same", True), (tmp_path / "other", False)):
        inputs = {
            "config": config_of(place).model,
            "data": night.made.data,
            "seed": night.config.training.seed,
            "devices": night.config.devices_for_model,
            "weights": first_weights(config_of(place), (32, 32)),
        }
        key = key_of(tasks.build_model.cache_policy.work, inputs)
        assert (night.made.model.folder == f"build_model/{key}") == is_found, place


def test_another_head_learns_from_the_features_that_are_kept(night: Night, caplog: pytest.LogCaptureFixture) -> None:
    config = config_of(night.config.data.mirror_folder or Path(), dropout=0.5)
    with caplog.at_level(logging.INFO, "layerflow"):
        made = made_by_the_steps(config)
    assert made.trained.digest != night.made.trained.digest
    assert "features of the frozen backbone: computed" not in caplog.text
    assert len(list((store.root() / "frozen_features").glob("[!.]*"))) == 1


def test_the_next_one_starts_from_the_live_version(night: Night) -> None:
    config = config_of(night.config.data.mirror_folder or Path(), weights="champion")
    data = night.made.data
    weights = first_weights(config, data.image_shape[:2])
    model = make(tasks.build_model, config.model, data, config.training.seed, config.devices_for_model, weights)
    assert model.weights
    assert (model.weights.source, model.weights.new, model.weights.skipped) == ("tiny-digits@1", 0, 0)
    before = load_model("hub:tiny", store.path(night.made.trained.keras))
    after = load_model("hub:tiny", store.path(model.keras))
    for one, other in zip(before.weights, after.weights, strict=True):
        if one.dtype == "float32":  # and not the state of a random layer
            np.testing.assert_array_equal(one, other)


@pytest.mark.drill
@pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1")
@pytest.mark.parametrize("family", ["EfficientNet", "MiT"])
def test_resumed_training_equals_uninterrupted_training(
    family: str, night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of backbones that drop numbers at random, with layers of Keras and of KerasHub itself."""
    write_preset(tmp_path / "keras_hub" / "tiny", family)
    config, data = config_of(tmp_path), night.made.data
    weights = first_weights(config, (32, 32))
    model = make(tasks.build_model, config.model, data, 0, config.devices_for_model, weights)
    settings = TrainingConfig(epochs=3, checkpoint_seconds=1e-6)

    def fit(name: str) -> TrainedRef:
        (tmp_path / name).mkdir(exist_ok=True)
        return train(settings, model, data, tmp_path / name, finetune=FinetuneConfig(head_epochs=1))

    monkeypatch.setattr(session, "_SAVING_SHARE", 1e6)
    whole, original = fit("whole"), Checkpoint.save
    shutil.rmtree(store.root() / "checkpoints")

    def die(self: Checkpoint, arrays: dict[str, Any], state: dict[str, Any]) -> None:
        original(self, arrays, state)
        if len(state["history"]) == 2:  # in the phase in which the backbone learns
            monkeypatch.setattr(Checkpoint, "save", original)
            raise SystemExit

    monkeypatch.setattr(Checkpoint, "save", die)
    with pytest.raises(SystemExit):
        fit("resumed")
    resumed = fit("resumed")
    ours, theirs = (load_model("hub:tiny", tmp_path / name / "model.keras") for name in ("resumed", "whole"))
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    histories = ([epoch.model_dump(exclude={"seconds"}) for epoch in made.history] for made in (resumed, whole))
    assert next(histories) == next(histories)
