"""A comparison by the figure that ``gate.metric`` names."""

import base64

import numpy as np
import pytest
from sklearn import metrics

from layerflow import store
from layerflow.data.arrays import images_and_labels
from layerflow.outcomes import Comparison
from layerflow.registry.comparison import compare, learned_by
from layerflow.registry.decision import rival_of
from layerflow.registry.figures import Answers, by_metric
from layerflow.registry.gate import judge
from layerflow.registry.receipt import Challenger
from layerflow.settings.gate import GateConfig
from tests.layerflow.conftest import VERIFIER, Decide
from tests.layerflow.registry.test_gate import counted

NAME = "mlp-digits"


def predictions(who: Challenger) -> np.ndarray:
    return np.load(store.path(who.evaluation.predictions), allow_pickle=False)


@pytest.mark.parametrize(
    ("metric", "oracle"),
    [
        ("balanced_accuracy", lambda labels, p: metrics.balanced_accuracy_score(labels, p.argmax(-1))),
        ("log_loss", metrics.log_loss),
        ("recall:3", lambda labels, p: metrics.recall_score(labels == 3, p.argmax(-1) == 3)),
        ("expected_cost", lambda labels, p: 1 - metrics.accuracy_score(labels, p.argmax(-1))),
    ],
)
def test_both_models_are_scored_by_the_figure_as_they_ship(
    decide: Decide, contenders: dict[str, Challenger], shelf: object, metric: str, oracle: object
) -> None:
    decide("poor")
    gate = GateConfig(metric=metric, costs={"3": {"4": 1.0}} if metric == "expected_cost" else None)
    good, poor = contenders["good"], contenders["poor"]
    found = compare(gate, good, rival_of(NAME, 1), lambda: learned_by(good), VERIFIER)
    assert isinstance(found, Comparison)
    labels = np.asarray(images_and_labels(good.data, "test")[1])
    expected = [oracle(labels, predictions(who)) for who in (poor, good)]  # type: ignore[operator]
    assert found.scores == pytest.approx(expected, abs=1e-4)  # what the verifier allows probabilities to differ by
    assert found.difference == pytest.approx(abs(expected[1] - expected[0]), abs=1e-4), "the good one is better"
    assert found.difference_low > 0
    assert (found.method, found.p_value < 0.01) == ("paired permutation test", True)
    assert found.champion.accuracy == poor.evaluation.accuracy, "the accuracy is there too"


def test_the_decision_is_by_the_figure(decide: Decide, contenders: dict[str, Challenger]) -> None:
    decide("poor")
    made = decide("good", metric="macro_f1")
    assert made.code == "promoted_better"
    assert made.reason.startswith("better: macro F1 0.9")
    assert "paired permutation test p = 0.0001" in made.reason
    assert decide("poor", metric="macro_f1").code == "kept_worse"


def test_a_model_beyond_the_worst_figure_is_below_a_floor(decide: Decide, contenders: dict[str, Challenger]) -> None:
    made = decide("good", metric="log_loss", worst_metric=0.01)
    assert (made.code, made.reason.split(" ")[:2]) == ("kept_below_floor", ["log", "loss"])
    assert made.reason.endswith("is above gate.worst_metric 0.01")
    metric = f"recall:{contenders['good'].evaluation.worst.name}"
    made = decide("good", metric=metric, worst_metric=0.999)
    assert made.reason.endswith("is below gate.worst_metric 0.999")
    assert decide("good", metric=metric, worst_metric=0.5).code == "promoted_first"


def sent(probabilities: np.ndarray) -> dict[str, object]:
    content = base64.b64encode(probabilities.astype("<f4").tobytes()).decode()
    return {"shape": list(probabilities.shape), "content": content}


def test_answers_of_other_classes_come_into_common_columns() -> None:
    ours, theirs = np.array([[0.1, 0.2, 0.7]]), np.array([[0.6, 0.4]])
    answers = {"challenger": sent(ours), "champion": sent(theirs)}
    found = Answers.of(np.array([2]), answers, ("ant", "bee", "cat"), ("cow", "ant"))
    assert found.classes == ("ant", "bee", "cat", "cow")
    assert found.ours[0].tolist() == pytest.approx([0.1, 0.2, 0.7, 0])
    assert found.theirs[0].tolist() == pytest.approx([0.4, 0, 0, 0.6])


def test_the_recall_of_a_class_without_test_images_is_not_compared() -> None:
    labels = np.repeat([0, 1], [50, 9])
    same = np.eye(2, dtype=np.float32)[labels]
    answers = Answers(labels, same, same, ("cat", "dog"))
    assert by_metric(GateConfig(metric="recall:dog"), counted(59, 0, 0, 0), answers) == (
        "only 9 of the common test images are of class dog, whose recall is compared; gate.min_class_examples is 10"
    )
    assert isinstance(by_metric(GateConfig(metric="recall:cat"), counted(59, 0, 0, 0), answers), Comparison)


def test_the_margin_is_of_the_figure() -> None:
    worse = counted(900, 40, 50, 10).model_copy(
        update={"metric": "log loss", "method": "paired permutation test", "difference": -0.02, "p_value": 0.2}
    )
    assert judge(GateConfig(metric="log_loss", margin=0.02), worse).code == "promoted_not_worse"
    verdict = judge(GateConfig(metric="log_loss", margin=0.019), worse)
    assert verdict.code == "kept_worse"
    assert "worse by more than gate.margin 0.019: log loss" in verdict.reason
    assert "improvement -0.0200" in verdict.reason
