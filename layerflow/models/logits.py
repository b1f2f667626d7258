"""Taking the softmax off a network that ends in one: the loss and what ships apply it themselves."""

import logging
from typing import Any

import keras
import numpy as np
from keras import ops

log = logging.getLogger(__name__)
#: Images on which a network shows whether it gives probabilities.
_IMAGES = 4
#: How far sums of float32 probabilities are from 1, and two ways to compute them from each other, at most.
_CLOSE = 1e-3
#: The smallest normal float32: a probability below it has no exact logarithm.
_TINY = float(np.finfo(np.float32).tiny)


def with_logits(name: str, network: keras.Model, image_shape: tuple[int, int, int]) -> keras.Model:
    """The same network without the softmax at its end, if it has one.

    A last layer of softmax is cut off, and a last layer whose activation is softmax becomes linear. If neither is
    there, a logarithm undoes it: the logarithms of probabilities are logits, up to a number that all classes share.
    The log says which.

    Args:
        name: What the network is called, for the log.
        network: Takes raw images, and gives logits or probabilities of shape ``(batch, classes)``.
        image_shape: Height, width and channels.
    """
    images = np.random.default_rng(0).integers(0, 256, (_IMAGES, *image_shape), np.uint8)
    answers = np.asarray(network(images, training=False), np.float32)
    if answers.min() < 0 or not np.allclose(answers.sum(axis=-1), 1, atol=_CLOSE):
        return network
    logits, how = _without_softmax(network, images, answers)
    log.info("%s ends in a softmax, which the loss and the export apply; %s", name, how)
    return logits


def _without_softmax(network: keras.Model, images: np.ndarray, probabilities: np.ndarray) -> tuple[keras.Model, str]:
    """The network without its softmax, and how that was done; ``probabilities`` are what it answers to ``images``."""
    # What a custom class does last, nobody else knows.
    if type(network).__module__.startswith("keras.src.models"):
        last = network.layers[-1]
        if isinstance(last, keras.layers.Softmax) or (isinstance(last, keras.layers.Activation) and _is_softmax(last)):
            cut = _cut(network)
            cut(images, training=False)  # builds it, so that its weights are saved
            return cut, "that layer is cut off"
        if _is_softmax(last):
            last.activation = keras.activations.linear
            if np.allclose(ops.softmax(network(images, training=False)), probabilities, atol=_CLOSE):
                return network, f"its last layer, {last.name}, is linear now"
            last.activation = keras.activations.softmax  # the network has this layer in another place, too
    inputs = keras.Input(images.shape[1:], dtype="uint8")
    answer = ops.cast(network(inputs), "float32")
    return keras.Model(inputs, ops.log(ops.maximum(answer, _TINY))), "a logarithm undoes it"


def _is_softmax(layer: Any) -> bool:
    return getattr(layer, "activation", None) is keras.activations.softmax


def _cut(network: keras.Model) -> keras.Model:
    if isinstance(network, keras.Sequential):
        return keras.Sequential(network.layers[:-1])
    return keras.Model(network.input, network.layers[-1].input)
