"""The examples of a TensorFlow Datasets (TFDS) dataset, as ``load`` reads them."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from layerflow.data import decode, tfds_source
from layerflow.data.packs import Packs
from layerflow.data.rows import Content, Row
from layerflow.data.threads import in_threads
from layerflow.errors import DatasetError, did_you_mean, printed
from layerflow.settings.data import DataConfig, splits_in

T = TypeVar("T")
#: Bytes of images that are handled at once: so many that the work costs more than the calls, few for any memory.
_BATCH_BYTES = 2**23
#: Images that a thread makes fit at a time.
_PART = 8
#: TFDS would keep decoded images in memory where what they are made of is small.
_NO_CACHE = tfds.ReadConfig(try_autocache=False)
#: What TensorFlow raises of a damaged record, of an image that can't be decoded, of a missing file, of missing records.
_UNREADABLE = (
    *(tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError),
    *(tf.errors.FailedPreconditionError, tf.errors.OutOfRangeError),
)


class TfdsSource:
    """The examples of ``config.name``: one of their images, one of their class labels, and what they are sliced by.

    Raises:
        DatasetError: If the dataset is unknown, has no such features, or its images have no common shape.
    """

    broken = 0
    #: Examples are known by their images alone, for they are not files.
    rule = ""

    def __init__(self, config: DataConfig) -> None:
        self._config = config
        self._builder = tfds_source.find_builder(config)
        info = self._builder.info
        self._features = dict(info.features.items()) if hasattr(info.features, "items") else {}
        self._image = self._choose("image", tfds.features.Image, config.image)
        self._label = self._choose("label", tfds.features.ClassLabel, config.label)
        self.columns = self._require_values(config.slice_features)
        self.name, self.version = self._builder.name, str(self._builder.version)
        self.classes = tuple(self._features[self._label].names)
        self.shape = self._shape()
        self._is_fitting = self._features[self._image].shape == self.shape
        self.image_rule = "as they are" if self._is_fitting else decode.RULE

    def _choose(self, field: str, kind: type, given: str | None) -> str:
        """The feature of a kind that is asked for, that the dataset itself chooses, or that is the only one."""
        named = [name for name, feature in self._features.items() if isinstance(feature, kind)]
        dataset = printed(repr(self._builder.name))
        if not named:
            raise DatasetError(
                f"Dataset {dataset} must hold one image and one class label an example. It holds "
                f"{_listed(self._features) or 'neither'}; choose an image classification dataset."
            )
        if given is not None:
            if given in named:
                return given
            found = self._features.get(given)
            said = f", a {type(found).__name__}" if found is not None else did_you_mean(given, named)
            raise DatasetError(
                f"data.{field} must be a feature of {dataset} of the kind {kind.__name__}: {_listed(named)}. Received: "
                f"{printed(repr(given))}{said}; choose one of those."
            )
        supervised = [name for name in self._builder.info.supervised_keys or () if name in named]
        chosen = supervised if len(supervised) == 1 else named
        if len(chosen) > 1:
            raise DatasetError(
                f"Dataset {dataset} holds several features of the kind {kind.__name__}: {_listed(named)}; choose one, "
                f"with --data.{field} {printed(chosen[0])} say."
            )
        return chosen[0]

    def _require_values(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The names of features that are one whole number, text or class label an example.

        Raises:
            DatasetError: If one is not.
        """
        having = [name for name, feature in self._features.items() if _is_value(feature)]
        if wrong := [name for name in names if name not in having]:
            raise DatasetError(
                f"data.slices must name features of {printed(repr(self._builder.name))} that are a whole number, text "
                f"or a class label: {_listed(having) or 'it has none'}. Received: {printed(repr(wrong[0]))}"
                f"{did_you_mean(wrong[0], having)}; name others, or leave data.slices out."
            )
        return names

    def _shape(self) -> tuple[int, int, int]:
        feature = self._features[self._image]
        height, width, channels = feature.shape
        if self._config.size:
            height, width = self._config.size
        channels = self._config.channels or channels
        dtype = np.dtype(feature.np_dtype)
        if height is None or width is None or channels is None or dtype != np.uint8:
            raise DatasetError(
                f"The images of {self._builder.name!r} must be uint8 and get one shape. They are {dtype} of "
                f"shape {feature.shape}; say which with --data.image_size 32x32 and --data.channels 3, or choose "
                "another."
            )
        return height, width, channels

    def where(self) -> str:
        """Where the examples will be found, as text.

        Raises:
            MirrorError: If the mirror lacks a file or holds a damaged one.
            UnreachableError: If the files must be downloaded and the network can't be reached.
        """
        if self._builder.info.splits:
            self.expressions()
        return tfds_source.require_sources(self._builder, self._config)

    def prepare(self, scratch: Path) -> None:
        """Let TFDS download and convert the dataset, if it isn't there."""
        tfds_source.prepare(self._builder, self._config, scratch)
        # Another builder: one that was made before another process prepared the dataset knows no splits.
        self._builder = tfds_source.find_builder(self._config)

    def expressions(self) -> dict[str, str]:
        """The split expression that is read for each split that is given or that the dataset has.

        Raises:
            DatasetError: If an expression names a split or a part that the dataset does not have.
        """
        chosen = {"train": "train", **self._config.splits.model_dump(exclude_none=True)}
        used = {name for expression in chosen.values() for name in splits_in(expression)}
        free = [name for name in ("test", "validation") if name in self._builder.info.splits and name not in used]
        expressions = {"test": free[0], **chosen} if free else chosen
        for split, expression in expressions.items():
            self._require(split, expression)
        return {split: expressions[split] for split in ("train", "validation", "test") if split in expressions}

    def _require(self, split: str, expression: str) -> None:
        splits = self._builder.info.splits
        if unknown := [name for name in splits_in(expression) if name not in splits]:
            raise DatasetError(
                f"data.splits.{split} must name splits of {self._builder.name!r}, which are {_listed(splits)}. "
                f"Received: {expression}{did_you_mean(unknown[0], splits)}; set --data.splits.{split} to one of them."
            )
        try:
            found = self.count(expression)
        except (ValueError, AssertionError, NotImplementedError) as error:
            raise DatasetError(
                f"data.splits.{split} must be a part that {self._builder.name!r} has. Received: {expression} "
                f"({printed(' '.join(str(error).split()))}); choose another."
            ) from error
        if not found:
            raise DatasetError(f"data.splits.{split} must hold examples. {expression} holds 0; choose another.")

    def count(self, expression: str) -> int:
        """How many examples a split expression has."""
        return int(self._builder.info.splits[expression].num_examples)

    def examples(self, expression: str, packs: Packs) -> Iterator[tuple[Row, int, tuple[str, ...]]]:
        """Each image of a split expression, now in ``packs``, with its label and its slices, in TFDS' own order.

        Raises:
            DatasetError: If a record can't be read, or an example has no label.
        """
        read, unlabelled = 0, 0
        try:
            for image, label, slices in self._examples(expression):
                read, unlabelled = read + 1, unlabelled + (label < 0)
                yield packs.add(Content.of(image)), label, slices
        except _UNREADABLE as error:
            tfds_source.refuse_damaged(self._builder, error)
        if read != self.count(expression) or unlabelled:
            raise DatasetError(
                f"Split {expression!r} of {self._builder.name!r} must hold {self.count(expression)} labelled images; "
                f"{read} were read, {unlabelled} of them without a label. Choose a dataset whose {expression} is "
                "labelled."
            )

    def _examples(self, expression: str) -> Iterator[tuple[np.ndarray, int, tuple[str, ...]]]:
        dataset = self._builder.as_dataset(split=expression, shuffle_files=False, read_config=_NO_CACHE)
        needed = (self._image, self._label, *self.columns)
        chosen = dataset.map(lambda example: tuple(example[name] for name in needed))
        if self._is_fitting:
            size = max(1, _BATCH_BYTES // int(np.prod(self.shape)))
            for images, labels, *values in tfds.as_numpy(chosen.batch(size)):
                yield from zip(images, labels.tolist(), self._texts(values, len(images)), strict=True)
            return
        for part, images in in_threads(lambda each: decode.fit(each[0], self.shape), tfds.as_numpy(chosen), _PART):
            _, labels, *values = zip(*part, strict=True)
            yield from zip(images, map(int, labels), self._texts(values, len(images)), strict=True)

    def _texts(self, values: list[Any], count: int) -> Iterable[tuple[str, ...]]:
        """The slices of each example, from the values of each feature."""
        if not self.columns:
            return itertools.repeat((), count)
        features = [self._features[name] for name in self.columns]
        texts = [[_text(feature, value) for value in of] for feature, of in zip(features, values, strict=True)]
        return zip(*texts, strict=True)

    def require_complete(self) -> None:
        """Do nothing: ``examples`` has counted the examples."""


def _is_value(feature: Any) -> bool:
    return (
        isinstance(feature, tfds.features.Tensor)
        and feature.shape == ()
        and np.dtype(feature.np_dtype).kind in "iubO"  # whole numbers, truth values, and text
    )


def _text(feature: Any, value: Any) -> str:
    """The value of a feature as the name of a slice; nothing for a class label that is not known."""
    if isinstance(feature, tfds.features.ClassLabel):
        return str(feature.names[value]) if value >= 0 else ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _listed(names: Iterable[str]) -> str:
    return printed(", ".join(names), 400)
