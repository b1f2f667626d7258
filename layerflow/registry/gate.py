"""Whether a verified model may take the champion's place: floors, a ceiling, a paired comparison, two rules."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binomtest

from layerflow.outcomes import Code, Comparison, Side
from layerflow.records import Evaluation, Verification
from layerflow.settings.gate import GateConfig

#: Level of the paired test, and of what lies outside the interval.
LEVEL = 0.05
_RESAMPLES = 10_000


class Verdict(NamedTuple):
    """What is decided, and why in words."""

    code: Code
    reason: str


def mcnemar(only_one: int, only_other: int) -> float:
    """Two-sided p value of the exact McNemar test, from the examples that only one of two models got right.

    If neither were better, each of them would be a toss of a fair coin.

    References:
        McNemar, Note on the sampling error of the difference between correlated proportions or percentages (1947).
    """
    either = only_one + only_other
    return float(binomtest(only_one, either, 0.5).pvalue) if either else 1.0


def p_text(p_value: float) -> str:
    """``p = 0.011``, and ``p < 1e-99`` where more digits would say nothing."""
    return "p < 1e-99" if p_value < 1e-99 else f"p = {p_value:.2g}"


def difference_interval(both: int, only_one: int, only_other: int, neither: int, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the difference between two models' accuracies, by a paired bootstrap over the examples.

    An example counts +1, -1 or 0; drawing examples with replacement is drawing those three numbers from a multinomial.

    References:
        Efron and Tibshirani, An introduction to the bootstrap (1993), chapter 13.
    """
    examples = both + only_one + only_other + neither
    shares = [only_one / examples, only_other / examples, (both + neither) / examples]
    drawn = np.random.default_rng(seed).multinomial(examples, shares, size=_RESAMPLES)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / examples, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def compare(champion_version: int, report: Mapping[str, Any]) -> Comparison:
    """The statistics of what the verifying process counted."""
    counts = {name: report[name] for name in ("both_right", "only_challenger", "only_champion", "both_wrong")}
    low, high = difference_interval(*counts.values())
    return Comparison(
        champion_version=champion_version,
        champion=Side(**report["champion"]),
        challenger=Side(**report["challenger"]),
        **counts,
        p_value=mcnemar(counts["only_challenger"], counts["only_champion"]),
        difference=(counts["only_challenger"] - counts["only_champion"]) / sum(counts.values()),
        difference_low=low,
        difference_high=high,
    )


def above_majority(examples: Sequence[int], right: Sequence[int]) -> float:
    """One-sided p value that a model is no better than always answering the most frequent class.

    The exact McNemar test of the two, paired by example: only the model is right on the examples of other classes that
    it recognized, only the constant answer on those of the most frequent class that the model missed.

    Args:
        examples: The test examples of each class.
        right: Those of them that the model recognized.
    """
    majority = int(np.argmax(examples))
    only_model, only_constant = sum(right) - right[majority], examples[majority] - right[majority]
    either = only_model + only_constant
    return float(binomtest(only_model, either, 0.5, alternative="greater").pvalue) if either else 1.0


def disagreement(evaluation: Evaluation, verification: Verification) -> str | None:
    """Where the evaluation says something else than what the verification counted, or nothing.

    They may differ on ties alone, which rounding breaks either way.
    """
    classes = evaluation.per_class
    counts = tuple(score.examples for score in classes)
    if (evaluation.test_examples, counts) != (verification.test_examples, verification.class_examples):
        return "the numbers of test examples differ"
    right, slack = verification.class_right, verification.ties + 1e-6
    if not abs(evaluation.accuracy * evaluation.test_examples - sum(right)) <= slack:  # not so of what is no number
        return f"the accuracy is {evaluation.accuracy:.4f}, and the verified one is {verification.test_accuracy:.4f}"
    if not abs(verification.test_accuracy * verification.test_examples - sum(right)) <= 1e-6:
        return f"the verified accuracy {verification.test_accuracy:.4f} is not that of the verified answers"
    for score, recognized in zip(classes, right, strict=True):
        if not abs(score.recall * score.examples - recognized) <= slack:
            return f"class {score.name} has recall {score.recall:.4f}, and {recognized} of {score.examples} are right"
    return None


