"""The statistics by which two models are compared: paired by example, and exact where they can be."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

#: Level of the paired test, and of what lies outside the interval.
LEVEL = 0.05
_RESAMPLES = 10_000
#: Most looks that are counted.
MOST_LOOKS = 1_000_000


def accuracy_interval(right: int, examples: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy.

    References:
        Wilson, Probable inference, the law of succession, and statistical inference (1927).
    """
    interval = binomtest(right, examples).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


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


def supported_looks(deviation: float, margin: float) -> int:
    """How many comparisons a test set supports, at most ``MOST_LOOKS``.

    Of k equally good models, the one that seems best on the same images seems better than it is by at most
    s·sqrt(2·ln k) on average, where s is the standard deviation of a difference in the figure compared. So many
    comparisons keep that within ``margin``.

    Args:
        deviation: s, of a difference of that figure between two models.

    References:
        Boucheron, Lugosi and Massart, Concentration inequalities (2013), theorem 2.5.
        Blum and Hardt, The ladder: a reliable leaderboard for machine learning competitions (2015).
    """
    exponent = margin**2 / (2 * deviation**2) if deviation else math.inf
    return int(math.exp(exponent)) if exponent < math.log(MOST_LOOKS) else MOST_LOOKS


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values, corrected so that one below a level has at most that probability however many there are.

    References:
        Holm, A simple sequentially rejective multiple test procedure (1979).
    """
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, number in enumerate(sorted(range(len(p_values)), key=lambda number: p_values[number])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[number]))
        corrected[number] = highest
    return corrected


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
