"""The features that a network's head makes its logits of, where it can be told which layer the head is."""

from collections.abc import Callable
from typing import Any

import keras

from layerflow.models.application import Application
from layerflow.models.classifier import Classifier

#: Networks of your own are Keras models of these classes, or of a class whose `call` nobody can look into.
_PLAIN = "keras.src.models"
#: The class of the networks of KerasHub, which can't be imported without it; its parts are those of `Application`.
_HUB = "layerflow>Hub"


def embedding_of(network: keras.Model) -> tuple[Callable[[Any], Any], int] | None:
    """What gives the features of raw images, and how many there are; nothing where no layer is known to be the head.

    The features are what the last layer takes, if that has weights and takes one row of numbers an image.
    """
    if isinstance(network, Classifier):
        *body, head = network.chain
        return _after(body), head.w.shape[0]
    if isinstance(network, Application) or keras.saving.get_registered_name(type(network)) == _HUB:
        *body, head = network.head
        return _after([network.features, *body]), head.w.shape[0]
    if not type(network).__module__.startswith(_PLAIN) or not getattr(network, "layers", None):
        return None
    head = network.layers[-1]
    try:
        (output,), taken = network.outputs, head.input
        is_head = head.weights and output is head.output and len(network.inputs) == 1
    except (AttributeError, ValueError):  # not built layer by layer, or a layer that is used twice
        return None
    if not is_head or not isinstance(taken, keras.KerasTensor) or len(taken.shape) != 2 or taken.shape[1] is None:
        return None
    features = keras.Model(network.inputs[0], taken)
    return lambda images: features(images, training=False), int(taken.shape[1])


def _after(steps: list[Any]) -> Callable[[Any], Any]:
    def features(images: Any) -> Any:
        x = images
        for step in steps:
            x = step(x, training=False) if isinstance(step, keras.layers.Layer) else step(x)
        return x

    return features
