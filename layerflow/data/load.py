"""From a dataset's name to ``uint8`` arrays on disk: a train, a validation and a test split."""

import hashlib
import itertools
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from numpy.lib.format import write_array_header_1_0
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from layerflow import checksums
from layerflow.data import decode, image_folder, tfds_source
from layerflow.data.image_folder_builder import ImageTree
from layerflow.errors import DatasetError
from layerflow.memory import give_back
from layerflow.records import DatasetRef
from layerflow.settings.data import DataConfig

log = logging.getLogger(__name__)
T = TypeVar("T")
Shape = tuple[int, int, int]
#: Bytes of images that are handled at once: so many that the work costs more than the calls, few for any memory.
_BATCH_BYTES = 2**23
#: Seconds between two lines that say how far reading is.
_PROGRESS_SECONDS = 10.0
#: TFDS would keep decoded images in memory where what they are made of is small.
_NO_CACHE = tfds.ReadConfig(try_autocache=False)
_SPLITS = ("train", "validation", "test")
#: What TensorFlow raises of a damaged record, of an image that can't be decoded, of a missing file, of missing records.
_UNREADABLE = (
    *(tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError),
    *(tf.errors.FailedPreconditionError, tf.errors.OutOfRangeError),
)


def load(config: DataConfig, target: Path) -> DatasetRef:
    """Read the dataset through TFDS, or a folder of images as TFDS sees it, and write its splits into ``target``.

    Writes ``<split>_images.npy``, ``uint8`` of shape ``(examples, height, width, channels)``, and
    ``<split>_labels.npy``, ``int32`` of shape ``(examples,)``, for train, validation and test.

    Raises:
        DatasetError: If the dataset is unknown, is no set of labelled images that can be given one shape, or holds more
            broken images than it may.
        MirrorError: If the mirror lacks a file or holds a damaged one.
        UnreachableError: If the files must be downloaded and the network can't be reached.
        FolderChangedError: If a folder is written to while it is read.
    """
    builder, shape = _open(config)
    if not isinstance(builder, ImageTree):
        tfds_source.prepare(builder, config, target)
        builder, shape = _open(config)  # anew: one made before another process prepared the dataset knows no splits
    splits = builder.info.splits
    pools = {"train": "train", "test": next((name for name in ("test", "validation") if name in splits), None)}
    if "train" not in splits:
        raise DatasetError(
            f"Dataset {config.name!r} must have a split train. It has {', '.join(splits)}; choose one that has it."
        )
    for pool, theirs in pools.items():
        if theirs:
            _write_pool(builder, theirs, shape, target, pool)
    if isinstance(builder, ImageTree):
        image_folder.require_few_broken(builder.listing, builder.broken, config.max_broken)
    test_is_given = pools["test"] is not None
    _divide(config, shape, target, test_is_given)
    return _describe(config, builder, shape, target, test_is_given)


def check(config: DataConfig) -> str:
    """Raise what ``load`` would raise before it reads any example: a wrong name, a mirror that is not whole.

    Returns:
        Where ``load`` will find the examples, in words.
    """
    builder, _ = _open(config)
    if isinstance(builder, ImageTree):
        return f"{len(builder.listing.files):,} files in {builder.listing.root}"
    return tfds_source.require_sources(builder, config)


def _open(config: DataConfig) -> tuple[tfds.core.DatasetBuilder, Shape]:
    """The builder of the data, and the shape that all their images get.

    Raises:
        DatasetError: If there is none, or it does not hold one image and one class label an example.
    """
    if config.path is None:
        builder = tfds_source.find_builder(config)
        return builder, _shape(builder, config)
    listing = image_folder.listed(config.path)
    shape = image_folder.shape_of(listing, config.size, config.channels)
    return ImageTree(listing, shape), shape


