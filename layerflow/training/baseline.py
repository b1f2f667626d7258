"""Telling a training that learned nothing: its validation stays where one constant answer would be."""

import logging

import numpy as np

from layerflow.data.arrays import labels_of
from layerflow.records import DatasetRef, TrainedRef

log = logging.getLogger(__name__)


def warn_if_not_beaten(trained: TrainedRef, data: DatasetRef) -> None:
    """Log a warning where the best epoch is no better on validation than always answering its most frequent class."""
    labels = labels_of(data, "validation")
    counts = np.bincount(labels)
    accuracy = trained.history[trained.best_epoch - 1].val_accuracy
    # As counts: a share in float32 is not that in float64.
    if round(accuracy * len(labels)) > counts.max():
        return
    log.warning(
        "validation accuracy %.4f is not above %.4f, which always answering %s gives: the network has not "
        "learned to tell the classes apart; train longer, try another learning rate, or look at the data",
        *(accuracy, counts.max() / len(labels), data.classes[int(counts.argmax())]),
    )
