"""The figures by which two models can be compared, as ``gate.metric`` names them."""

import inspect
import re
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from scipy.sparse import csr_array

from layerflow import user_code
from layerflow.errors import ConfigError, printed
from layerflow.evaluation.paired import Metric
from layerflow.settings.gate import GateConfig
from layerflow.settings.training import is_maximized

#: Resamples of the area under the curve, and of your own function, which is computed again for each: the smallest p
#: value is 1e-3.
_FEW_RESAMPLES = 999
#: A probability of 0 would cost infinitely much. This is the step of float32 at 1, as in scikit-learn.
_SMALLEST = float(np.finfo(np.float32).eps)


def make_metric(gate: GateConfig, classes: Sequence[str]) -> Metric:
    """What ``gate.metric`` names.

    Args:
        classes: The names of the classes, in the order of their numbers.

    Raises:
        ConfigError: If it is of a class that the data don't have, or your own function can't be imported.

    Example:
        >>> metric = make_metric(GateConfig(metric="balanced_accuracy"), ["cat", "dog"])
        >>> metric(np.array([0, 0, 0, 1]), np.eye(2, dtype=np.float32)[[0, 0, 1, 1]])
        0.8333333333333333

    References:
        Hand and Till, A simple generalisation of the area under the ROC curve for multiple class classification
        problems (2001), for the area averaged over the classes.
    """
    gate.require_classes(classes)
    kind, _, rest = gate.metric.partition(":")
    if top := re.fullmatch(r"top_(\d+)_accuracy", kind):
        return Metric(gate.metric, partial(_in_top, most=int(top[1])), _mean)
    if kind in ("recall", "precision"):
        of_class = {"recall": _recall, "precision": _precision}[kind]
        return Metric(f"{kind} of {rest}", _predicted, partial(of_class, number=list(classes).index(rest)))
    if kind == "expected_cost":
        return Metric(kind, partial(_costs, costs=cost_matrix(gate.costs or {}, classes)), _mean, is_maximized=False)
    if kind in _BY_NAME:
        return _BY_NAME[kind]
    return _own(gate.metric)


def cost_matrix(costs: Mapping[str, Mapping[str, float]], classes: Sequence[str]) -> np.ndarray:
    """Costs by true class and predicted class, ``float64``: 0 for a right answer and 1 for a wrong one if not given."""
    matrix = 1.0 - np.eye(len(classes))
    for row, true in enumerate(classes):
        for column, predicted in enumerate(classes):
            matrix[row, column] = costs.get(true, {}).get(predicted, matrix[row, column])
    return matrix


def _own(name: str) -> Metric:
    import keras  # here, for it takes seconds, and most runs name no metric of their own

    function, short = user_code.maker_of(name, "gate.metric", keras.Metric), name.rpartition(":")[2]
    if inspect.isclass(function):
        raise ConfigError(f"gate.metric must name a function of labels and probabilities. {name} is a class.")

    def figure_of(labels: np.ndarray, probabilities: np.ndarray) -> float:
        try:
            figure = float(function(labels, probabilities))
        except Exception as error:  # whatever a user's function may raise
            received = printed(" ".join(f"{type(error).__name__}: {error}".split()), 400)
        else:
            if np.isfinite(figure):
                return figure
            received = str(figure)
        raise ConfigError(f"gate.metric {name} must give a finite number of labels and probabilities, not {received}.")

    def score(labels: np.ndarray, probabilities: np.ndarray, times: np.ndarray) -> np.ndarray:
        chosen = (np.repeat(np.arange(len(labels)), each) for each in times)
        return np.array([figure_of(labels[rows], probabilities[rows]) for rows in chosen])

    return Metric(short, lambda labels, probabilities: probabilities, score, is_maximized(short), _FEW_RESAMPLES)


