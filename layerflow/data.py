"""From a dataset's name to ``uint8`` arrays on disk, through TensorFlow Datasets (TFDS)."""

import hashlib
import json
import logging
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import tensorflow_datasets as tfds
from filelock import FileLock
from numpy.lib.format import open_memmap

import layerflow.digits  # noqa: F401  (registers the builder `digits`)
from layerflow import store
from layerflow.config import DataConfig
from layerflow.errors import DatasetError, MirrorError, UnreachableError, did_you_mean
from layerflow.records import DatasetRef

log = logging.getLogger(__name__)

#: Examples read from TFDS at once: 0.8 MB of MNIST images, large enough that the reading costs more than the calls.
_BATCH = 1024
_SPLIT_RULE = (
    "an image of the training split validates if the first 8 bytes of the SHA-256 of its bytes, as a share of 2^64, "
    "are below validation_fraction; test is the dataset's own"
)


def load(config: DataConfig, folder: Path) -> DatasetRef:
    """Prepare the dataset and write its splits into ``folder``.

    Writes ``<split>_images.npy``, ``uint8`` of shape ``(examples, height, width, channels)``, and
    ``<split>_labels.npy``, ``int32`` of shape ``(examples,)``, for train, validation and test.

    Raises:
        DatasetError: If the dataset is unknown, or is no set of labelled images of one shape.
        MirrorError: If the mirror lacks a file or holds a damaged one.
        UnreachableError: If the files must be downloaded and the network can't be reached.
    """
    _prepare(find_builder(config), config, folder)
    builder = find_builder(config)  # anew: one made before another process prepared the dataset knows no splits
    image, label = _image_and_label(builder)
    splits = builder.info.splits
    names = {"train": "train", "test": "test" if "test" in splits else "validation"}
    if missing := [name for name in names.values() if name not in splits]:
        raise DatasetError(
            f"Dataset {config.name!r} must have the splits train and test. It has {', '.join(splits)}, "
            f"without {missing[0]}; choose one that has both."
        )
    for split, theirs in names.items():
        _write_split(builder, theirs, image, label, folder, split)
    _hold_back_validation(folder, config.validation_fraction)
    return _describe(builder, image, label, folder)


def check(config: DataConfig) -> str:
    """Raise what ``load`` would raise before it reads any example: a wrong name, a mirror that is not whole.

    Returns:
        Where ``load`` will find the examples, in words.
    """
    return _require_sources(find_builder(config), config)


