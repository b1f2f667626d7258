"""The figures of ``extend.metrics``, of the answers that the evaluation kept."""

import logging
import math

import numpy as np

from layerflow import plugins, store
from layerflow.data.arrays import labels_of
from layerflow.errors import ConfigError
from layerflow.outcomes import OwnFigures
from layerflow.records import DatasetRef, Evaluation

log = logging.getLogger(__name__)


def score(names: tuple[str, ...], evaluation: Evaluation, data: DatasetRef) -> OwnFigures:
    """Each figure of the probabilities of all test images, as the model ships.

    Raises:
        ConfigError: If a metric can't be imported, fails, or gives no finite number.
    """
    values = {name: _figure(name, evaluation, data) for name in names}
    log.info("%s", ", ".join(f"{name} {value:.4f}" for name, value in values.items()))
    return OwnFigures(predictions_digest=evaluation.predictions_digest, values=values)


def _figure(name: str, evaluation: Evaluation, data: DatasetRef) -> float:
    metric = plugins.load("metrics", name)
    # Read for each: one that changes them must not change another's figure.
    probabilities = np.load(store.path(evaluation.predictions), allow_pickle=False)
    with plugins.calling("metrics", name):
        figure = float(metric(np.array(labels_of(data, "test")), probabilities))
    if not math.isfinite(figure):
        raise ConfigError(f"extend.metrics {name} must give a finite number. Received: {figure}")
    return figure
