"""What training minimizes: the loss of each image, weighted by its class."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from layerflow.errors import ConfigError, did_you_mean
from layerflow.models.predict import total_cross_entropy
from layerflow.settings.training import TrainingConfig
from layerflow.training.keras_objects import keras_object

#: Images whose validation losses are computed in one call.
_BATCH = 1000


class Objective:
    """The loss of each image of a batch.

    Args:
        loss: From one-hot labels and logits, both ``float32`` of shape ``(batch, classes)``, to the loss of each image,
            ``float32`` of shape ``(batch,)``. Default: the cross-entropy.
        weights: ``float32`` of shape ``(classes,)``. In training, the loss of an image is multiplied by the weight of
            its class, as in Keras' ``fit``. Default: 1.

    Call arguments:
        targets: Labels, ``int32`` of shape ``(batch,)``, or the share of each class, ``float32`` of shape
            ``(batch, classes)``. A mixed image has the mean of its classes' weights.
        logits: ``float32`` of shape ``(batch, classes)``.

    Returns:
        ``float32`` of shape ``(batch,)``.
    """

    def __init__(self, loss: Callable[..., Any] | None = None, weights: np.ndarray | None = None) -> None:
        self._loss, self._weights = loss, weights

    def __call__(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        losses = self._losses(targets, logits)
        if self._weights is None:
            return losses
        weights = tf.constant(self._weights)
        return losses * (tf.gather(weights, targets) if _are_labels(targets) else tf.linalg.matvec(targets, weights))

    def total(self, labels: np.ndarray, logits: np.ndarray) -> float:
        """Summed loss of images without the weights of classes, in ``float64``: as validation has it."""
        if self._loss is None:
            return total_cross_entropy(logits, labels)
        parts = [slice(start, start + _BATCH) for start in range(0, len(labels), _BATCH)]
        losses = (self._losses(tf.constant(labels[part], tf.int32), tf.constant(logits[part])) for part in parts)
        return sum(float(each.numpy().sum(dtype=np.float64)) for each in losses)

    def _losses(self, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        if self._loss is None:
            of_labels, of_shares = (
                tf.nn.sparse_softmax_cross_entropy_with_logits,
                tf.nn.softmax_cross_entropy_with_logits,
            )
            return of_labels(targets, logits) if _are_labels(targets) else of_shares(targets, logits)
        one_hot = tf.one_hot(targets, logits.shape[-1]) if _are_labels(targets) else targets
        return tf.cast(self._loss(one_hot, logits), tf.float32)


def _are_labels(targets: tf.Tensor) -> bool:
    return targets.dtype == tf.int32


def make_objective(config: TrainingConfig, labels: np.ndarray, classes: tuple[str, ...]) -> Objective:
    """The objective that ``training.loss`` and ``training.class_weight`` describe.

    Args:
        labels: Those of the training images, which ``balanced`` counts.

    Raises:
        ConfigError: If the loss can't be made, gives no loss for each image, or a weight names an unknown class.
    """
    base = keras.losses.Loss
    loss = keras_object(config.loss, "training.loss", keras.losses, base, lambda own: own, {"from_logits": True})
    weights = _class_weights(config.class_weight, labels, classes)
    if isinstance(loss, base):
        if loss.reduction not in ("sum_over_batch_size", "mean"):
            raise ConfigError(
                "training.loss must be averaged over the images of a batch. Received: "
                f"reduction={loss.reduction!r}; leave it out."
            )
        if type(loss) is keras.losses.CategoricalCrossentropy and not loss.label_smoothing:
            return Objective(None, weights)
        loss = loss.call
    given = tf.one_hot([0, 1], len(classes)), tf.zeros((2, len(classes)))
    shape = getattr(loss(*given), "shape", None)
    if shape != (2,):
        raise ConfigError(
            "training.loss must give the loss of each image, a tensor of shape (batch,), for one-hot labels and logits "
            f"of shape (batch, classes). Received for two images: {'no tensor' if shape is None else tuple(shape)}"
        )
    return Objective(loss, weights)


def _class_weights(
    given: str | dict[str, float] | None, labels: np.ndarray, classes: tuple[str, ...]
) -> np.ndarray | None:
    if given is None:
        return None
    if isinstance(given, str):
        counts = np.bincount(labels, minlength=len(classes))
        # A class without an image weighs 1: infinity times a share of 0 would be NaN.
        return np.where(counts, len(labels) / (len(classes) * np.maximum(counts, 1)), 1).astype(np.float32)
    if unknown := sorted(given.keys() - {*classes}):
        raise ConfigError(
            f"training.class_weight must name classes of the data. No class {unknown[0]} exists"
            f"{did_you_mean(unknown[0], classes)}."
        )
    return np.array([given.get(name, 1.0) for name in classes], np.float32)
