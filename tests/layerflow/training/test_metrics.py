"""Metrics beside loss and accuracy: against Keras, over workers, and in a training."""

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from layerflow.errors import ConfigError
from layerflow.models.predict import softmax
from layerflow.settings.training import METRICS, TrainingConfig, is_maximized
from layerflow.training.metrics import make_metrics

sys.path.append(str(Path(__file__).resolve().parents[2] / "programs"))  # for good: what is named there is imported once

CLASSES = ("cat", "dog", "fox", "owl")
LABELS = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 2], np.int32)
LOGITS = np.random.default_rng(1).normal(0, 2, (len(LABELS), len(CLASSES))).astype(np.float32)
ONE_HOT = np.eye(len(CLASSES), dtype=np.float32)[LABELS]


@pytest.mark.parametrize("name", [*METRICS, "recipe_parts:confidence"])
def test_each_metric_has_the_figure_of_keras_for_probabilities(name: str) -> None:
    needed = {
        "F1Score": {"average": "macro"},
        "FBetaScore": {"average": "weighted", "beta": 2.0},
        "OneHotMeanIoU": {"num_classes": 4},
        "PrecisionAtRecall": {"recall": 0.5},
        "RecallAtPrecision": {"precision": 0.5},
        "SensitivityAtSpecificity": {"specificity": 0.5},
        "SpecificityAtSensitivity": {"sensitivity": 0.5},
        "TopKCategoricalAccuracy": {"k": 2},
    }.get(name, {})
    config = TrainingConfig(metrics=[{"class_name": name, "config": needed}])
    metrics = make_metrics(config, len(CLASSES))
    (figure,) = config.figures[4:]
    if ":" in name:
        expected = softmax(LOGITS).max(axis=-1).mean()
    else:
        oracle = getattr(keras.metrics, name)(**needed)
        oracle.update_state(ONE_HOT, softmax(LOGITS))
        expected = float(oracle.result())
    for _ in range(2):  # nothing is left of the first time
        assert metrics.figures(LABELS, LOGITS, list) == {figure: pytest.approx(expected, rel=1e-6)}


def test_metrics_that_keras_lacks_are_those_of_scikit_learn() -> None:
    costs = [[0, 1, 1, 5], [1, 0, 1, 1], [20, 2, 0, 1], [1, 1, 1, 0]]
    config = TrainingConfig(metrics=["balancedaccuracy", {"class_name": "ExpectedCost", "config": {"costs": costs}}])
    guessed = LOGITS.argmax(-1)
    expected = {
        "val_balancedaccuracy": balanced_accuracy_score(LABELS, guessed),
        "val_expected_cost": np.array(costs)[LABELS, guessed].mean(),
    }
    found = make_metrics(config, len(CLASSES)).figures(LABELS, LOGITS, list)
    assert found == pytest.approx(expected, rel=1e-6)
    assert TrainingConfig(metrics=["BalancedAccuracy"], monitor="val_balanced_accuracy")
    assert is_maximized("val_balanced_accuracy")
    assert not is_maximized("val_expected_cost")


def test_metrics_are_summed_over_the_workers_as_keras_sums_them_over_replicas() -> None:
    forms = ["AUC", "Precision", "BalancedAccuracy", {"class_name": "F1Score", "config": {"average": "macro"}}]
    config = TrainingConfig(metrics=forms)
    whole = make_metrics(config, len(CLASSES)).figures(LABELS, LOGITS, list)
    told: list[list[list[float]]] = []
    for share in (slice(0, None, 2), slice(1, None, 2)):
        told.append([])
        make_metrics(config, len(CLASSES)).figures(
            LABELS[share], LOGITS[share], lambda own: told[-1].append(own) or own
        )
    sums = iter(np.sum([first, second], axis=0).tolist() for first, second in zip(*told, strict=True))
    shared = make_metrics(config, len(CLASSES)).figures(LABELS[:0], LOGITS[:0], lambda own: next(sums))
    assert shared == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        (["F1Score"], r'f1_score gives an array of shape \(4,\); .*\{"average": "macro"\}'),
        (["recipe_parts:Halve"], "training.metrics must name a Keras metric class, or a function of your own"),
        (
            [{"class_name": "ExpectedCost", "config": {"costs": [[0, 1], [1, 0]]}}],
            "must fit labels of 4 classes. val_expected_cost: `costs` must have 4 rows, .* Received: 2",
        ),
        (
            [{"class_name": "ExpectedCost", "config": {"costs": [0, 1]}}],
            "is refused by ExpectedCost: `costs` must be a square matrix",
        ),
        ([{"class_name": "PrecisionAtRecall"}], "training.metrics is refused by PrecisionAtRecall"),
    ],
)
def test_a_metric_that_can_not_be_used_is_one_sentence(metrics: list[Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        make_metrics(TrainingConfig(metrics=metrics), len(CLASSES))
    assert "\n" not in str(caught.value)


def test_what_is_better_is_read_from_the_name_as_keras_has_it() -> None:
    needed = {"num_classes": 4, "recall": 0.5, "precision": 0.5, "specificity": 0.5, "sensitivity": 0.5}
    for name in METRICS:
        if name == "OneHotMeanIoU" or "At" in name:
            continue  # made with arguments; each is better where it is higher
        metric = getattr(keras.metrics, name)()
        figure = TrainingConfig(metrics=[name]).figures[-1]
        assert is_maximized(figure) == (getattr(metric, "_direction", "up") == "up"), name
    assert needed
    assert is_maximized("val_accuracy")
    assert not is_maximized("val_loss")


def test_metrics_that_the_config_knows_are_in_keras() -> None:
    assert all(hasattr(keras.metrics, name) for name in METRICS)
