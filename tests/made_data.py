"""Versions of data that tests make of arrays."""

from pathlib import Path

import numpy as np

from layerflow import checksums
from layerflow.data.packs import Packs
from layerflow.data.rows import Content
from layerflow.data.split_files import SplitFiles
from layerflow.records import DatasetRef


def write_version(
    folder: Path, splits: dict[str, tuple[np.ndarray, np.ndarray]], like: DatasetRef, classes: tuple[str, ...] = ()
) -> DatasetRef:
    """Write images and labels as ``load`` does, and return the record of ``like`` with their digests and counts.

    Args:
        folder: Gets the files; what is already in it counts too.
        splits: Images and labels of train, validation and test.
        like: Says the rest.
        classes: If they are not those of ``like``.
    """
    files, classes = SplitFiles(), classes or like.classes
    with Packs(folder, like.image_shape) as packs:
        for split, pairs in splits.items():
            for image, label in zip(*pairs, strict=True):
                files.add(split, packs.add(Content.of(image)), int(label))
        files.write(folder, packs)
    sums = checksums.digests(folder)
    digest, test_digest = DatasetRef.digests_of(sums, classes)
    digests = {"digest": digest, "test_digest": test_digest, "slices_digest": DatasetRef.slices_digest_of(sums)}
    return like.model_copy(
        update={**digests, "classes": classes, "counts": {name: files.count(name) for name in splits}}
    )
