"""Evaluation against figures worked out by hand or by another library."""

from pathlib import Path

import keras
import numpy as np
import pytest

from layerflow import checksums, store
from layerflow.cards import evaluation as evaluation_card
from layerflow.data.arrays import images_and_labels
from layerflow.evaluation import evaluate
from layerflow.models.predict import cross_entropy, softmax
from layerflow.outcomes import Retrained


def test_figures_equal_those_counted_from_the_models_own_answers(first_run: Retrained) -> None:
    evaluation = first_run.evaluation
    network = keras.models.load_model(store.path(first_run.trained.keras))
    images, labels = images_and_labels(first_run.data, "test")
    logits = network(np.array(images)).numpy()
    predicted = logits.argmax(axis=-1)
    assert evaluation.test_examples == len(labels) == 360
    assert evaluation.accuracy == (predicted == labels).mean()
    reference = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert evaluation.loss == pytest.approx(float(reference(labels, logits)), rel=1e-5)
    for index, score in enumerate(evaluation.per_class):
        hits = int(((predicted == index) & (labels == index)).sum())
        assert score.examples == int((labels == index).sum())
        assert score.recall == pytest.approx(hits / score.examples)
        assert score.precision == pytest.approx(hits / (predicted == index).sum())
        assert evaluation.confusion[index][index] == hits
    assert sum(map(sum, evaluation.confusion)) == 360


def test_the_interval_is_wilsons(first_run: Retrained) -> None:
    evaluation = first_run.evaluation
    n, p, z = evaluation.test_examples, evaluation.accuracy, 1.959964
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * ((p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5)
    assert evaluation.accuracy_low == pytest.approx(centre - half, abs=1e-6)
    assert evaluation.accuracy_high == pytest.approx(centre + half, abs=1e-6)


def test_predictions_stay_on_disk(first_run: Retrained) -> None:
    predictions = np.load(store.path(first_run.evaluation.predictions), allow_pickle=False)
    assert predictions.shape == (360, 10)
    assert predictions.dtype == np.float32
    assert checksums.sha256(store.path(first_run.evaluation.predictions)) == first_run.evaluation.predictions_digest


def test_the_matrix_of_very_many_classes_is_beside_the_predictions_and_on_the_card(
    first_run: Retrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "_CLASSES", 9)
    found = evaluate.evaluate(first_run.trained, first_run.data, tmp_path)
    assert found.confusion == ()
    assert np.load(tmp_path / "confusion.npy", allow_pickle=False).tolist() == [
        list(row) for row in first_run.evaluation.confusion
    ]
    evaluation_card.write_card(found, first_run.trained, first_run.data, tmp_path)
    assert (tmp_path / "card.md").read_text() == store.path(first_run.evaluation.card).read_text()


def test_softmax_and_cross_entropy_stand_large_logits() -> None:
    logits = np.array([[1000.0, 0.0], [-1000.0, 0.0]], np.float32)
    np.testing.assert_array_equal(softmax(logits), [[1, 0], [0, 1]])
    assert cross_entropy(logits, np.array([0, 1])) == 0
    assert cross_entropy(logits, np.array([1, 0])) == 1000
