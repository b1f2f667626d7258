"""Metrics of the validation images beside loss and accuracy: Keras' own, ours, or yours."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np

from layerflow.errors import ConfigError
from layerflow.models.predict import softmax
from layerflow.settings.training import OWN_METRICS, TrainingConfig
from layerflow.training import class_metrics
from layerflow.training.keras_objects import keras_object

#: Images whose probabilities are handed over at once.
_BATCH = 1000


class Metrics:
    """Keras metrics of one-hot labels and probabilities, both ``float32`` of shape ``(batch, classes)``.

    Args:
        metrics: By the names of their figures.
        classes: Number of classes.

    Raises:
        ConfigError: If one gives an array instead of a number, or is for another number of classes.
    """

    def __init__(self, metrics: dict[str, Any], classes: int) -> None:
        self._metrics, self._classes = metrics, classes
        for name, metric in metrics.items():
            # Some metrics make their variables with the first images, and a worker may have none.
            try:
                metric.update_state(np.eye(2, classes, dtype=np.float32), np.full((2, classes), 1 / classes, "float32"))
            except ValueError as error:
                said = " ".join(str(error).split())
                raise ConfigError(f"training.metrics must fit labels of {classes} classes. {name}: {said}") from error
            shape = np.shape(metric.result())
            metric.reset_state()
            if shape != ():
                raise ConfigError(
                    f"training.metrics must give one number each. {name} gives an array of shape {shape}; let it "
                    'average, as F1Score does with {"average": "macro"}.'
                )

    def figures(
        self, labels: np.ndarray, logits: np.ndarray, total: Callable[[list[float]], list[float]]
    ) -> dict[str, float]:
        """The figures of these images by name.

        Args:
            labels: ``int32`` of shape ``(examples,)``.
            logits: ``float32`` of shape ``(examples, classes)``.
            total: Sums what the metrics count over all workers, as Keras does over replicas.
        """
        for start in range(0, len(labels) if self._metrics else 0, _BATCH):
            part = slice(start, start + _BATCH)
            one_hot = np.eye(self._classes, dtype=np.float32)[labels[part]]
            for metric in self._metrics.values():
                metric.update_state(one_hot, softmax(logits[part]))
        return {name: self._result(metric, total) for name, metric in self._metrics.items()}

    @staticmethod
    def _result(metric: Any, total: Callable[[list[float]], list[float]]) -> float:
        counts = [variable.numpy() for variable in metric.variables]
        sums = iter(total([float(each) for count in counts for each in count.ravel()]))
        for variable, count in zip(metric.variables, counts, strict=True):
            variable.assign(np.array([next(sums) for _ in range(count.size)], count.dtype).reshape(count.shape))
        figure = float(metric.result())
        metric.reset_state()
        return figure


def make_metrics(config: TrainingConfig, classes: int) -> Metrics:
    """What ``training.metrics`` describes.

    Raises:
        ConfigError: If one can't be made.
    """
    wrap = keras.metrics.MeanMetricWrapper
    known = SimpleNamespace(**vars(keras.metrics), **{name: getattr(class_metrics, name) for name in OWN_METRICS})
    made = [keras_object(form, "training.metrics", known, keras.Metric, wrap) for form in config.metrics]
    return Metrics({f"val_{name}": each for name, each in zip(config.metric_names, made, strict=True)}, classes)
