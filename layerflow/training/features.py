"""What a frozen backbone makes of the images: computed once, kept in the store, and what the head then learns from."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.lib.format import open_memmap

from layerflow import artifacts, devices, store
from layerflow.code_digest import code_digest
from layerflow.data.arrays import images_and_labels
from layerflow.models.network_code import network_code
from layerflow.models.predict import make_predictor
from layerflow.records import DatasetRef, Record
from layerflow.settings.applications import is_application
from layerflow.settings.hub import is_hub

log = logging.getLogger(__name__)
#: Images whose features are held in memory at once.
_ROWS = 10_000
#: Settings of a network that are those of its head, and what Keras calls it.
_OF_THE_HEAD = {"classes", "dropout", "name", "trainable"}


class FeaturesRef(Record):
    """The features of the training and validation images, as memory-mappable ``float32`` arrays ``<split>.npy``."""

    counts: dict[str, int]
    width: int


class Features(NamedTuple):
    """A head, and what it learns from.

    Attributes:
        head: Takes features ``(batch, width)``, gives logits. Its layers are those of the network.
        train: ``float32`` of shape ``(examples, width)``.
        validation: The same of the validation images.
    """

    head: keras.Model
    train: np.ndarray
    validation: np.ndarray


def features_of(network: Any, name: str, data: DatasetRef, xla: bool) -> Features | None:
    """The head of a network of ``keras.applications`` or KerasHub, and the features that its frozen backbone gives it.

    They are computed once for a backbone and a dataset, whatever the head and the learning rate.

    Args:
        network: An ``Application`` or a ``Hub``, or another one, of which nobody knows where its backbone ends.
        name: Its ``model.name``.
        data: The images.
        xla: Whether XLA compiles the backbone, if it can.
    """
    if not (is_application(name) or is_hub(name)):
        return None
    pooling, *rest = network.head
    key = _key(network, name, data)

    def compute(folder: Path) -> FeaturesRef:
        """Write the features of both splits, some thousand images at a time."""
        predict = make_predictor(lambda images, training: pooling(network.features(images)), xla)
        counts, width = {}, 0
        for split in ("train", "validation"):
            images, _ = images_and_labels(data, split)
            for start in range(0, len(images), _ROWS):
                rows = predict(images[start : start + _ROWS])
                if not start:
                    width = rows.shape[-1]
                    out = open_memmap(folder / f"{split}.npy", "w+", np.float32, (len(images), width))
                out[start : start + len(rows)] = rows
            out.flush()
            counts[split] = len(images)
        log.info("features of the frozen backbone: computed for %s images", f"{sum(counts.values()):,}")
        return FeaturesRef(counts=counts, width=width)

    made = artifacts.make("frozen_features", key, FeaturesRef, compute)
    arrays = (
        np.load(store.path(made.folder) / f"{split}.npy", mmap_mode="r", allow_pickle=False)
        for split in ("train", "validation")
    )
    head = keras.Sequential([keras.Input((made.width,)), *rest])
    return Features(head, *arrays)


def _key(network: Any, name: str, data: DatasetRef) -> str:
    settings = {key: value for key, value in network.get_config().items() if key not in _OF_THE_HEAD}
    digest = hashlib.sha256()
    for weight in network.backbone.weights:
        digest.update(np.ascontiguousarray(weight).tobytes())
    content = [
        json.dumps(settings, sort_keys=True, default=str),
        digest.hexdigest(),
        data.digest,
        network_code(name),
        code_digest("layerflow.training.features"),
        devices.threads_in_use(),  # on which the last bits depend
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
