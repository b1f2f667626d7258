"""A network's answers over a whole split, exact to the last example."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

#: Images in one call: large enough that the call costs nothing beside the arithmetic, small enough for any GPU.
_BATCH = 1000


def make_predictor(network: Any, xla: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from ``uint8`` images to ``float32`` logits ``(examples, classes)``."""

    @tf.function(jit_compile=xla)
    def logits(images: tf.Tensor) -> tf.Tensor:
        return network(images, training=False)

    def predict(images: np.ndarray) -> np.ndarray:
        parts = range(0, len(images), _BATCH)
        return np.concatenate([logits(tf.constant(images[start : start + _BATCH])).numpy() for start in parts])

    return predict


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of the last axis, ``float32``."""
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (exponents / exponents.sum(axis=-1, keepdims=True)).astype(np.float32)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood of ``labels``, in nats, summed in ``float64`` and divided once."""
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=-1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(axis=-1))
    return float((log_sums - shifted[np.arange(len(labels)), labels]).sum() / len(labels))
