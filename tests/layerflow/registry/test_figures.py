"""A comparison by the figure that ``gate.metric`` names."""

import base64

import numpy as np
import pytest
from sklearn import metrics

from layerflow import store
from layerflow.data.arrays import images_and_labels
from layerflow.data.slices import Slices
from layerflow.evaluation.statistics import mcnemar
from layerflow.outcomes import Comparison
from layerflow.registry.comparison import compare, learned_by
from layerflow.registry.decision import rival_of
from layerflow.registry.figures import Answers, by_metric
from layerflow.registry.gate import Verdict, in_slices, judge
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
    none = Slices((), np.empty((59, 0), np.int32))
    assert by_metric(GateConfig(metric="recall:dog"), counted(59, 0, 0, 0), answers, none) == (
        "only 9 of the common test images are of class dog, whose recall is compared; gate.min_class_examples is 10"
    )
    assert isinstance(by_metric(GateConfig(metric="recall:cat"), counted(59, 0, 0, 0), answers, none), Comparison)


def test_the_margin_is_of_the_figure() -> None:
    worse = counted(900, 40, 50, 10).model_copy(
        update={"metric": "log loss", "method": "paired permutation test", "difference": -0.02, "p_value": 0.2}
    )
    assert judge(GateConfig(metric="log_loss", margin=0.02), worse).code == "promoted_not_worse"
    verdict = judge(GateConfig(metric="log_loss", margin=0.019), worse)
    assert verdict.code == "kept_worse"
    assert "worse by more than gate.margin 0.019: log loss" in verdict.reason
    assert "improvement -0.0200" in verdict.reason


def one_camera_failed(metric: str = "accuracy") -> Comparison:
    """The live version misses a tenth of camera a, the new model 30 of the 100 images of camera b."""
    labels, cameras = np.zeros(400, int), np.repeat([0, 1, 2], [200, 100, 100])
    theirs_wrong = ours_wrong = np.arange(400) < 20
    ours_wrong = ours_wrong | ((np.arange(400) >= 200) & (np.arange(400) < 230))
    ours_wrong[:20] = False
    ours, theirs = (np.eye(2, dtype=np.float32)[wrong.astype(int)] for wrong in (ours_wrong, theirs_wrong))
    slices = Slices((("camera", "a"), ("camera", "b"), ("camera", "")), cameras[:, None].astype(np.int32))
    gate = GateConfig(metric=metric)
    found = by_metric(gate, counted(350, 20, 30, 0), Answers(labels, ours, theirs, ("no", "yes")), slices)
    assert isinstance(found, Comparison)
    return found


def test_each_slice_is_compared_with_a_p_value_corrected_for_their_number() -> None:
    a, b, rest = one_camera_failed().slices
    assert [each.name for each in (a, b, rest)] == ["camera=a", "camera=b", "camera not given"]
    assert [each.examples for each in (a, b, rest)] == [200, 100, 100]
    assert (a.champion, a.challenger, b.champion, b.challenger) == pytest.approx((0.9, 1, 1, 0.7))
    assert (a.difference, b.difference, rest.difference) == pytest.approx((0.1, -0.3, 0))
    # Holm, by hand: the smallest of three times 3, the next times 2.
    assert b.p_value == pytest.approx(3 * mcnemar(0, 30))
    assert a.p_value == pytest.approx(2 * mcnemar(20, 0))
    assert rest.p_value == 1
    assert one_camera_failed("log_loss").slices[1].p_value == pytest.approx(3 / 10_000)


def test_a_slice_that_got_worse_keeps_a_model_that_is_no_worse_on_the_whole() -> None:
    found = one_camera_failed()
    verdict = in_slices(Verdict("promoted_not_worse", "not worse: as good"), found)
    assert verdict.code == "kept_worse"
    assert verdict.reason == (
        "worse in the slice camera=b: accuracy 0.7000 against 1.0000 on its 100 images (Holm-corrected p = 5.6e-09); "
        "on the whole it is not worse: as good"
    )
    kept = Verdict("kept_within_noise", "no better")
    assert in_slices(kept, found) == kept
    better = found.model_copy(update={"slices": found.slices[::2]})
    assert in_slices(Verdict("promoted_better", "better"), better).code == "promoted_better"


def test_slices_of_few_images_are_not_compared() -> None:
    labels = np.zeros(60, int)
    right, wrong = (np.eye(2, dtype=np.float32)[np.full(60, each)] for each in (0, 1))
    slices = Slices((("night", "1"), ("night", "2")), np.repeat([0, 1], [29, 31])[:, None].astype(np.int32))
    found = by_metric(GateConfig(), counted(0, 0, 60, 0), Answers(labels, wrong, right, ("no", "yes")), slices)
    assert isinstance(found, Comparison)
    assert [each.name for each in found.slices] == ["night=2"]


def test_a_planted_failure_of_one_camera_keeps_the_live_version(
    decide: Decide, sliced: Challenger, contenders: dict[str, Challenger]
) -> None:
    """The live version knows the camera's images; to the new model they are as if it always answered at random."""
    poor = contenders["poor"]._replace(data=sliced.data)
    decide("good")
    gate = GateConfig(margin=1)
    found = compare(gate, poor, rival_of(NAME, 1), lambda: learned_by(poor), VERIFIER)
    assert isinstance(found, Comparison)
    assert [each.name for each in found.slices] == ["camera=left", "camera=middle", "camera=right", "night not given"]
    left, middle = found.slices[:2]
    assert left.champion > 0.9 > left.challenger
    assert middle.p_value > left.p_value, "black images are as good as nothing to both"
    assert in_slices(Verdict("promoted_not_worse", ""), found).reason.startswith("worse in the slice ")
