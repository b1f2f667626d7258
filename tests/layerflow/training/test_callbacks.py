"""Callbacks: which are refused, and what they do where a training resumes."""

import shutil
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from layerflow import artifacts, store
from layerflow.errors import ConfigError
from layerflow.models.build import build
from layerflow.records import DatasetRef, Epoch, ModelRef, TrainedRef
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import CALLBACKS, TrainingConfig
from layerflow.training import session
from layerflow.training import train as training
from layerflow.training.callbacks import Callbacks, figures_of
from tests.shared import GRAPH

sys.path.append(str(Path(__file__).resolve().parents[2] / "programs"))  # for good: what is named there is imported once


def test_callbacks_that_the_config_knows_are_in_keras() -> None:
    assert all(hasattr(keras.callbacks, name) for name in CALLBACKS)


@pytest.mark.parametrize(
    ("callback", "sentence"),
    [
        ("recipe_parts:CountsSteps", "since a step is no call. Received: .*CountsSteps, which has on_train_batch_end"),
        ("recipe_parts:squared", "must name a class there: only a class will do"),
        ({"class_name": "EarlyStopping", "config": {"monitor": "val_f1"}}, "EarlyStopping with monitor='val_f1'"),
        ({"class_name": "EarlyStopping", "config": {"speed": 1}}, "training.callbacks is refused by EarlyStopping"),
    ],
)
def test_a_callback_that_can_not_be_honoured_is_one_sentence(callback: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        Callbacks(TrainingConfig(callbacks=[callback]), keras.optimizers.SGD())
    assert "\n" not in str(caught.value)


def test_a_callback_that_reads_the_weights_is_refused_in_one_sentence() -> None:
    callbacks = Callbacks(TrainingConfig(callbacks=["recipe_parts:ReadsWeights"]), keras.optimizers.SGD())
    callbacks.on_train_begin([])
    with pytest.raises(ConfigError, match=r"a callback that reads model\.get_weights"):
        callbacks.on_epoch_end(0, {})


PLATEAU = {"class_name": "ReduceLROnPlateau", "config": {"monitor": "val_accuracy", "patience": 2, "factor": 0.3}}
STOPPING = {"class_name": "EarlyStopping", "config": {"patience": 4, "min_delta": 0.01}}


@pytest.mark.parametrize("callback", [PLATEAU, STOPPING, "recipe_parts:Halve"], ids=str)
def test_callbacks_that_hear_of_past_epochs_again_go_on_as_if_they_had_not_stopped(callback: Any) -> None:
    random = np.random.default_rng(2)
    history = [
        Epoch(epoch=number, loss=1, accuracy=0, val_loss=loss, val_accuracy=1 - loss, seconds=1)
        for number, loss in enumerate(random.choice([0.3, 0.2999, 0.5, 0.7], 12).tolist(), 1)
    ]

    def go_on(before: int) -> list[tuple[float, bool]]:
        """The rates, and whether it has stopped, after each epoch; resumed after ``before``, with that rate or not."""
        optimizer = keras.optimizers.SGD(0.1)
        callbacks = Callbacks(TrainingConfig(callbacks=[callback], epochs=20), optimizer)
        optimizer.learning_rate = 77.0  # as a checkpoint that was saved before or after a callback was called
        callbacks.on_train_begin(history[:before])
        states = []
        for epoch in history[before:]:
            callbacks.on_epoch_begin(epoch.epoch - 1)
            callbacks.on_epoch_end(epoch.epoch - 1, figures_of(epoch))
            states.append((float(optimizer.learning_rate), callbacks.has_stopped))
        return states

    whole = go_on(0)
    assert len(set(whole)) > 1, "it did something"
    for before in range(1, len(history)):
        assert go_on(before) == whole[before:]


@pytest.fixture(scope="module")
def model(digits: DatasetRef) -> ModelRef:
    config = ModelConfig(hidden=(16,), dropout=0.2)
    return artifacts.make("build_model", "of-recipes", ModelRef, lambda folder: build(config, digits, 0, folder))


def train(model: ModelRef, data: DatasetRef, folder: Path, **settings: Any) -> TrainedRef:
    folder.mkdir(exist_ok=True)
    return training.train(TrainingConfig(**GRAPH | settings), model, data, folder)


@pytest.mark.slow
@pytest.mark.parametrize("dies_at", ["the save", "the callback"])
def test_a_training_with_callbacks_resumes_with_the_same_bits(
    model: ModelRef, digits: DatasetRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    """Killed right after an epoch's checkpoint, before its callbacks are called, or right after they were."""
    monkeypatch.setattr(session, "_SAVING_SHARE", 1e6)
    settings = {"epochs": 8, "callbacks": ["recipe_parts:Halve", PLATEAU], "ema": 0.9, "class_weight": "balanced"}
    shutil.rmtree(store.root() / "checkpoints", ignore_errors=True)
    whole = train(model, digits, tmp_path / "whole", **settings)
    shutil.rmtree(store.root() / "checkpoints")
    original, ends = Callbacks.on_epoch_end, 0

    def die(self: Callbacks, epoch: int, figures: dict[str, float]) -> None:
        nonlocal ends
        ends += 1
        if ends == 4 and dies_at == "the save":
            raise SystemExit
        original(self, epoch, figures)
        if ends == 4:
            raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Callbacks, "on_epoch_end", die)
        with pytest.raises(SystemExit):
            train(model, digits, tmp_path / "resumed", **settings)
    resumed = train(model, digits, tmp_path / "resumed", **settings)
    for mine, reference in zip(*map(weights, (tmp_path / "resumed", tmp_path / "whole")), strict=True):
        np.testing.assert_array_equal(mine, reference)
    ours, theirs = ([epoch.model_dump(exclude={"seconds"}) for epoch in made.history] for made in (resumed, whole))
    assert ours == theirs


def weights(folder: Path) -> list[np.ndarray]:
    return keras.models.load_model(folder / "model.keras").get_weights()
