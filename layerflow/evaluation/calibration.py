"""Whether a model is as sure as it is right."""

from typing import NamedTuple

import numpy as np


class Calibration(NamedTuple):
    """Of each bin of confidence: examples in it, their mean confidence and accuracy (0 where it is empty)."""

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: how far accuracy is from confidence, on the average over all examples."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float((self.counts * gaps).sum() / self.counts.sum())


def calibration(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> Calibration:
    """Divide examples among bins of equal width by the probability of the predicted class.

    Args:
        probabilities: Floats of shape ``(examples, classes)``.
        labels: Integers of shape ``(examples,)``.
        bins: 15, as in the paper, so that the figure can be compared with others. A bin holds its upper bound.

    References:
        Guo, Pleiss, Sun and Weinberger, On calibration of modern neural networks (2017).
    """
    confidence = probabilities.max(axis=-1).astype(np.float64)
    right = probabilities.argmax(axis=-1) == labels
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts, sure, correct = (
        np.bincount(bin_of, weights=weights, minlength=bins) for weights in (None, confidence, right)
    )
    some = np.maximum(counts, 1)
    return Calibration(counts, sure / some, correct / some)
