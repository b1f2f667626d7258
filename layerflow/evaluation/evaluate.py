"""How good a trained model is on the test split, over every example."""

import logging
from pathlib import Path

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from layerflow import checksums, store
from layerflow.data.arrays import images_and_labels
from layerflow.data.slices import Slices, slices_of
from layerflow.models.networks import load_model
from layerflow.models.predict import cross_entropy, make_predictor, softmax, uses_xla
from layerflow.records import DatasetRef, Evaluation, TrainedRef
from layerflow.scores import ClassScore, SliceScore

log = logging.getLogger(__name__)

#: Classes up to which the confusion matrix is in the record: that of a thousand is 9 MB, in every receipt again.
_CLASSES = 200


def evaluate(trained: TrainedRef, data: DatasetRef, folder: Path) -> Evaluation:
    """Score every test example once, and write ``predictions.npy``: ``float32`` probabilities ``(examples, classes)``.

    The confusion matrix of very many classes is ``confusion.npy``, and not in the record.

    The interval of an accuracy is Wilson's, at 95 %; a class that no example has, or that was never predicted,
    scores 0.

    Raises:
        DamagedError: If the slices are not those of the test examples.
    """
    network = load_model(trained.model, store.path(trained.keras))
    images, labels = images_and_labels(data, "test")
    logits = make_predictor(network, uses_xla(network, data.image_shape, "auto"))(images)
    np.save(folder / "predictions.npy", softmax(logits), allow_pickle=False)
    predicted, names = logits.argmax(axis=-1), range(len(data.classes))
    correct = int((predicted == labels).sum())
    low, high = _interval(correct, len(labels))
    confusion = confusion_matrix(labels, predicted, labels=names)
    small = len(names) <= _CLASSES
    if not small:
        np.save(folder / "confusion.npy", confusion, allow_pickle=False)
    scores = zip(*precision_recall_fscore_support(labels, predicted, labels=names, zero_division=0), strict=True)
    evaluation = Evaluation(
        accuracy=correct / len(labels),
        accuracy_low=low,
        accuracy_high=high,
        loss=cross_entropy(logits, labels),
        test_examples=len(labels),
        test_digest=data.test_digest,
        per_class=tuple(
            ClassScore(name=name, precision=precision, recall=recall, f1=f1, examples=int(examples))
            for name, (precision, recall, f1, examples) in zip(data.classes, scores, strict=True)
        ),
        confusion=tuple(map(tuple, confusion.tolist())) if small else (),
        predictions_digest=checksums.sha256(folder / "predictions.npy"),
        slices=_slice_scores(slices_of(data), predicted == labels),
    )
    log.info(
        "accuracy %.4f (%.4f to %.4f) on %d test examples",
        *(evaluation.accuracy, evaluation.accuracy_low, evaluation.accuracy_high, evaluation.test_examples),
    )
    return evaluation


def _slice_scores(slices: Slices, right: np.ndarray) -> tuple[SliceScore, ...]:
    counts = zip(slices.names, slices.counts(np.ones_like(right)), slices.counts(right), strict=True)
    return tuple(
        SliceScore(column=column, value=value, examples=examples, right=hits, accuracy_low=low, accuracy_high=high)
        for (column, value), examples, hits in counts
        for low, high in [_interval(hits, examples)]
    )


def _interval(right: int, examples: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy.

    References:
        Wilson, Probable inference, the law of succession, and statistical inference (1927).
    """
    interval = binomtest(right, examples).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)
