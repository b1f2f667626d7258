"""A network's answers over a whole split, exact to the last example."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from layerflow.memory import give_back

#: Most images in one call: enough that the call costs nothing beside the arithmetic.
_BATCH = 1000
#: Most bytes of images in one call: a network's own arrays are a hundred times as large, and must fit on any GPU.
_BATCH_BYTES = 8 * 2**20


def make_predictor(network: Any, xla: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from ``uint8`` images to ``float32`` logits ``(examples, classes)``."""

    @tf.function(jit_compile=xla)
    def logits(images: tf.Tensor) -> tf.Tensor:
        return network(images, training=False)

    def predict(images: np.ndarray) -> np.ndarray:
        size = max(1, min(_BATCH, _BATCH_BYTES // images[:1].nbytes))
        parts = []
        for start in range(0, len(images), size):
            parts.append(logits(tf.constant(images[start : start + size])).numpy())
            give_back(images)
        return np.concatenate(parts)

    return predict


def added_loss(network: Any) -> tf.Tensor | None:
    """What the last call of ``network`` adds to the loss of its batch, by regularizers and ``add_loss``, if anything.

    ``float32``, and as large as Keras' ``fit`` has it.
    """
    losses = [tf.reduce_sum(tf.cast(each, tf.float32)) for each in network.losses]
    return tf.add_n(losses) if losses else None


def with_added_loss(network: Any) -> Callable[..., tf.Tensor]:
    """A network that answers like ``network`` with one more column: what is added to the loss of an image's batch."""

    def answer(images: tf.Tensor, training: bool) -> tf.Tensor:
        logits = tf.cast(network(images, training=training), tf.float32)
        added = added_loss(network)
        column = tf.zeros_like(logits[:, :1]) + (0.0 if added is None else added)
        return tf.concat([logits, column], axis=-1)

    return answer


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of the last axis, ``float32``."""
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (exponents / exponents.sum(axis=-1, keepdims=True)).astype(np.float32)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood of ``labels``, in nats, summed in ``float64`` and divided once."""
    return total_cross_entropy(logits, labels) / len(labels)


def total_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Summed negative log-likelihood of ``labels``, in nats, in ``float64``."""
    # In parts, for float64 takes several times the memory of the logits.
    parts = [slice(start, start + _BATCH) for start in range(0, len(labels), _BATCH)]
    return float(np.concatenate([_losses(logits[part], labels[part]) for part in parts]).sum())


def _losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=-1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(axis=-1))
    return log_sums - shifted[np.arange(len(labels)), labels]
