"""Whether a verified model may take the champion's place: floors, a paired comparison, two rules."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binomtest

from layerflow.config import GateConfig
from layerflow.records import Code, Comparison, Evaluation, Side, Verification

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


def below_floor(gate: GateConfig, evaluation: Evaluation, verification: Verification) -> str | None:
    """Which floor the model does not reach, or nothing."""
    recalls = {score.name: score.recall for score in evaluation.per_class if score.examples}
    figures = {
        "accuracy": evaluation.accuracy,
        "loss": evaluation.loss,
        "verified accuracy": verification.test_accuracy,
        "latency": verification.latency_p99_ms,
        **{f"recall of class {name}": recall for name, recall in recalls.items()},
    }
    for name, figure in figures.items():
        if not math.isfinite(figure):
            return f"its {name} is {figure}, which is no figure"
    if evaluation.test_examples < gate.min_test_examples:
        return f"{evaluation.test_examples} test examples are below gate.min_test_examples {gate.min_test_examples}"
    if evaluation.accuracy < gate.min_accuracy:
        return f"accuracy {evaluation.accuracy:.4f} is below gate.min_accuracy {gate.min_accuracy}"
    worst = min(recalls, key=lambda name: recalls[name])
    if recalls[worst] < gate.min_class_recall:
        return f"recall {recalls[worst]:.4f} of class {worst} is below gate.min_class_recall {gate.min_class_recall}"
    return None


def judge(gate: GateConfig, found: Comparison) -> Verdict:
    """Apply the latency ceiling, and the rule, to a comparison."""
    champion, challenger = found.champion, found.challenger
    ratio = challenger.latency_p99_ms / champion.latency_p99_ms
    if gate.max_latency_ratio is not None and not ratio <= gate.max_latency_ratio:
        return Verdict(
            "kept_too_slow",
            f"its latency p99 is {ratio:.2f} times that of champion {found.champion_version}, "
            f"above gate.max_latency_ratio {gate.max_latency_ratio}",
        )
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
