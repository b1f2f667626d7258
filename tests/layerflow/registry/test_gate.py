"""The gate's statistics against published figures, and its rules as a table."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from layerflow.evaluation.statistics import (
    above_majority,
    difference_interval,
    mcnemar,
    supported_looks,
)
from layerflow.outcomes import Comparison
from layerflow.records import ClassScore, Evaluation, Verification
from layerflow.registry.figures import comparison_of
from layerflow.registry.gate import below_floor, disagreement, judge, too_slow
from layerflow.registry.receipt import Challenger
from layerflow.settings.gate import GateConfig


def counted(both: int, challenger: int, champion: int, neither: int, slower: float = 1.0) -> Comparison:
    """A comparison of two models, from the examples that both, one or none of them got right."""
    examples = both + challenger + champion + neither

    def side(right: int, latency: float) -> dict[str, object]:
        accuracy = (both + right) / examples
        return {
            "accuracy": accuracy,
            "lowest_recall": accuracy,
            "lowest_class": "0",
            "latency_p50_ms": latency,
            "latency_p99_ms": latency,
        }

    return comparison_of(
        4,
        {
            "champion": side(champion, 1.0),
            "challenger": side(challenger, slower),
            "both_right": both,
            "only_challenger": challenger,
            "only_champion": champion,
            "both_wrong": neither,
        },
    )


def test_mcnemar_gives_the_figures_of_a_published_example() -> None:
    # Agresti, Categorical data analysis (2nd edition 2002), table 10.1: ratings of the prime minister, 1,600 people,
    # 86 and 150 who changed their mind. He gives z^2 = 17.36 for McNemar's test, z = -4.17.
    p_value = mcnemar(86, 150)
    z = (86 - 150) / math.sqrt(86 + 150)
    assert z**2 == pytest.approx(17.36, abs=0.005)
    assert p_value == pytest.approx(math.erfc(abs(z) / math.sqrt(2)), rel=0.25)  # exact against the normal tail
    # Small enough to count by hand: 1 against 7 in 8 fair tosses, 2 (1 + 8) / 256.
    assert mcnemar(1, 7) == pytest.approx(18 / 256)
    assert mcnemar(7, 1) == mcnemar(1, 7)
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == pytest.approx(1)


def test_wilsons_interval_has_the_figures_of_a_published_example() -> None:
    # Newcombe, Two-sided confidence intervals for the single proportion, Statistics in Medicine 17 (1998), table I:
    # 81 of 263 gives 0.2553 to 0.3662; 15 of 148 gives 0.0624 to 0.1605; 0 of 20 gives 0 to 0.1611.
    for right, examples, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        found = binomtest(right, examples).proportion_ci(confidence_level=0.95, method="wilson")
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_the_bootstrap_is_that_of_drawing_examples_again() -> None:
    both, challenger, champion, neither = 300, 24, 9, 27
    each = np.repeat([0, 1, -1, 0], [both, challenger, champion, neither])
    random = np.random.default_rng(1)
    means = [random.choice(each, each.size).mean() for _ in range(4_000)]
    found = difference_interval(both, challenger, champion, neither)
    # The ends of 4,000 and 10,000 resamples: standard errors of about 0.0005.
    assert found == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.003)
    assert found == difference_interval(both, challenger, champion, neither)


@pytest.mark.parametrize(
    ("gate", "counts", "code", "reason"),
    [
        # The worked example of the README: 10,000 examples.
        ({}, (9640, 124, 86, 150), "promoted_better", "better: accuracy 0.9764 against 0.9726 of version 4"),
        ({}, (9640, 100, 110, 150), "promoted_not_worse", "not worse: accuracy 0.9740 against 0.9750"),
        ({"rule": "better"}, (9640, 100, 110, 150), "kept_within_noise", "not better than noise explains"),
        ({"rule": "better"}, (9640, 124, 86, 150), "promoted_better", "exact McNemar p = 0.011"),
        ({}, (9640, 86, 124, 150), "kept_worse", "worse: accuracy 0.9726 against 0.9764"),
        ({"rule": "better"}, (9640, 86, 124, 150), "kept_worse", "worse: accuracy"),
        # Few examples: no test can tell, the margin can.
        ({}, (90, 2, 4, 4), "kept_worse", "worse by more than gate.margin 0.005"),
        ({"margin": 0.02}, (90, 2, 4, 4), "promoted_not_worse", "difference -0.0200"),
        ({}, (90, 4, 4, 2), "promoted_not_worse", "difference +0.0000"),
        ({"rule": "better"}, (90, 4, 4, 2), "kept_within_noise", "p = 1"),
        ({"rule": "better"}, (100, 0, 0, 0), "kept_within_noise", "p = 1"),
        ({"margin": 1.0}, (0, 0, 100, 0), "kept_worse", "p = 1.6e-30"),
    ],
)
def test_the_rules_decide_by_the_counts(
    gate: dict[str, object], counts: tuple[int, int, int, int], code: str, reason: str
) -> None:
    verdict = judge(GateConfig.model_validate(gate), counted(*counts))
    assert verdict.code == code
    assert reason in verdict.reason


def test_more_test_images_support_more_looks() -> None:
    # By hand: s^2 = 0.02 / 10,000, and exp(0.005^2 / (2 s^2)) = exp(6.25).
    assert supported_looks(counted(9_700, 100, 100, 100).deviation, 0.005) == math.floor(math.exp(6.25)) == 518
    assert supported_looks(counted(970, 10, 10, 10).deviation, 0.005) == 1
    assert supported_looks(counted(970, 0, 0, 30).deviation, 0.005) == 1_000_000, (
        "models that never disagree can't be lucky"
    )
    # The bound holds: the best of 518 models that are equally good, on 10,000 images of which two disagree on 2 %.
    chance = np.random.default_rng(0)
    tosses = chance.multinomial(10_000, [0.01, 0.01, 0.98], size=(200, 518))
    luck = (tosses[..., 0] - tosses[..., 1]).max(axis=1).mean() / 10_000
    assert 0.004 < luck < 0.005


def test_a_slower_model_is_above_the_ceiling_however_good() -> None:
    better = counted(800, 150, 10, 40, slower=1.6)
    assert too_slow(GateConfig(), better) is None
    assert too_slow(GateConfig(max_latency_ratio=2), better) is None
    slow = too_slow(GateConfig(max_latency_ratio=1.5), better)
    assert "1.60 times that of version 4, above gate.max_latency_ratio 1.5" in (slow or "")
    assert too_slow(GateConfig(max_latency_ratio=2), counted(800, 150, 10, 40, slower=math.nan))


#: What the confusion matrix of a network that answers "cup" to every image of an uneven folder says.
CUPS = ((62, 142, 10, 31), (0, 142, 0, 0), (0, 245, 0, 0))


def scored(
    examples: tuple[int, ...], right: tuple[int, ...], predicted: tuple[int, ...]
) -> tuple[Evaluation, Verification]:
    """An evaluation and a verification that agree on these counts by class."""
    total, accuracy = sum(examples), sum(right) / sum(examples)
    per_class = tuple(
        ClassScore(name=name, precision=0, recall=hits / count if count else 0, f1=0, examples=count)
        for name, count, hits in zip(("bowl", "cup", "fork", "jug"), examples, right, strict=False)
    )
    figures = {"accuracy": accuracy, "test_examples": total, "loss": 1.0, "per_class": per_class}
    counts = {"class_examples": examples, "class_right": right, "class_predicted": predicted, "ties": 0}
    verified = {"test_accuracy": accuracy, "test_examples": total, "latency_p99_ms": 1.0, **counts}
    return Evaluation.model_construct(None, **figures), Verification.model_construct(None, **verified)


def test_the_baseline_is_beaten_by_the_exact_paired_test() -> None:
    # By hand: 60 examples of the majority of which the model misses 4; of 40 others it gets 12, so 12 tosses of 16.
    by_hand = sum(math.comb(16, heads) for heads in range(12, 17)) / 2**16
    assert above_majority((60, 40), (56, 12)) == pytest.approx(by_hand)
    # The same from the answers themselves, one example at a time.
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    predicted = np.random.default_rng(3).permuted(labels)
    model, constant = predicted == labels, labels == 0
    alone = (model & ~constant).sum(), (constant & ~model).sum()
    oracle = binomtest(int(alone[0]), int(sum(alone)), alternative="greater").pvalue
    right = [int((model & (labels == each)).sum()) for each in range(3)]
    assert above_majority((50, 30, 20), right) == pytest.approx(oracle)
    examples, right, _ = CUPS
    assert above_majority(examples, right) == 1


def test_a_model_that_answers_one_class_is_below_two_floors_by_default() -> None:
    floor = below_floor(GateConfig(), *scored(*CUPS))
    assert floor == "recall 0.0000 of class bowl, which it never predicts, is below gate.min_class_recall 0.01"
    floor = below_floor(GateConfig(min_class_recall=0), *scored(*CUPS))
    assert "accuracy 0.5796 is not significantly better than 0.5796, which always answering cup gives" in (floor or "")
    assert below_floor(GateConfig(min_class_recall=0, baseline="none"), *scored(*CUPS)) is None


def test_a_little_better_than_the_baseline_is_not_better() -> None:
    chance = scored((62, 142, 10, 31), (2, 142, 1, 1), (2, 240, 1, 2))  # four tosses of four: p = 0.0625
    assert "not significantly better" in (below_floor(GateConfig(min_class_recall=0), *chance) or "")
    better = scored((62, 142, 10, 31), (3, 142, 1, 1), (3, 239, 1, 2))
    assert below_floor(GateConfig(min_class_recall=0), *better) is None


def test_a_class_of_too_few_examples_is_not_judged() -> None:
    few = scored((62, 142, 9, 31), (60, 140, 0, 30), (60, 150, 0, 30))
    assert below_floor(GateConfig(), *few) is None
    assert "of class fork" in (below_floor(GateConfig(min_class_examples=9), *few) or "")
    assert below_floor(GateConfig(min_class_examples=1000, min_class_recall=1), *few) is None


def test_the_verified_answers_decide_and_the_evaluation_must_agree() -> None:
    evaluation, verified = scored((60, 40), (50, 30), (60, 40))
    assert disagreement(evaluation, verified) is None
    assert "below gate.min_accuracy 0.9" in (
        below_floor(GateConfig(min_accuracy=0.9), evaluation.model_copy(update={"accuracy": 0.95}), verified) or ""
    )
    praised = {"accuracy": 0.81, "test_examples": 101, "per_class": evaluation.per_class[::-1]}
    for field, value in praised.items():
        assert disagreement(evaluation.model_copy(update={field: value}), verified), field
    assert disagreement(evaluation.model_copy(update={"accuracy": math.nan}), verified)
    for field, other in {"test_accuracy": 0.9, "class_right": (51, 30), "class_examples": (59, 41)}.items():
        assert disagreement(evaluation, verified.model_copy(update={field: other})), field
    # A tie may be broken either way.
    assert (
        disagreement(
            evaluation, verified.model_copy(update={"class_right": (51, 30), "test_accuracy": 0.81, "ties": 1})
        )
        is None
    )


def test_floors_name_the_figure_that_is_too_low(contenders: dict[str, Challenger]) -> None:
    poor = contenders["poor"]

    def floor(challenger: Challenger = poor, **gate: object) -> str | None:
        settings = {"baseline": "none", "min_class_recall": 0} | gate
        return below_floor(GateConfig.model_validate(settings), challenger.evaluation, challenger.verification)

    assert floor() is None
    assert below_floor(GateConfig(), contenders["good"].evaluation, contenders["good"].verification) is None
    assert "is below gate.min_accuracy 0.9" in (floor(min_accuracy=0.9) or "")
    assert "of class" in (floor(min_class_recall=0.9) or "")
    assert floor(min_test_examples=361) == "360 test examples are below gate.min_test_examples 361"


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("figure", ["accuracy", "loss", "recall", "verified", "latency"])
def test_a_figure_that_is_none_passes_no_floor(contenders: dict[str, Challenger], figure: str, broken: float) -> None:
    good = contenders["good"]
    evaluation, verification = good.evaluation, good.verification
    if figure == "recall":
        score = evaluation.per_class[3].model_copy(update={"recall": broken})
        evaluation = evaluation.model_copy(update={"per_class": (*evaluation.per_class[:3], score)})
    elif figure in ("accuracy", "loss"):
        evaluation = evaluation.model_copy(update={figure: broken})
    else:
        field = {"verified": "test_accuracy", "latency": "latency_p99_ms"}[figure]
        verification = verification.model_copy(update={field: broken})
    assert "which is not a number" in (below_floor(GateConfig(), evaluation, verification) or "")


def test_a_class_without_test_examples_is_no_collapse() -> None:
    absent = scored((62, 142, 0, 31), (60, 140, 0, 30), (60, 144, 1, 30))
    assert below_floor(GateConfig(min_class_recall=0.5, min_class_examples=1), *absent) is None
