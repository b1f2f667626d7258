"""Metrics of labels and probabilities, as a user would write them, and some that are wrong."""

import keras
import numpy as np


def share_of_sure_mistakes_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """How often the model is wrong and more than 90 % sure."""
    return float(((probabilities.argmax(-1) != labels) & (probabilities.max(-1) > 0.9)).mean())


def not_a_number(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float("nan")


def fails(labels: np.ndarray, probabilities: np.ndarray) -> float:
    raise ValueError("no such thing")


class Mine(keras.metrics.Mean):
    pass
