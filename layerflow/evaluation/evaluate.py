"""How good a trained model is on the test split, over every example."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from layerflow import checksums, store
from layerflow.data.arrays import images_and_labels
from layerflow.data.slices import Slices, slices_of
from layerflow.evaluation.confidence import abstention_on, calibrated_on, choose_serving
from layerflow.evaluation.statistics import accuracy_interval
from layerflow.models.networks import load_model
from layerflow.models.predict import cross_entropy, make_predictor, softmax, uses_xla
from layerflow.records import DatasetRef, Evaluation, TrainedRef
from layerflow.scores import ClassScore, SliceScore
from layerflow.serving import Serving
from layerflow.settings.export import ExportConfig

log = logging.getLogger(__name__)

#: Classes up to which the confusion matrix is in the record: that of a thousand is 9 MB, in every receipt again.
_CLASSES = 200


def evaluate(
    trained: TrainedRef,
    data: DatasetRef,
    folder: Path,
    export: ExportConfig = ExportConfig(),  # noqa: B008  (frozen)
) -> Evaluation:
    """Score every test example once, and write ``predictions.npy``: ``float32`` probabilities ``(examples, classes)``.

    They are those of the model as it ships: where ``export`` asks for it, the validation examples give a temperature
    and a threshold first. The confusion matrix of very many classes is ``confusion.npy``, and not in the record.

    The interval of an accuracy is Wilson's, at 95 %; a class that no example has, or that was never predicted,
    scores 0.

    Raises:
        ConfigError: If there are too few validation examples for ``export.abstain.error``.
        DamagedError: If the slices are not those of the test examples.
    """
    network = load_model(trained.model, store.path(trained.keras))
    predict = make_predictor(network, uses_xla(network, data.image_shape, "auto"))
    serving = choose_serving(export, predict, data)
    images, labels = images_and_labels(data, "test")
    logits = predict(images)
    np.save(folder / "predictions.npy", softmax(logits, serving.temperature), allow_pickle=False)
    predicted = logits.argmax(axis=-1)
    correct = int((predicted == labels).sum())
    low, high = accuracy_interval(correct, len(labels))
    evaluation = Evaluation(
        accuracy=correct / len(labels),
        accuracy_low=low,
        accuracy_high=high,
        loss=cross_entropy(logits, labels, serving.temperature),
        test_examples=len(labels),
        test_digest=data.test_digest,
        per_class=_scores(labels, predicted, data.classes),
        confusion=_confusion(labels, predicted, len(data.classes), folder),
        predictions_digest=checksums.sha256(folder / "predictions.npy"),
        slices=_slice_scores(slices_of(data), predicted == labels),
        serving=serving,
        **_worth(export, serving, data, logits, labels),
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
        for low, high in [accuracy_interval(hits, examples)]
    )


def _scores(labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> tuple[ClassScore, ...]:
    found = precision_recall_fscore_support(labels, predicted, labels=range(len(classes)), zero_division=0)
    return tuple(
        ClassScore(name=name, precision=precision, recall=recall, f1=f1, examples=int(examples))
        for name, precision, recall, f1, examples in zip(classes, *found, strict=True)
    )


def _confusion(labels: np.ndarray, predicted: np.ndarray, classes: int, folder: Path) -> tuple[tuple[int, ...], ...]:
    """The matrix for the record; of very many classes it is written to ``folder``, and the record has none."""
    confusion = confusion_matrix(labels, predicted, labels=range(classes))
    if classes <= _CLASSES:
        return tuple(map(tuple, confusion.tolist()))
    np.save(folder / "confusion.npy", confusion, allow_pickle=False)
    return ()


def _worth(
    export: ExportConfig, serving: Serving, data: DatasetRef, logits: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """The fields of the evaluation that tell what temperature and threshold are worth, where they were asked for."""
    found: dict[str, Any] = {}
    images, asked = data.counts["validation"], export.abstain.error
    if export.calibrate == "temperature":
        found["calibrated"] = calibrated_on(logits, labels, serving.temperature, images)
    if asked is not None:
        found["abstention"] = abstention_on(logits, labels, serving, asked, images)
    return found
