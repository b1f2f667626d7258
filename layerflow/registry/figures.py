"""The figures of a comparison: by accuracy, by what ``gate.metric`` names, and slice by slice."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from layerflow import artifacts, store
from layerflow.data.arrays import labels_of
from layerflow.data.slices import Slices
from layerflow.evaluation.metrics import make_metric
from layerflow.evaluation.paired import METHOD, Metric, Paired, compare_figures
from layerflow.evaluation.statistics import difference_interval, holm, mcnemar
from layerflow.outcomes import Comparison, Side, SliceComparison
from layerflow.records import DatasetRef, Evaluation
from layerflow.settings.gate import GateConfig


class Answers(NamedTuple):
    """What two models answered to the same images.

    Attributes:
        labels: ``int32`` of shape ``(examples,)``.
        ours: The challenger's probabilities, ``float32`` of shape ``(examples, classes)``.
        theirs: The champion's.
        classes: The names of the classes: the challenger's, then those that the champion alone knows.
    """

    labels: np.ndarray
    ours: np.ndarray
    theirs: np.ndarray
    classes: tuple[str, ...]

    @classmethod
    def of(
        cls, labels: np.ndarray, sent: Mapping[str, Any], our_classes: Sequence[str], their_classes: Sequence[str]
    ) -> Self:
        """What the verifying process sent, each model's probabilities of its own classes, in common columns."""
        ours, theirs = (_decoded(sent[side]) for side in ("challenger", "champion"))
        classes = (*our_classes, *(name for name in their_classes if name not in our_classes))
        columns = [classes.index(name) for name in their_classes]
        wide, their_wide = (np.zeros((len(labels), len(classes)), np.float32) for _ in range(2))
        wide[:, : len(our_classes)], their_wide[:, columns] = ours, theirs
        return cls(labels, wide, their_wide, classes)

    def rows(self, chosen: np.ndarray) -> Self:
        """The answers to some of the images."""
        return self._replace(labels=self.labels[chosen], ours=self.ours[chosen], theirs=self.theirs[chosen])


def _decoded(sent: Mapping[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(sent["content"]), "<f4").reshape(sent["shape"])


def comparison_of(champion_version: int, report: Mapping[str, Any], **images: int | str) -> Comparison:
    """The statistics of what the verifying process counted.

    Args:
        **images: ``new``, ``left_out`` and ``test_set`` of the comparison, where they are known.
    """
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
        **images,
    )


def below_metric_floor(gate: GateConfig, data: DatasetRef, evaluation: Evaluation) -> str | None:
    """Why the model does not reach ``gate.worst_metric``, or nothing.

    The figure is that of the evaluation's probabilities, each of which the verifying process found in the export's
    answers too.

    Raises:
        DamagedError: If they are not as they were written.
    """
    if gate.worst_metric is None:
        return None
    for record in (data, evaluation):
        artifacts.check_record(record)
    labels = np.asarray(labels_of(data, "test"))
    probabilities = np.load(store.path(evaluation.predictions), allow_pickle=False)
    metric = make_metric(gate, data.classes)
    figure = metric(labels, probabilities)
    if figure >= gate.worst_metric if metric.is_maximized else figure <= gate.worst_metric:
        return None
    side = "below" if metric.is_maximized else "above"
    return f"{metric.name} {figure:.4f} is {side} gate.worst_metric {gate.worst_metric}"


def by_metric(gate: GateConfig, found: Comparison, answers: Answers, slices: Slices) -> Comparison | str:
    """The comparison by ``gate.metric`` and slice by slice, or why it can't be made.

    Args:
        found: The comparison by accuracy, which it stays if that is the metric.
        slices: Those of the compared images.
    """
    kind, _, name = gate.metric.partition(":")
    if kind in ("recall", "precision") and name in answers.classes:
        examples = int((answers.labels == answers.classes.index(name)).sum())
        if examples < gate.min_class_examples:
            return (
                f"only {examples} of the common test images are of class {name}, whose {kind} is compared; "
                f"gate.min_class_examples is {gate.min_class_examples}"
            )
    metric = make_metric(gate, answers.classes)
    by_slice = tuple(_by_slice(gate, metric, answers, slices))
    if gate.metric == "accuracy":
        return found.model_copy(update={"slices": by_slice})
    paired = compare_figures(metric, answers.labels, answers.ours, answers.theirs)
    return found.model_copy(
        update={
            "champion": found.champion.model_copy(update={"score": paired.theirs}),
            "challenger": found.challenger.model_copy(update={"score": paired.ours}),
            "metric": metric.name,
            "method": METHOD,
            "p_value": paired.p_value,
            "difference": paired.difference,
            "difference_low": paired.low,
            "difference_high": paired.high,
            "slices": by_slice,
        }
    )


def _by_slice(gate: GateConfig, metric: Metric, answers: Answers, slices: Slices) -> Iterator[SliceComparison]:
    """Each slice that is large enough, with the p value corrected for their number."""
    parts = {}
    for number, names in enumerate(slices.names):
        chosen = (slices.numbers == number).any(axis=1)
        if chosen.sum() >= gate.min_slice_examples:
            parts[names] = answers.rows(chosen)
    paired = [_paired(gate, metric, part) for part in parts.values()]
    corrected = holm([each.p_value for each in paired])
    for ((column, value), part), each, p_value in zip(parts.items(), paired, corrected, strict=True):
        yield SliceComparison(
            column=column,
            value=value,
            examples=len(part.labels),
            champion=each.theirs,
            challenger=each.ours,
            difference=each.difference,
            p_value=p_value,
        )


def _paired(gate: GateConfig, metric: Metric, answers: Answers) -> Paired:
    """By the permutation test; by McNemar's, which is that of the accuracy, if that is the metric."""
    if gate.metric != "accuracy":
        return compare_figures(metric, answers.labels, answers.ours, answers.theirs)
    ours, theirs = (each.argmax(axis=-1) == answers.labels for each in (answers.ours, answers.theirs))
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    both, neither = int((ours & theirs).sum()), int((~ours & ~theirs).sum())
    low, high = difference_interval(both, only_ours, only_theirs, neither)
    difference = (only_ours - only_theirs) / len(ours)
    return Paired(ours.mean(), theirs.mean(), difference, low, high, mcnemar(only_ours, only_theirs))