def _shape(builder: tfds.core.DatasetBuilder, config: DataConfig) -> Shape:
    feature = builder.info.features[_image_and_label(builder)[0]]
    height, width, channels = _own_shape(builder)
    if config.size:
        height, width = config.size
    channels = config.channels or channels
    dtype = np.dtype(feature.np_dtype)
    if height is None or width is None or channels is None or dtype != np.uint8:
        raise DatasetError(
            f"The images of {builder.name!r} must be uint8 and get one shape. They are {dtype} of "
            f"shape {feature.shape}; say which with --data.image_size 32x32 and --data.channels 3, or choose another."
        )
    return height, width, channels


def _own_shape(builder: tfds.core.DatasetBuilder) -> tuple[int | None, ...]:
    return builder.info.features[_image_and_label(builder)[0]].shape


def _image_and_label(builder: tfds.core.DatasetBuilder) -> tuple[str, str]:
    """The keys of the one image feature and the one class label.

    Raises:
        DatasetError: If there is not exactly one of each.
    """
    features = dict(builder.info.features.items()) if hasattr(builder.info.features, "items") else {}
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    supervised = builder.info.supervised_keys
    if supervised and len(supervised) == 2 and supervised[0] in images and supervised[1] in labels:
        return supervised
    if len(images) == len(labels) == 1:
        return images[0], labels[0]
    raise DatasetError(
        f"Dataset {builder.name!r} must hold one image and one class label an example. "
        f"It holds {', '.join(features) or 'neither'}; choose an image classification dataset."
    )


def _write_pool(builder: tfds.core.DatasetBuilder, theirs: str, shape: Shape, target: Path, pool: str) -> None:
    """Write one of the dataset's splits, a batch at a time, in the dataset's own order.

    As plain files, not through a memory map, whose pages would count as this process's memory.
    """
    count, said = builder.info.splits[theirs].num_examples, time.monotonic()
    labels: list[int] = []
    terminal = Console(stderr=True)
    with (
        (target / f"{pool}.pool").open("wb") as stream,
        Progress(console=terminal, transient=True, disable=not terminal.is_terminal) as bar,
    ):
        task = bar.add_task(f"reading {theirs}", total=count)
        for batch, numbers in _readable(builder, _batches(builder, theirs, shape)):
            stream.write(batch.tobytes())
            labels.extend(numbers)
            bar.update(task, completed=len(labels))
            if bar.disable and time.monotonic() - said > _PROGRESS_SECONDS:
                said = time.monotonic()
                log.info("read %s of %s images of %s", f"{len(labels):,}", f"{count:,}", theirs)
    if isinstance(builder, ImageTree):
        if builder.failure:
            raise builder.failure
    elif len(labels) != count or min(labels, default=-1) < 0:
        raise DatasetError(
            f"Split {theirs!r} of {builder.name!r} must hold {count} labelled images; {len(labels)} were read, "
            f"{sum(label < 0 for label in labels)} of them without a label. Choose a dataset whose {theirs} is "
            "labelled."
        )
    np.save(target / f"{pool}_labels.npy", np.array(labels, np.int32), allow_pickle=False)


def _readable(builder: tfds.core.DatasetBuilder, batches: Iterator[T]) -> Iterator[T]:
    """The batches; what records that can't be read make TensorFlow raise becomes one sentence.

    Raises:
        DatasetError: If a record is damaged or can't be decoded, or a file is missing.
    """
    try:
        yield from batches
    except _UNREADABLE as error:
        tfds_source.refuse_damaged(builder, error)


def _batches(builder: tfds.core.DatasetBuilder, theirs: str, shape: Shape) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    image, label = _image_and_label(builder)
    size = max(1, _BATCH_BYTES // int(np.prod(shape)))
    dataset = builder.as_dataset(split=theirs, shuffle_files=False, read_config=_NO_CACHE)
    if _own_shape(builder) == shape:
        for batch in tfds.as_numpy(dataset.batch(size)):
            yield batch[image], batch[label]
        return
    examples = iter(tfds.as_numpy(dataset))
    while part := list(itertools.islice(examples, size)):
        fitted = [decode.fit(_as_image(example[image]), shape) for example in part]
        yield np.stack(fitted), np.array([example[label] for example in part])


def _as_image(array: np.ndarray) -> Image.Image:
    return Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)