def _predicted(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    return probabilities.argmax(axis=-1)


def _right(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    return probabilities.argmax(axis=-1) == labels


def _in_top(labels: np.ndarray, probabilities: np.ndarray, most: int) -> np.ndarray:
    true = np.take_along_axis(probabilities, labels[:, None], axis=-1)
    return (probabilities > true).sum(axis=-1) < most


def _losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    true = np.take_along_axis(probabilities, labels[:, None], axis=-1)[:, 0]
    return -np.log(np.clip(true.astype(np.float64), _SMALLEST, 1))


def _costs(labels: np.ndarray, probabilities: np.ndarray, costs: np.ndarray) -> np.ndarray:
    return costs[labels, probabilities.argmax(axis=-1)]


def _mean(labels: np.ndarray, rows: np.ndarray, times: np.ndarray) -> np.ndarray:
    return times @ rows / times.sum(axis=1)


def _shares(counts: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Quotients of counts; 0 where there is nothing to count."""
    return np.divide(counts, of, out=np.zeros(of.shape), where=of > 0)


def _counts(numbers: np.ndarray, times: np.ndarray, classes: int) -> np.ndarray:
    """How often each class is among ``numbers``, of shape ``(resamples, classes)``."""
    examples = len(numbers)
    members = csr_array((np.ones(examples, np.int64), (np.arange(examples), numbers)), shape=(examples, classes))
    return np.asarray(times @ members)


def _confusion(labels: np.ndarray, predicted: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of each class: its examples, how often it was predicted, and how often rightly."""
    classes, right = int(max(labels.max(), predicted.max())) + 1, labels == predicted
    examples, chosen = (_counts(numbers, times, classes) for numbers in (labels, predicted))
    return examples, chosen, _counts(labels[right], times[:, right], classes)


def _recall(labels: np.ndarray, predicted: np.ndarray, times: np.ndarray, number: int) -> np.ndarray:
    of_class = labels == number
    return _shares(times @ (of_class & (predicted == number)), times @ of_class)


def _precision(labels: np.ndarray, predicted: np.ndarray, times: np.ndarray, number: int) -> np.ndarray:
    chosen = predicted == number
    return _shares(times @ (chosen & (labels == number)), times @ chosen)


def _balanced_accuracy(labels: np.ndarray, predicted: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The mean recall of the classes that have examples."""
    examples, _, right = _confusion(labels, predicted, times)
    return _shares(right, examples).sum(axis=1) / (examples > 0).sum(axis=1)


def _macro_f1(labels: np.ndarray, predicted: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The mean F1 of the classes that have examples."""
    examples, chosen, right = _confusion(labels, predicted, times)
    scores = _shares(2 * right, examples + chosen)  # of a class without examples, 0
    return scores.sum(axis=1) / (examples > 0).sum(axis=1)


def _auc(labels: np.ndarray, probabilities: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The mean area under the ROC curve of each class against all others; 0.5 if there is one class only."""
    areas, tested = np.zeros(len(times)), np.zeros(len(times))
    for number in np.unique(labels):
        order = np.argsort(probabilities[:, number], kind="stable")
        sorted_times, is_class = times[:, order], labels[order] == number
        scores = probabilities[order, number]
        starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])  # of equal scores, the first
        ours, others = (
            np.add.reduceat(np.where(chosen, sorted_times, 0), starts, axis=1) for chosen in (is_class, ~is_class)
        )
        pairs = (ours * (np.cumsum(others, axis=1) - others / 2)).sum(axis=1)
        all_pairs = ours.sum(axis=1) * others.sum(axis=1)
        areas, tested = areas + _shares(pairs, all_pairs), tested + (all_pairs > 0)
    return np.where(tested > 0, areas / np.maximum(tested, 1), 0.5)


_BY_NAME = {
    "accuracy": Metric("accuracy", _right, _mean),
    "balanced_accuracy": Metric("balanced accuracy", _predicted, _balanced_accuracy),
    "macro_f1": Metric("macro F1", _predicted, _macro_f1),
    "log_loss": Metric("log loss", _losses, _mean, is_maximized=False),
    "auc": Metric("AUC", lambda labels, probabilities: probabilities, _auc, resamples=_FEW_RESAMPLES),
}
