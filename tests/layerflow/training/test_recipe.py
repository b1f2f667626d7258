"""All parts of a recipe together."""

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from layerflow import artifacts
from layerflow.cards.training import write_card
from layerflow.data.arrays import images_and_labels
from layerflow.models.build import build
from layerflow.models.predict import softmax
from layerflow.records import DatasetRef, ModelRef, TrainedRef
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training import train as training
from tests import forked
from tests.shared import GRAPH

sys.path.append(str(Path(__file__).resolve().parents[2] / "programs"))  # for good: what is named there is imported once


@pytest.fixture(scope="module")
def model(digits: DatasetRef) -> ModelRef:
    config = ModelConfig(hidden=(16,), dropout=0.2)
    return artifacts.make("build_model", "of-recipes", ModelRef, lambda folder: build(config, digits, 0, folder))


def train(model: ModelRef, data: DatasetRef, folder: Path, **settings: Any) -> TrainedRef:
    folder.mkdir(exist_ok=True)
    return training.train(TrainingConfig(**GRAPH | settings), model, data, folder)


@pytest.mark.slow
def test_all_parts_of_a_recipe_train_together_and_are_in_the_record(
    model: ModelRef, digits: DatasetRef, tmp_path: Path
) -> None:
    made = train(
        model,
        digits,
        tmp_path,
        epochs=6,
        loss={"class_name": "CategoricalFocalCrossentropy", "config": {"label_smoothing": 0.05}},
        class_weight="balanced",
        ema=0.9,
        warmup_epochs=1,
        schedule="CosineDecay",
        metrics=["AUC", "TopKCategoricalAccuracy", "recipe_parts:confidence"],
        monitor="val_auc",
        callbacks=[{"class_name": "recipe_parts:StopAfter", "config": {"epochs": 5}}],
    )
    assert made.epochs == 5
    figures = [epoch.model_dump() for epoch in made.history]
    assert made.best_epoch == 1 + int(np.argmax([each["val_auc"] for each in figures]))
    assert TrainedRef.model_validate_json(made.model_dump_json()) == made
    network = keras.models.load_model(tmp_path / "model.keras")
    images, labels = (np.array(each) for each in images_and_labels(digits, "validation"))
    logits = network.predict(images, verbose=0)
    one_hot = keras.utils.to_categorical(labels, 10)
    network.compile(
        loss=keras.losses.CategoricalFocalCrossentropy(label_smoothing=0.05, from_logits=True),
        metrics=[keras.metrics.TopKCategoricalAccuracy()],
    )
    expected = network.evaluate(images, one_hot, verbose=0, return_dict=True)
    best = figures[made.best_epoch - 1]
    # The averaged weights are evaluated, and shipped. Float32 means over 32 images at a time, against sums over all.
    assert best["val_loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert best["val_top_k_categorical_accuracy"] == pytest.approx(expected["top_k_categorical_accuracy"], rel=1e-6)
    write_card(TrainingConfig(), made, digits, tmp_path)
    assert "| validation auc | validation top k categorical accuracy |" in (tmp_path / "card.md").read_text()
    assert best["val_confidence"] == pytest.approx(float(softmax(logits).max(axis=-1).mean()), rel=1e-5)


@pytest.mark.drill
@pytest.mark.slow
@pytest.mark.process
def test_two_replicas_have_the_losses_and_averages_of_one() -> None:
    """In a process of its own: the number of devices is fixed before TensorFlow's first operation."""
    done = forked.run(
        [sys.executable, forked.PROGRAMS / "recipe_replicas.py"], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
