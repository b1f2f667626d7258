"""The gate's figures against scikit-learn's, and its paired test against SciPy's, statsmodels' and brute force."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from layerflow.errors import ConfigError
from layerflow.evaluation.metrics import cost_matrix, make_metric
from layerflow.evaluation.paired import compare_figures
from layerflow.evaluation.statistics import holm, mcnemar
from layerflow.records import DatasetRef
from layerflow.settings.gate import GateConfig
from tasks.gate_metric import require_metric

CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox")
COSTS = {"ant": {"bee": 20.0, "ant": 0.5}, "fox": {"cat": 0.0}}
Oracle = Callable[[np.ndarray, np.ndarray], float]
PRESENT = [0, 1, 2, 3, 4]  # no image is a fox

ORACLES: dict[str, Oracle] = {
    "accuracy": lambda labels, p: metrics.accuracy_score(labels, p.argmax(-1)),
    "balanced_accuracy": lambda labels, p: np.mean(
        metrics.recall_score(labels, p.argmax(-1), labels=PRESENT, average=None)
    ),
    "macro_f1": lambda labels, p: metrics.f1_score(labels, p.argmax(-1), labels=PRESENT, average="macro"),
    "recall:cat": lambda labels, p: metrics.recall_score(labels == 2, p.argmax(-1) == 2),
    "precision:dog": lambda labels, p: metrics.precision_score(labels == 3, p.argmax(-1) == 3),
    "precision:fox": lambda labels, p: metrics.precision_score(labels == 5, p.argmax(-1) == 5, zero_division=0),
    "top_1_accuracy": lambda labels, p: metrics.accuracy_score(labels, p.argmax(-1)),
    "top_2_accuracy": lambda labels, p: metrics.top_k_accuracy_score(labels, p, k=2, labels=range(6)),
    "log_loss": lambda labels, p: metrics.log_loss(labels, p, labels=range(6)),
    "auc": lambda labels, p: np.mean([metrics.roc_auc_score(labels == each, p[:, each]) for each in PRESENT]),
    "expected_cost": lambda labels, p: np.mean(
        [
            COSTS.get(CLASSES[true], {}).get(CLASSES[guess], float(true != guess))
            for true, guess in zip(labels, p.argmax(-1), strict=True)
        ]
    ),
}


def gate_of(name: str) -> GateConfig:
    return GateConfig(metric=name, costs=COSTS if name == "expected_cost" else None)


def answers(chance: np.random.Generator, labels: np.ndarray, skill: float, classes: int = len(CLASSES)) -> np.ndarray:
    """Probabilities of a model that is right the more often the greater its skill."""
    logits = chance.normal(size=(len(labels), classes)) + skill * np.eye(classes)[labels]
    return (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("name", ORACLES)
def test_each_figure_is_that_of_scikit_learn(name: str) -> None:
    metric = make_metric(gate_of(name), CLASSES)
    for seed in range(5):
        chance = np.random.default_rng(seed)
        labels = chance.choice(PRESENT, 200, p=[0.4, 0.3, 0.2, 0.07, 0.03])
        probabilities = answers(chance, labels, 1.5)
        assert metric(labels, probabilities) == pytest.approx(ORACLES[name](labels, probabilities), rel=1e-6)
    assert metric.is_maximized == (name not in ("log_loss", "expected_cost"))


def test_two_classes_are_scored_like_many() -> None:
    labels = np.random.default_rng(0).integers(0, 2, 100)
    probabilities = answers(np.random.default_rng(1), labels, 0.7, classes=2)
    found = make_metric(GateConfig(metric="auc"), ("no", "yes"))(labels, probabilities)
    assert found == pytest.approx(metrics.roc_auc_score(labels, probabilities[:, 1]))


def test_a_certain_mistake_costs_no_infinite_loss() -> None:
    metric = make_metric(GateConfig(metric="log_loss"), ("no", "yes"))
    found = metric(np.array([1]), np.array([[1, 0]], np.float32))
    assert found == pytest.approx(metrics.log_loss([1], np.array([[1, 0]], np.float32), labels=[0, 1]))


def test_costs_that_are_not_given_are_those_of_a_mistake() -> None:
    assert cost_matrix({"b": {"a": 20.0}}, ["a", "b"]).tolist() == [[0, 1], [20, 0]]


def right_or_wrong(right: list[bool]) -> np.ndarray:
    """Answers that are right or wrong about labels that are all 0."""
    return np.array([[0.9, 0.1] if each else [0.1, 0.9] for each in right], np.float32)


def test_of_accuracy_the_permutation_test_is_mcnemars() -> None:
    labels = np.zeros(40, int)
    ours, theirs = right_or_wrong([True] * 33 + [False] * 7), right_or_wrong([True] * 24 + [False] * 16)
    found = compare_figures(make_metric(GateConfig(), ("a", "b")), labels, ours, theirs)
    assert (found.ours, found.theirs, found.difference) == pytest.approx((33 / 40, 24 / 40, 9 / 40))
    # 9,999 resamples: three standard errors of a p value of 0.004.
    assert found.p_value == pytest.approx(mcnemar(9, 0), abs=0.002)


def test_the_permutation_test_swaps_the_answers_to_each_example() -> None:
    """All 2^8 ways to swap, by hand."""
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    ours, theirs = (answers(np.random.default_rng(seed), labels, skill, 3) for seed, skill in ((1, 2.0), (2, 0.0)))
    metric = make_metric(GateConfig(metric="macro_f1"), ("a", "b", "c"))
    differences = []
    for swapped in itertools.product([False, True], repeat=8):
        chosen = np.array(swapped)[:, None]
        one, other = np.where(chosen, theirs, ours), np.where(chosen, ours, theirs)
        differences.append(metric(labels, one) - metric(labels, other))
    observed = metric(labels, ours) - metric(labels, theirs)
    tail = np.mean(np.abs(differences) >= abs(observed) - 1e-9)
    found = compare_figures(metric, labels, ours, theirs)
    assert found.difference == pytest.approx(observed)
    # 9,999 of the 256 ways, at random: three standard errors.
    assert found.p_value == pytest.approx(tail, abs=3 * math.sqrt(tail * (1 - tail) / 9_999) + 1e-4)


@pytest.mark.parametrize("name", ["balanced_accuracy", "log_loss", "auc"])
def test_the_interval_is_that_of_drawing_examples_again(name: str) -> None:
    chance = np.random.default_rng(0)
    labels = chance.integers(0, 6, 150)
    ours, theirs = answers(chance, labels, 2.0), answers(chance, labels, 1.5)
    metric = make_metric(gate_of(name), CLASSES)
    drawn = []
    for _ in range(1_000):
        rows = chance.integers(0, 150, 150)
        drawn.append(metric(labels[rows], ours[rows]) - metric(labels[rows], theirs[rows]))
    low, high = np.quantile(drawn if metric.is_maximized else np.negative(drawn), [0.025, 0.975])
    found = compare_figures(metric, labels, ours, theirs)
    # The ends of 1,000 resamples: a tenth of the interval is four standard errors.
    assert (found.low, found.high) == pytest.approx((low, high), abs=(high - low) / 10)
    assert found.low < found.difference < found.high
    assert found == compare_figures(metric, labels, ours, theirs), "the seed decides"


def test_less_is_better_where_it_is() -> None:
    labels = np.random.default_rng(0).integers(0, 6, 100)
    good, bad = (answers(np.random.default_rng(1), labels, skill) for skill in (3.0, 0.5))
    found = compare_figures(make_metric(GateConfig(metric="log_loss"), CLASSES), labels, good, bad)
    assert found.ours < found.theirs
    assert found.difference == pytest.approx(found.theirs - found.ours)
    assert found.low > 0
    assert found.p_value < 0.01


def test_equally_good_models_differ_significantly_as_often_as_the_level_says() -> None:
    chance, metric = np.random.default_rng(0), make_metric(GateConfig(metric="balanced_accuracy"), CLASSES)
    few = metric._replace(resamples=199)
    significant = 0
    for _ in range(200):
        labels = chance.integers(0, 6, 60)
        ours, theirs = answers(chance, labels, 1.0), answers(chance, labels, 1.0)
        significant += compare_figures(few, labels, ours, theirs).p_value < 0.05
    assert significant <= 20  # of 200; more than 19 have a probability of 0.1 % at a level of 5 %


def test_the_same_answers_are_no_better() -> None:
    labels = np.array([0, 1, 2, 0])
    same = answers(np.random.default_rng(0), labels, 1.0, 3)
    found = compare_figures(make_metric(GateConfig(metric="log_loss"), ("a", "b", "c")), labels, same, same)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_holms_correction_has_the_figures_of_a_published_example() -> None:
    # Wright, Adjusted p-values for simultaneous inference, Biometrics 48 (1992): the rule, worked by hand.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_function_of_your_own_is_a_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "programs")
    metric = make_metric(GateConfig(metric="gate_metrics:share_of_sure_mistakes_error"), CLASSES)
    labels, probabilities = np.array([0, 0]), np.array([[0.95, 0.05], [0.04, 0.96]], np.float32)
    assert metric(labels, probabilities) == 0.5
    assert not metric.is_maximized
    for name, said in (
        ("gate_metrics:not_a_number", "must give a finite number of labels and probabilities, not nan"),
        ("gate_metrics:fails", "not ValueError: no such thing"),
    ):
        with pytest.raises(ConfigError, match=said):
            make_metric(GateConfig(metric=name), CLASSES)(labels, probabilities)
    with pytest.raises(ConfigError, match="is a class"):
        make_metric(GateConfig(metric="gate_metrics:Mine"), CLASSES)


@pytest.mark.parametrize("metric", ["recall:cow", "gate_metrics:missing", "nowhere_at_all:metric"])
def test_a_figure_that_can_not_be_computed_is_refused_before_the_training(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "programs")
    data = DatasetRef.model_construct(classes=CLASSES)
    with pytest.raises(ConfigError, match="must"):
        require_metric(GateConfig(metric=metric), data)
    require_metric(GateConfig(metric="gate_metrics:share_of_sure_mistakes_error"), data)


@pytest.mark.parametrize("name", ["recall:cow", "precision:"])
def test_a_class_that_the_data_lack_is_named(name: str) -> None:
    if name == "recall:cow":
        with pytest.raises(ConfigError, match=r"gate.metric must name classes of the data: ant, bee.* Received: cow"):
            make_metric(GateConfig(metric=name), CLASSES)
    else:
        with pytest.raises(ValueError, match="one of accuracy"):
            GateConfig(metric=name)


def test_costs_go_with_their_metric_and_name_classes() -> None:
    with pytest.raises(ValueError, match="costs together with metric expected_cost"):
        GateConfig(metric="expected_cost")
    with pytest.raises(ValueError, match="costs together with metric expected_cost"):
        GateConfig(costs=COSTS)
    for wrong in ("{}", '{"a": 1}', '{"a": {}}', '{"a": {"b": -1}}', '{"a": {"b": NaN}}', '{"a": {"b": true}}', "[1]"):
        with pytest.raises(ValueError, match="a map from true classes"):
            GateConfig(metric="expected_cost", costs=wrong)
    with pytest.raises(ConfigError, match=r"gate\.costs must name classes"):
        GateConfig(metric="expected_cost", costs='{"ant": {"cow": 2}}').require_classes(CLASSES)
    assert GateConfig(metric="expected_cost", costs='{"ant": {"bee": 2}}').costs == {"ant": {"bee": 2.0}}
    assert math.isclose(cost_matrix(COSTS, CLASSES)[0, 1], 20)
