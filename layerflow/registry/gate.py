"""Whether a verified model may take the champion's place: floors, a ceiling, a paired comparison, two rules."""

import math
from collections.abc import Collection
from typing import NamedTuple

from layerflow.evaluation.statistics import LEVEL, above_majority, p_text
from layerflow.outcomes import Comparison, DecisionCode
from layerflow.records import Evaluation, Verification
from layerflow.settings.gate import GateConfig

#: Room for rounding: a difference of exactly the margin must not hang on a float's last bit. Of a billion images, one
#: image is more.
_ROUNDING = 1e-9


class Verdict(NamedTuple):
    """The decision, and its reason as text."""

    code: DecisionCode
    reason: str


def disagreement(evaluation: Evaluation, verification: Verification) -> str | None:
    """Where the evaluation says something else than what the verification counted, or nothing.

    They may differ on ties alone, which rounding breaks either way.
    """
    classes = evaluation.per_class
    counts = tuple(score.examples for score in classes)
    if (evaluation.test_examples, counts) != (verification.test_examples, verification.class_examples):
        return "the numbers of test examples differ"
    right, slack = verification.class_right, verification.ties + 1e-6
    if not abs(evaluation.accuracy * evaluation.test_examples - sum(right)) <= slack:  # NaN fails too
        return f"the accuracy is {evaluation.accuracy:.4f}, and the verified one is {verification.test_accuracy:.4f}"
    if not abs(verification.test_accuracy * verification.test_examples - sum(right)) <= 1e-6:
        return f"the verified accuracy {verification.test_accuracy:.4f} is not that of the verified answers"
    for score, recognized in zip(classes, right, strict=True):
        if not abs(score.recall * score.examples - recognized) <= slack:
            return f"class {score.name} has recall {score.recall:.4f}, and {recognized} of {score.examples} are right"
    return _slices_disagree(evaluation, verification)


def _slices_disagree(evaluation: Evaluation, verification: Verification) -> str | None:
    slices, sizes = evaluation.slices, tuple(score.examples for score in evaluation.slices)
    if sizes != verification.slice_examples or len(sizes) != len(verification.slice_right):
        return "the numbers of test examples of the slices differ"
    for score, recognized in zip(slices, verification.slice_right, strict=True):
        if abs(score.right - recognized) > verification.ties:
            return f"of slice {score.name} {score.right} of {score.examples} are right, and {recognized} verified"
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
            return f"its {name} is {figure}, which is not a number"
    if verification.test_examples < gate.min_test_examples:
        return f"{verification.test_examples} test examples are below gate.min_test_examples {gate.min_test_examples}"
    if verification.test_accuracy < gate.min_accuracy:
        return f"accuracy {verification.test_accuracy:.4f} is below gate.min_accuracy {gate.min_accuracy}"
    return (
        _below_class_floor(gate, evaluation, verification)
        or _below_slice_floor(gate, evaluation, verification)
        or _not_above_baseline(gate, evaluation, verification)
    )


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


def _below_slice_floor(gate: GateConfig, evaluation: Evaluation, verification: Verification) -> str | None:
    if not gate.min_slice:
        return None
    counts = zip(evaluation.slices, verification.slice_examples, verification.slice_right, strict=True)
    fewest = gate.min_slice_examples
    judged = [(right / all_, score.name, right, all_) for score, all_, right in counts if all_ >= fewest]
    if not judged:
        return f"no slice has gate.min_slice_examples {fewest} test images, so that gate.min_slice can't be checked"
    accuracy, name, right, all_ = min(judged)
    if accuracy >= gate.min_slice:
        return None
    return f"accuracy {accuracy:.4f} of slice {name} ({right} of {all_}) is below gate.min_slice {gate.min_slice}"


def below_new_class_floor(
    gate: GateConfig, evaluation: Evaluation, verification: Verification, known: Collection[str]
) -> str | None:
    """Which class that is not ``known`` to the champion does not reach the floor, however few examples it has."""
    for score, examples, right in zip(
        evaluation.per_class, verification.class_examples, verification.class_right, strict=True
    ):
        if score.name in known:
            continue
        if not examples:
            return f"class {score.name} is new and has no test image"
        if right / examples < gate.min_class_recall:
            recall = f"recall {right / examples:.4f} of the new class {score.name}"
            return f"{recall} is below gate.min_class_recall {gate.min_class_recall}"
    return None


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
        f"its latency p99 is {ratio:.2f} times that of version {found.champion_version}, "
        f"above gate.max_latency_ratio {gate.max_latency_ratio}"
    )


def judge(gate: GateConfig, found: Comparison) -> Verdict:
    """Apply the rule to a comparison; floors and ceilings are not its business, for ``gate.force`` may overrule it."""
    champion, challenger = found.scores
    figures = (
        f"{found.metric} {challenger:.4f} against {champion:.4f} of version {found.champion_version} "
        f"({found.difference_word} {found.difference:+.4f}, 95 % interval {found.difference_low:+.4f} to "
        f"{found.difference_high:+.4f}, {found.method} {p_text(found.p_value)})"
    )
    significant = found.p_value < LEVEL
    if significant and found.difference > 0:
        return Verdict("promoted_better", f"better: {figures}")
    if significant:
        return Verdict("kept_worse", f"worse: {figures}")
    if gate.rule == "better":
        return Verdict("kept_within_noise", f"not better than noise explains, as gate.rule better asks: {figures}")
    if found.difference < -gate.margin - _ROUNDING:
        return Verdict("kept_worse", f"worse by more than gate.margin {gate.margin}: {figures}")
    return Verdict("promoted_not_worse", f"not worse: {figures}")


def in_slices(verdict: Verdict, found: Comparison) -> Verdict:
    """Keep a model that is significantly worse in a slice, however good it is on the whole."""
    worse = [each for each in found.slices if each.p_value < LEVEL and each.difference < 0]
    if not worse or not verdict.code.startswith("promoted"):
        return verdict
    worst = min(worse, key=lambda each: (each.p_value, each.difference))
    more = f", and worse in {len(worse) - 1} more" if len(worse) > 1 else ""
    figures = f"{found.metric} {worst.challenger:.4f} against {worst.champion:.4f} on its {worst.examples:,} images"
    reason = f"worse in the slice {worst.name}: {figures} (Holm-corrected {p_text(worst.p_value)}){more}"
    return Verdict("kept_worse", f"{reason}; on the whole it is {verdict.reason}")


def against_best(gate: GateConfig, verdict: Verdict, best: Comparison) -> Verdict:
    """Keep a model that is worse than the best version, though no worse than the live one: no decline adds up."""
    if verdict.code != "promoted_not_worse":
        return verdict
    measured = judge(gate.model_copy(update={"rule": "not_worse"}), best)
    if not measured.code.startswith("kept"):
        return verdict
    return Verdict("kept_worse", f"{verdict.reason}; but against the best version it is {measured.reason}")