def below_floor(gate: GateConfig, evaluation: Evaluation, verification: Verification) -> str | None:
    """Which floor the model does not reach, by its verified answers, or nothing."""
    figures = {
        "accuracy": evaluation.accuracy,
        "loss": evaluation.loss,
        "verified accuracy": verification.test_accuracy,
        "latency": verification.latency_p99_ms,
        **{f"recall of class {score.name}": score.recall for score in evaluation.tested},
    }
    for name, figure in figures.items():
        if not math.isfinite(figure):
            return f"its {name} is {figure}, which is no figure"
    if verification.test_examples < gate.min_test_examples:
        return f"{verification.test_examples} test examples are below gate.min_test_examples {gate.min_test_examples}"
    if verification.test_accuracy < gate.min_accuracy:
        return f"accuracy {verification.test_accuracy:.4f} is below gate.min_accuracy {gate.min_accuracy}"
    return _below_class_floor(gate, evaluation, verification) or _not_above_baseline(gate, evaluation, verification)


def _below_class_floor(gate: GateConfig, evaluation: Evaluation, verification: Verification) -> str | None:
    names = [score.name for score in evaluation.per_class]
    counts = zip(
        names, verification.class_examples, verification.class_right, verification.class_predicted, strict=True
    )
    judged = [
        (right / all_, name, predicted) for name, all_, right, predicted in counts if all_ >= gate.min_class_examples
    ]
    recall, name, predicted = min(judged, default=(1.0, "", 0))
    if recall >= gate.min_class_recall:
        return None
    never = "" if predicted else ", which it never predicts,"
    return f"recall {recall:.4f} of class {name}{never} is below gate.min_class_recall {gate.min_class_recall}"


def _not_above_baseline(gate: GateConfig, evaluation: Evaluation, verification: Verification) -> str | None:
    p_value = above_majority(verification.class_examples, verification.class_right)
    if gate.baseline == "none" or p_value < LEVEL:
        return None
    return (
        f"accuracy {verification.test_accuracy:.4f} is not significantly better than {evaluation.baseline:.4f}, which "
        f"always answering {evaluation.majority.name} gives (exact one-sided McNemar {p_text(p_value)}), as "
        "gate.baseline majority asks"
    )


def too_slow(gate: GateConfig, found: Comparison) -> str | None:
    """Why the model is above the latency ceiling, or nothing."""
    champion, challenger = found.champion.latency_p99_ms, found.challenger.latency_p99_ms
    ratio = challenger / champion if champion else math.inf
    if gate.max_latency_ratio is None or ratio <= gate.max_latency_ratio:
        return None
    return (
        f"its latency p99 is {ratio:.2f} times that of champion {found.champion_version}, "
        f"above gate.max_latency_ratio {gate.max_latency_ratio}"
    )


def judge(gate: GateConfig, found: Comparison) -> Verdict:
    """Apply the rule to a comparison; floors and ceilings are not its business, for ``gate.force`` may overrule it."""
    champion, challenger = found.champion, found.challenger
    accuracies = (
        f"accuracy {challenger.accuracy:.4f} against {champion.accuracy:.4f} of champion {found.champion_version} "
        f"(difference {found.difference:+.4f}, 95 % interval {found.difference_low:+.4f} to "
        f"{found.difference_high:+.4f}, McNemar {p_text(found.p_value)})"
    )
    significant = found.p_value < LEVEL
    if significant and found.difference > 0:
        return Verdict("promoted_better", f"better: {accuracies}")
    if significant:
        return Verdict("kept_worse", f"worse: {accuracies}")
    if gate.rule == "better":
        return Verdict("kept_within_noise", f"not better than noise explains, as gate.rule better asks: {accuracies}")
    # Counted in examples: a difference of exactly the margin must not hang on a float's last bit.
    examples = found.both_right + found.only_challenger + found.only_champion + found.both_wrong
    if found.only_champion - found.only_challenger > gate.margin * examples + 1e-6:
        return Verdict("kept_worse", f"less accurate by more than gate.margin {gate.margin}: {accuracies}")
    return Verdict("promoted_not_worse", f"not worse: {accuracies}")
