"""Which images a split holds: the digest of each."""

from pathlib import Path

import numpy as np

from layerflow import store
from layerflow.records import DatasetRef


def image_digests(data: DatasetRef, *splits: str) -> np.ndarray:
    """The digests of the images of these splits, one after the other: ``uint64`` of shape ``(examples,)``.

    A digest is the first 8 bytes of the SHA-256 of an image's bytes, the number by which ``data.validation_fraction``
    chooses. Two of a million images have the same one with a probability of 3e-8.
    """
    return np.concatenate([_of_split(store.path(data.folder), split) for split in splits])


def _of_split(folder: Path, split: str) -> np.ndarray:
    if (short := folder / f"{split}_digests.npy").exists():  # an earlier layerflow had no packs
        return np.asarray(np.load(short, allow_pickle=False))
    whole = np.load(folder / f"{split}_sha256.npy", allow_pickle=False)
    return np.ascontiguousarray(whole[:, :8]).view(">u8").ravel().astype(np.uint64)
