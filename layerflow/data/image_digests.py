"""Which images a split holds: the digest of each."""

import numpy as np

from layerflow import store
from layerflow.records import DatasetRef


def image_digests(data: DatasetRef, *splits: str) -> np.ndarray:
    """The digests of the images of these splits, one after the other: ``uint64`` of shape ``(examples,)``.

    A digest is the first 8 bytes of the SHA-256 of an image's bytes, the number by which ``data.validation_fraction``
    chooses. Two of a million images have the same one with a probability of 3e-8.
    """
    folder = store.path(data.folder)
    return np.concatenate([np.load(folder / f"{split}_digests.npy", allow_pickle=False) for split in splits])
