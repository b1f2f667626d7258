"""The prepared images and labels of a split, memory-mapped."""

import numpy as np

from layerflow import store
from layerflow.records import DatasetRef


def images_and_labels(data: DatasetRef, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The memory-mapped images and labels of a split, as ``load`` describes them."""
    folder = store.path(data.folder)
    images = np.load(folder / f"{split}_images.npy", mmap_mode="r", allow_pickle=False)
    return images, np.load(folder / f"{split}_labels.npy", mmap_mode="r", allow_pickle=False)