def images_and_labels(data: DatasetRef, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The memory-mapped images and labels of a split, as ``load`` describes them."""
    folder = store.path(data.folder)
    images = np.load(folder / f"{split}_images.npy", mmap_mode="r", allow_pickle=False)
    return images, np.load(folder / f"{split}_labels.npy", mmap_mode="r", allow_pickle=False)


def find_builder(config: DataConfig) -> tfds.core.DatasetBuilder:
    """The TFDS builder of ``config.name``, known to hold one image and one class label an example.

    Raises:
        DatasetError: With near matches for an unknown name, or with what the dataset holds instead.
    """
    name = config.name.partition(":")[0].partition("/")[0]
    try:
        builder = tfds.builder(config.name, data_dir=_data_dir(), try_gcs=False)
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        raise DatasetError(
            f"data.name must be `digits` or the name of a TensorFlow Datasets dataset. "
            f"Received: {config.name!r}{did_you_mean(name, known)}."
        ) from error
    except (
        AssertionError,
        ValueError,
    ) as error:  # TFDS's words for a version or configuration it does not have
        reason = str(error).strip().splitlines()[0]
        raise DatasetError(f"TensorFlow Datasets can't build {config.name!r}: {reason}") from error
    _image_and_label(builder)
    return builder


def _data_dir() -> Path:
    """Where TFDS keeps prepared datasets: its own variable TFDS_DATA_DIR, or the store."""
    return Path(os.environ.get("TFDS_DATA_DIR") or store.root() / "tfds").expanduser()


def _image_and_label(builder: tfds.core.DatasetBuilder) -> tuple[str, str]:
    """The keys of the one image feature and the one class label.

    Raises:
        DatasetError: If there is not exactly one of each, or the images are not ``uint8`` of one shape.
    """
    features = dict(builder.info.features.items()) if hasattr(builder.info.features, "items") else {}
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    supervised = builder.info.supervised_keys
    if supervised and len(supervised) == 2 and supervised[0] in images and supervised[1] in labels:
        image, label = supervised
    elif len(images) == len(labels) == 1:
        image, label = images[0], labels[0]
    else:
        raise DatasetError(
            f"Dataset {builder.name!r} must hold one image and one class label an example. "
            f"It holds {', '.join(features) or 'neither'}; choose an image classification dataset."
        )
    shape, dtype = features[image].shape, np.dtype(features[image].np_dtype)
    if None in shape or dtype != np.uint8:
        raise DatasetError(
            f"The images of {builder.name!r} must be uint8 of one fixed shape. They are {dtype} of shape {shape}; "
            "choose a dataset with images of one size."
        )
    return image, label


def _prepare(builder: tfds.core.DatasetBuilder, config: DataConfig, scratch: Path) -> None:
    """Let TFDS download, check and convert the dataset, once however many runs ask for it."""
    home = Path(builder.data_dir).parent
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / ".layerflow.lock"):
        if Path(builder.data_dir).exists():
            return
        for leftover in home.glob("incomplete.*"):  # of a preparation that was killed: its lock is ours now
            shutil.rmtree(leftover)
        _require_sources(builder, config)
        mirror = config.mirror_folder
        tfds.disable_progress_bar()
        log.info("preparing %s from %s", builder.info.full_name, mirror or "its source")
        builder.download_and_prepare(
            download_dir=scratch / "downloads",
            download_config=tfds.download.DownloadConfig(
                manual_dir=mirror / builder.name if mirror else None,
                # One for each dataset: in a shared one TFDS mixes files of equal names.
                extract_dir=scratch / "extracted",
            ),
        )
        for folder in ("downloads", "extracted"):
            shutil.rmtree(scratch / folder, ignore_errors=True)


def _require_sources(builder: tfds.core.DatasetBuilder, config: DataConfig) -> str:
    """Know before TFDS starts that every raw file can be had, and from where: it would retry for minutes.

    Raises:
        MirrorError: If a mirror is set, and lacks a file or holds a damaged one.
        UnreachableError: If no mirror is set and the files' server does not answer.
    """
    if Path(builder.data_dir).exists():
        return f"prepared in {builder.data_dir}"
    files = type(builder).url_infos
    if not files:
        return "made on this machine, nothing is downloaded"
    if mirror := config.mirror_folder:
        # A builder with several configurations lists the files of all; each needs only its own.
        complete = len(builder.builder_configs) < 2
        _check_mirror(mirror / builder.name, files, complete)
        which = "all raw files" if complete else "the raw files that are there"
        return f"{which}, in {mirror / builder.name}, have their SHA-256"
    url = next(iter(files))
    _check_network(builder.name, url)
    return f"to be downloaded from {urlsplit(url).hostname}, which can be reached"


def _check_mirror(folder: Path, files: dict[str, tfds.download.checksums.UrlInfo], complete: bool) -> None:
    for expected in files.values():
        file = folder / expected.filename
        if not file.is_file():
            if complete:
                raise MirrorError(f"The mirror must hold {file}, which is not there; add it under that name.")
            continue
        if (received := store.sha256(file)) != expected.checksum:
            raise MirrorError(
                f"{file} in the mirror is damaged: expected SHA-256 {expected.checksum}, received {received}; "
                "copy it again."
            )


def _check_network(name: str, url: str) -> None:
    parts = urlsplit(url)
    try:
        # 5 seconds: a server that takes longer to answer would take hours for a dataset.
        socket.create_connection((parts.hostname, parts.port or {"https": 443}.get(parts.scheme, 80)), 5).close()
    except OSError as error:
        raise UnreachableError(
            f"Dataset {name!r} must be downloaded, and {parts.hostname} can't be reached ({error}); "
            "connect this machine, or set data.mirror (or LAYERFLOW_MIRROR) to a folder that holds "
            f"{name}/ with the raw files."
        ) from error


def _write_split(
    builder: tfds.core.DatasetBuilder, theirs: str, image: str, label: str, folder: Path, split: str
) -> None:
    """Write one split's arrays, a batch at a time, in the dataset's own order."""
    count = builder.info.splits[theirs].num_examples
    shape = (count, *builder.info.features[image].shape)
    images = open_memmap(folder / f"{split}_images.npy", mode="w+", dtype=np.uint8, shape=shape)
    labels = open_memmap(folder / f"{split}_labels.npy", mode="w+", dtype=np.int32, shape=(count,))
    dataset = builder.as_dataset(split=theirs, shuffle_files=False).batch(_BATCH)
    start = 0
    for batch in tfds.as_numpy(dataset):
        stop = start + len(batch[label])
        images[start:stop], labels[start:stop] = batch[image], batch[label]
        start = stop
    if start != count or count == 0 or labels.min() < 0:
        raise DatasetError(
            f"Split {theirs!r} of {builder.name!r} must hold {count} labelled images; {start} were read, "
            f"{int((labels[:start] < 0).sum())} of them without a label. Choose a dataset whose {theirs} is labelled."
        )


def _hold_back_validation(folder: Path, fraction: float) -> None:
    """Divide the train arrays into train and validation by ``_SPLIT_RULE``."""
    images = np.load(folder / "train_images.npy", mmap_mode="r", allow_pickle=False)
    labels = np.load(folder / "train_labels.npy", allow_pickle=False)
    validates = np.fromiter((_share(image) < fraction for image in images), dtype=bool, count=len(images))
    if validates.all() or not validates.any():
        raise DatasetError(
            f"data.validation_fraction must leave images on both sides. With {fraction}, {int(validates.sum())} of "
            f"{len(validates)} training images would validate; choose another fraction."
        )
    for split, chosen in (("validation", validates), ("rest", ~validates)):
        part = open_memmap(
            folder / f"{split}_images.npy",
            mode="w+",
            dtype=np.uint8,
            shape=(int(chosen.sum()), *images.shape[1:]),
        )
        for rows, batch in _batches(np.flatnonzero(chosen)):
            part[rows] = images[batch]
        np.save(folder / f"{split}_labels.npy", labels[chosen], allow_pickle=False)
    for kind in ("images", "labels"):
        (folder / f"rest_{kind}.npy").replace(folder / f"train_{kind}.npy")


def _share(image: np.ndarray) -> float:
    """The image's place between 0 and 1, decided by its bytes alone."""
    return int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:8], "big") / 2**64


def _batches(indices: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    for start in range(0, len(indices), _BATCH):
        yield slice(start, start + _BATCH), indices[start : start + _BATCH]


def _describe(builder: tfds.core.DatasetBuilder, image: str, label: str, folder: Path) -> DatasetRef:
    splits = ("train", "validation", "test")
    files = {file.name: store.sha256(file) for file in sorted(folder.glob("*.npy"))}
    classes = tuple(builder.info.features[label].names)
    sizes = {split: np.load(folder / f"{split}_labels.npy", mmap_mode="r", allow_pickle=False).size for split in splits}
    test = [files["test_images.npy"], files["test_labels.npy"], list(classes)]
    return DatasetRef(
        name=builder.name,
        version=str(builder.version),
        digest=_digest([files, list(classes)]),
        test_digest=_digest(test),
        image_shape=tuple(builder.info.features[image].shape),
        classes=classes,
        counts=sizes,
        split_rule=_SPLIT_RULE,
    )


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
