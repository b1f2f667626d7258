"""How a model answers in service: its temperature and its threshold, and what they are worth."""

import logging
from collections.abc import Callable

import numpy as np

from layerflow.data.arrays import images_and_labels
from layerflow.evaluation.abstention import accepts, choose_threshold
from layerflow.evaluation.calibration import calibration
from layerflow.evaluation.temperature import fit_temperature
from layerflow.models.predict import cross_entropy, softmax
from layerflow.packed import Images
from layerflow.records import DatasetRef
from layerflow.serving import Abstention, Calibrated, Serving
from layerflow.settings.export import ExportConfig

log = logging.getLogger(__name__)


def choose_serving(config: ExportConfig, predict: Callable[[Images], np.ndarray], data: DatasetRef) -> Serving:
    """The temperature and the threshold that the validation images give; they are answered only where that is asked.

    Args:
        predict: From images to logits, as ``make_predictor`` gives it.

    Raises:
        ConfigError: If there are too few validation images for the error that is asked.
    """
    if config == ExportConfig():
        return Serving()
    images, labels = images_and_labels(data, "validation")
    config.abstain.require_enough(len(labels))
    return serving_of(config, predict(images), labels)


def serving_of(config: ExportConfig, logits: np.ndarray, labels: np.ndarray) -> Serving:
    """The temperature and the threshold that validation images with these logits give.

    Args:
        logits: ``float32`` of shape ``(examples, classes)``.
        labels: Integers of shape ``(examples,)``.
    """
    temperature = fit_temperature(logits, labels) if config.calibrate == "temperature" else 1.0
    if config.abstain.error is None:
        return Serving(temperature=temperature)
    most = config.abstain.most_wrong(len(labels))
    threshold = choose_threshold(_confidence(logits, temperature), _wrong(logits, labels), most)
    return Serving(temperature=temperature, threshold=threshold)


def calibrated_on(logits: np.ndarray, labels: np.ndarray, temperature: float, images: int) -> Calibrated:
    """What the temperature, which so many validation ``images`` gave, is worth on test images with these logits."""
    before, after = (calibration(softmax(logits, each), labels).error for each in (1.0, temperature))
    return Calibrated(
        images=images,
        ece_before=before,
        ece_after=after,
        loss_before=cross_entropy(logits, labels),
        loss_after=cross_entropy(logits, labels, temperature),
    )


def abstention_on(logits: np.ndarray, labels: np.ndarray, serving: Serving, asked: float, images: int) -> Abstention:
    """What the threshold, which so many validation ``images`` gave, is worth on test images with these logits."""
    assert serving.threshold is not None
    accepted = accepts(_confidence(logits, serving.temperature), serving.threshold)
    if not accepted.any():
        log.warning("no test image is accepted; raise export.abstain.error, or set export.calibrate temperature")
    wrong = int((accepted & _wrong(logits, labels)).sum())
    return Abstention(
        asked=asked,
        images=images,
        coverage=float(accepted.mean()),
        error=wrong / max(int(accepted.sum()), 1),
        wrong=wrong / len(labels),
    )


def _confidence(logits: np.ndarray, temperature: float) -> np.ndarray:
    return softmax(logits, temperature).max(axis=-1)


def _wrong(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return logits.argmax(axis=-1) != labels