def _divide(config: DataConfig, shape: Shape, target: Path, test_is_given: bool) -> None:
    """Make train, validation and test of the pools, by the rule that ``_split_rule`` states."""
    for pool in ("train", "test") if test_is_given else ("train",):
        labels = np.load(target / f"{pool}_labels.npy", allow_pickle=False)
        (target / f"{pool}_labels.npy").unlink()
        rows = np.memmap(target / f"{pool}.pool", np.uint8, "r", shape=(len(labels), *shape)) if labels.size else labels
        sides = np.full(len(labels), pool, "<U10")
        if pool == "train":
            sides[_drawn(rows, config.validation_fraction)] = "validation"
            if not test_is_given:
                sides[_drawn(rows, config.test_fraction, b"test")] = "test"
        for split in sorted(set(sides)):
            _write_split(target, split, rows, labels, np.flatnonzero(sides == split))
        (target / f"{pool}.pool").unlink()
    for split in _SPLITS:
        if not (target / f"{split}_labels.npy").exists():
            if test_is_given and split == "test":
                raise DatasetError("The test split must hold images that can be read. It holds none; add some.")
            field = "test_fraction" if split == "test" else "validation_fraction"
            raise DatasetError(
                f"data.{field} must leave images on both sides. With {getattr(config, field)}, none are left for "
                f"{split}; choose another share, or add images."
            )


def _drawn(rows: np.ndarray, fraction: float, salt: bytes = b"") -> np.ndarray:
    """Which images are chosen: those whose place between 0 and 1, decided by their bytes, is below ``fraction``."""
    bound = int(fraction * 2**64)
    digests = (hashlib.sha256(row.tobytes() + salt).digest() for part in _parts(rows) for row in part)
    return np.fromiter((int.from_bytes(each[:8], "big") < bound for each in digests), bool, count=len(rows))


def _parts(rows: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of a mapped file by parts, each part's pages given back before the next."""
    size = max(1, _BATCH_BYTES // int(np.prod(rows.shape[1:])))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
        give_back(rows)


def _write_split(target: Path, split: str, rows: np.ndarray, labels: np.ndarray, chosen: np.ndarray) -> None:
    size = max(1, _BATCH_BYTES // int(np.prod(rows.shape[1:])))
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(chosen), *rows.shape[1:])}
    with (target / f"{split}_images.npy").open("wb") as stream:
        write_array_header_1_0(stream, header)
        for start in range(0, len(chosen), size):
            stream.write(rows[chosen[start : start + size]].tobytes())
            give_back(rows)
    np.save(target / f"{split}_labels.npy", labels[chosen], allow_pickle=False)


def _split_rule(config: DataConfig, test_is_given: bool) -> str:
    """How the splits came about, in words."""
    rule = "the first 8 bytes of the SHA-256 of its bytes, as a share of 2^64, are below"
    test = (
        "test is the data's own"
        if test_is_given
        else f"an image tests if, with `test` after its bytes, {rule} {config.test_fraction:g}"
    )
    return f"an image of the training split validates if {rule} {config.validation_fraction:g}; {test}"


def _describe(
    config: DataConfig, builder: tfds.core.DatasetBuilder, shape: Shape, target: Path, test_is_given: bool
) -> DatasetRef:
    files = {file.name: checksums.sha256(file) for file in sorted(target.glob("*.npy"))}
    classes = tuple(builder.info.features[_image_and_label(builder)[1]].names)
    counts = {split: len(np.load(target / f"{split}_labels.npy", allow_pickle=False)) for split in _SPLITS}
    digest, test_digest = DatasetRef.digests_of(files, classes)
    is_tree = isinstance(builder, ImageTree)
    return DatasetRef(
        name=config.title if is_tree else builder.name,
        version=builder.listing.digest[:12] if is_tree else str(builder.version),
        digest=digest,
        test_digest=test_digest,
        image_shape=shape,
        classes=classes,
        counts=counts,
        broken=len(builder.broken) if is_tree else 0,
        image_rule=decode.RULE if is_tree or shape != _own_shape(builder) else "as they are",
        split_rule=_split_rule(config, test_is_given),
    )
