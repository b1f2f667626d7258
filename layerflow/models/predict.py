"""A network's answers over a whole split, exact to the last example."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from layerflow.memory import give_back
from layerflow.packed import Images

log = logging.getLogger(__name__)
#: What TensorFlow raises where XLA has no kernel for an operation, or needs to know a shape that depends on the data.
XLA_ERRORS = (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError)
#: Most images in one call: enough that the call costs nothing beside the arithmetic.
_BATCH = 1000
#: Most bytes of images in one call: a network's own arrays are a hundred times as large, and must fit on any GPU.
_BATCH_BYTES = 8 * 2**20


def make_predictor(network: Any, xla: bool) -> Callable[[Images], np.ndarray]:
    """Return a function from ``uint8`` images to ``float32`` logits ``(examples, classes)``.

    ``xla``: whether XLA compiles it, if it can; otherwise TensorFlow runs it as a graph, and the log says so.
    """

    def compiled(xla: bool) -> Callable[[tf.Tensor], tf.Tensor]:
        return tf.function(lambda images: network(images, training=False), jit_compile=xla)

    logits = compiled(xla)

    @full_precision()
    def predict(images: Images) -> np.ndarray:
        nonlocal logits, xla
        size = max(1, min(_BATCH, _BATCH_BYTES // images[:1].nbytes))
        parts = []
        for start in range(0, len(images), size):
            batch = tf.constant(np.asarray(images[start : start + size]))
            try:
                parts.append(logits(batch).numpy())
            except XLA_ERRORS as error:
                if not xla:
                    raise
                say_graph(error)
                xla, logits = False, compiled(False)
                parts.append(logits(batch).numpy())
            give_back(images)
        return np.concatenate(parts)

    return predict


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply ``float32`` numbers as they are. By default a GPU rounds them to 10 bits of mantissa first (TF32).

    Training keeps that speed. What is measured and compared must not depend on it: on an H200, TF32 moved the
    probabilities of ``cnn`` by 2e-4, and the verifier allows 1e-4.
    """
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def say_graph(error: tf.errors.OpError) -> None:
    """Say in the log that XLA can't compile a network, and because of which operation."""
    unsupported = re.search(r"No registered '(\w+)'", error.message)
    reason = unsupported[1] if unsupported else error.message.strip().partition("\n")[0][:100]
    log.warning("XLA can't compile this network (%s); it runs as a TensorFlow graph", reason)


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities of the last axis, ``float32``; the logits are divided by the temperature."""
    logits = logits / np.float32(temperature)
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (exponents / exponents.sum(axis=-1, keepdims=True)).astype(np.float32)


def cross_entropy(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood of ``labels``, in nats, summed in ``float64`` and divided once."""
    return total_cross_entropy(logits, labels, temperature) / len(labels)


def total_cross_entropy(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Summed negative log-likelihood of ``labels``, in nats, in ``float64``, of logits divided by the temperature."""
    # In parts, for float64 takes several times the memory of the logits.
    parts = [slice(start, start + _BATCH) for start in range(0, len(labels), _BATCH)]
    return float(np.concatenate([_losses(logits[part], labels[part], temperature) for part in parts]).sum())


def _losses(logits: np.ndarray, labels: np.ndarray, temperature: float) -> np.ndarray:
    wide = logits.astype(np.float64) / temperature
    shifted = wide - wide.max(axis=-1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(axis=-1))
    return log_sums - shifted[np.arange(len(labels)), labels]


def uses_xla(network: Any, image_shape: tuple[int, ...], choice: str) -> bool:
    """Whether the network's functions are compiled by XLA: as ``choice`` says, or by this rule for ``auto``.

    On a GPU, always. On a CPU, unless the network has convolutions: inside a compiled loop XLA runs them about
    fifteen times slower there than TensorFlow's own kernels, while it makes small matrix products several times faster.
    """
    if choice != "auto":
        return choice == "xla"
    if tf.config.list_logical_devices("GPU"):
        return True
    images = tf.TensorSpec((1, *image_shape), tf.uint8)
    graph = tf.function(lambda x: network(x, training=False)).get_concrete_function(images).graph
    return not any("Conv" in operation.type for operation in graph.get_operations())
