"""Contract tests for extensions of your own: each raises an ``AssertionError`` that says what is wrong.

Example:
    >>> def test_my_metric():
    ...     testing.assert_metric(my_metric)
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np

from layerflow.extensions import Check, Data, Exporter, Level, Metric, Publisher, Run, Tracker, Version

_CLASSES, _SHAPE = ("cat", "dog", "fish"), (8, 8, 1)
#: Images of each split, and by how much answers may differ between batches.
_IMAGES, _ROUNDING = 60, 1e-4


def example_data(seed: int = 0) -> Data:
    """Made data of three classes: in each split 60 images, ``uint8`` of shape ``(8, 8, 1)``, that can't be written."""
    drawn = np.random.default_rng(seed)
    splits = {}
    for split in ("train", "validation", "test"):
        images = drawn.integers(0, 256, (_IMAGES, *_SHAPE), np.uint8)
        labels = np.arange(_IMAGES, dtype=np.int32) % len(_CLASSES)
        images.setflags(write=False)
        labels.setflags(write=False)
        splits[split] = images, labels
    return Data("example", "0" * 64, _CLASSES, _SHAPE, lambda split: splits[split])


def assert_check(check: Check) -> None:
    """See that a check yields levels and sentences, the same ones for the same data, and changes no image."""
    data = example_data()
    found = list(check(data))
    for each in found:
        _assert(
            isinstance(each, tuple)
            and len(each) == 2
            and each[0] in get_args(Level)
            and isinstance(each[1], str)
            and bool(each[1].strip()),
            "A check must yield pairs of a level (info, warn, stop) and a sentence",
            each,
        )
    again = list(check(data))
    _assert(again == found, "A check must find the same in the same data", f"{found}, then {again}")


def assert_metric(metric: Metric) -> None:
    """See that a metric gives a finite number, which depends on nothing but the labels and the probabilities."""
    drawn = np.random.default_rng(0)
    labels = drawn.integers(0, len(_CLASSES), _IMAGES, np.int32)
    probabilities = drawn.dirichlet(np.ones(len(_CLASSES)), _IMAGES).astype(np.float32)
    before = labels.copy(), probabilities.copy()
    figure = float(metric(labels, probabilities))
    _assert(bool(np.isfinite(figure)), "A metric must give a finite number", figure)
    unchanged = np.array_equal(labels, before[0]) and np.array_equal(probabilities, before[1])
    _assert(unchanged, "A metric must not change what it is given", "other labels or probabilities afterwards")
    again = float(metric(*before))
    _assert(again == figure, "A metric must give the same for the same answers", f"{figure}, then {again}")
    order = drawn.permutation(_IMAGES)
    other = float(metric(labels[order], probabilities[order]))
    same = bool(np.isclose(other, figure, rtol=1e-6))
    _assert(same, "A metric must not depend on the order of the images", f"{figure}, then {other}")
    one = float(metric(labels[labels == 0], probabilities[labels == 0]))
    _assert(bool(np.isfinite(one)), "A metric must give a finite number where the images are of one class", one)


def assert_exporter(exporter: Callable[[], Exporter], saved_model: Path | str | None = None) -> None:
    """See that an exporter writes a file that answers as the SavedModel does, in batches of any size.

    Args:
        exporter: The class.
        saved_model: A model that layerflow exported, such as ``store/models/mlp-digits/1``; default: a small dense
            network.
    """
    made = exporter()
    name = getattr(made, "file", None)
    _assert(isinstance(name, str) and bool(name), "An exporter must have the name of its file as `file`", name)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(saved_model) if saved_model else _write_model(Path(scratch, "model"))
        images, expected = _answers(folder)
        file = Path(scratch, str(name))
        made.export(folder, file)
        written = file.is_file() and file.stat().st_size > 0
        _assert(written, "An exporter must write its file", "no file, or an empty one")
        model = exporter().load(file)
        given = np.asarray(model(images))
        right = given.shape == expected.shape and given.dtype.kind == "f" and bool(np.isfinite(given).all())
        received = f"{given.dtype} of shape {given.shape}"
        _assert(right, f"An exporter must give finite floats of shape {expected.shape}", received)
        share = float((given.argmax(axis=-1) == expected.argmax(axis=-1)).mean())
        _assert(share > 0.9, "An exporter must give the classes that the SavedModel does", f"{share:.0%} of them")
        one = np.concatenate([np.asarray(model(image[None])) for image in images])
        apart = float(np.abs(one - given).max())
        _assert(apart < _ROUNDING, "An exporter must answer the same in batches of any size", f"{apart:.1e} apart")


def assert_tracker(tracker: Tracker) -> None:
    """See that a tracker bears to be told of a run again and again: in training, at the end, and once more."""
    epochs = tuple(
        {"epoch": float(epoch), "loss": 1 / epoch, "accuracy": 0.5, "val_loss": 1 / epoch, "val_accuracy": 0.5}
        for epoch in range(1, 4)
    )
    data = {"name": "example", "version": "1.0.0", "digest": "0" * 64, "counts": {"train": 60}, "classes": _CLASSES}
    with tempfile.TemporaryDirectory() as scratch:
        in_training = Run("0" * 32, "example", {"training": {"epochs": 3}}, data, epochs[:1], {}, {}, None, {})
        done = in_training._replace(
            epochs=epochs,
            figures={"test_accuracy": 0.5, "test_loss": 1.0},
            cards={"training": "# Training\n"},
            saved_model=_write_model(Path(scratch, "model")),
            decision={"code": "promoted_first", "reason": "there was no live version", "version": 1},
        )
        for run in (in_training, in_training._replace(epochs=epochs[1:]), done, done):
            tracker(run)


def assert_publisher(publisher: Publisher) -> None:
    """See that a publisher takes a version, takes it twice, and leaves the folder as it was."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = _write_model(Path(scratch, "1"))

        def content() -> dict[str, bytes]:
            return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

        before = content()
        for _ in range(2):
            publisher(Version("example", 1, folder, {"name": "example", "version": 1}))
        _assert(content() == before, "A publisher must leave the version as it is", "a folder with other content")


def _assert(right: bool, expected: str, received: Any) -> None:
    if not right:
        raise AssertionError(f"{expected}. Received: {received}")


def _write_model(folder: Path) -> Path:
    """A SavedModel with the signature ``serving_default`` of layerflow's exports, and random weights."""
    import tensorflow as tf

    drawn = tf.random.Generator.from_seed(0)
    module = tf.Module()
    module.w = tf.Variable(drawn.normal((int(np.prod(_SHAPE)), len(_CLASSES))), name="w")
    module.b = tf.Variable(drawn.normal((len(_CLASSES),)), name="b")

    @tf.function(input_signature=[tf.TensorSpec((None, *_SHAPE), tf.uint8, name="images")])
    def served(images: Any) -> dict[str, Any]:
        flat = tf.reshape(tf.cast(images, tf.float32) / 255, (-1, int(np.prod(_SHAPE))))
        probabilities = tf.nn.softmax(flat @ module.w + module.b)
        return {"probabilities": probabilities, "class_id": tf.argmax(probabilities, -1)}

    tf.saved_model.save(module, str(folder), signatures={"serving_default": served})
    return folder


def _answers(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Random images of the model's shape, and the probabilities that it gives them."""
    import tensorflow as tf

    served = tf.saved_model.load(str(folder)).signatures["serving_default"]
    shape = served.structured_input_signature[1]["images"].shape[1:]
    images = np.random.default_rng(0).integers(0, 256, (_IMAGES, *shape), np.uint8)
    return images, served(images=tf.constant(images))["probabilities"].numpy()
