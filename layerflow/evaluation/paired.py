"""Two models' answers to the same examples: whether one figure is better than the other, by resampling."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from layerflow.evaluation.statistics import LEVEL

METHOD = "paired permutation test"
#: Resamples: the smallest p value is 1e-4, which stands the correction for hundreds of slices.
_RESAMPLES = 9_999
#: How often each example counts in each resample: so many numbers at once.
_AT_ONCE = 2**23
#: Two figures of the same counts may differ by what float64 rounds.
_ROUNDING = 1e-12


class Metric(NamedTuple):
    """A figure of a model's answers.

    Attributes:
        name: As people read it, such as ``recall of cat``.
        reduce: From labels, integers of shape ``(examples,)``, and probabilities, ``float32`` of shape ``(examples,
            classes)``, to what the figure needs of each example: an array with a row for each.
        score: From labels, such rows, and how often each of them counts, integers of shape ``(resamples, examples)``,
            to the figures, ``float64`` of shape ``(resamples,)``.
        is_maximized: Whether more is better.
        resamples: How many the paired test may ask for.
    """

    name: str
    reduce: Callable[[np.ndarray, np.ndarray], np.ndarray]
    score: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    is_maximized: bool = True
    resamples: int = _RESAMPLES

    def __call__(self, labels: np.ndarray, probabilities: np.ndarray) -> float:
        """The figure of these answers."""
        once = np.ones((1, len(labels)), np.int64)
        return float(self.score(labels, self.reduce(labels, probabilities), once)[0])


class Paired(NamedTuple):
    """What came out.

    Attributes:
        ours, theirs: The figure of each model.
        difference: By how much ours is better; negative if it is worse, whether or not more is better.
        low, high: Its 95 % interval.
        p_value: Two-sided.
    """

    ours: float
    theirs: float
    difference: float
    low: float
    high: float
    p_value: float


def compare_figures(metric: Metric, labels: np.ndarray, ours: np.ndarray, theirs: np.ndarray, seed: int = 0) -> Paired:
    """Test whether two models differ in a figure, paired by example.

    The p value is that of a permutation test: if neither model were better, swapping their answers to an example would
    change nothing. The interval is the percentiles of a paired bootstrap over the examples.

    Args:
        labels: Integers of shape ``(examples,)``.
        ours, theirs: Probabilities, ``float32`` of shape ``(examples, classes)``.
        seed: Of the resamples.

    References:
        Good, Permutation, parametric and bootstrap tests of hypotheses (2005), chapter 3.
        Efron and Tibshirani, An introduction to the bootstrap (1993), chapter 13.
        Phipson and Smyth, Permutation p-values should never be zero (2010).
    """
    rows = [metric.reduce(labels, each) for each in (ours, theirs)]
    kinds, times = _grouped(labels, *rows)
    two_labels, two_rows = np.tile(labels[kinds], 2), np.concatenate([each[kinds] for each in rows])
    sign, chance = 1 if metric.is_maximized else -1, np.random.default_rng(seed)

    def better(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """By how much one model is better, from how often each of our answers and each of theirs is its own."""
        figures = (metric.score(two_labels, two_rows, each) for each in (one, other))
        return sign * np.subtract(*figures)

    def drawn_again(count: int) -> np.ndarray:
        drawn = _drawn(chance, times, count)
        nothing = np.zeros_like(drawn)
        return better(np.hstack([drawn, nothing]), np.hstack([nothing, drawn]))

    def swapped(count: int) -> np.ndarray:
        size = (count, len(times))
        swaps = chance.binomial(times, 0.5, size) if times.max() > 1 else chance.integers(2, size=size)
        return better(np.hstack([times - swaps, swaps]), np.hstack([swaps, times - swaps]))

    figures = [metric(labels, each) for each in (ours, theirs)]
    difference = sign * (figures[0] - figures[1])
    as_far = np.abs(_in_parts(swapped, metric.resamples, len(times))) >= abs(difference) - _ROUNDING
    low, high = np.quantile(_in_parts(drawn_again, metric.resamples, len(times)), [LEVEL / 2, 1 - LEVEL / 2])
    p_value = (1 + int(as_far.sum())) / (1 + metric.resamples)
    return Paired(figures[0], figures[1], difference, float(low), float(high), p_value)


def _drawn(chance: np.random.Generator, times: np.ndarray, count: int) -> np.ndarray:
    """How often each kind is among as many examples, drawn with replacement, ``count`` times."""
    if times.max() > 1:
        return chance.multinomial(times.sum(), times / times.sum(), count)
    kinds = len(times)  # each is one example: counting is ten times as fast as drawing from so many shares
    places = chance.integers(kinds, size=(count, kinds)) + kinds * np.arange(count)[:, None]
    return np.bincount(places.ravel(), minlength=count * kinds).reshape(count, kinds)


def _grouped(labels: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One example of each kind that all figures treat alike, and how many there are of each."""
    if ours.ndim > 1:
        return np.arange(len(labels)), np.ones(len(labels), np.int64)
    _, kinds, times = np.unique(np.stack([labels, ours, theirs]), axis=1, return_index=True, return_counts=True)
    return kinds, times


def _in_parts(draw: Callable[[int], np.ndarray], resamples: int, kinds: int) -> np.ndarray:
    """So many resamples, in parts that fit into memory."""
    most = max(1, _AT_ONCE // kinds)
    return np.concatenate([draw(min(most, resamples - start)) for start in range(0, resamples, most)])
