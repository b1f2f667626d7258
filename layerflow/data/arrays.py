"""The prepared images and labels of a split, memory-mapped."""

import numpy as np

from layerflow import store
from layerflow.errors import DamagedError
from layerflow.packed import Images, PackedImages
from layerflow.parts import parts_of
from layerflow.records import DatasetRef


def images_and_labels(data: DatasetRef, split: str) -> tuple[Images, np.ndarray]:
    """The memory-mapped images and labels of a split.

    Returns:
        The images, ``uint8`` of shape ``(examples, height, width, channels)``, and the labels, ``int32`` of shape
        ``(examples,)``.

    Raises:
        DamagedError: If the packs do not have the images of this version.
    """
    folder = store.path(data.folder)
    labels = np.load(folder / f"{split}_labels.npy", mmap_mode="r", allow_pickle=False)
    if (whole := folder / f"{split}_images.npy").exists():  # an earlier layerflow had no packs
        return np.load(whole, mmap_mode="r", allow_pickle=False), labels
    packs = [store.path(part) for part in parts_of(folder)]
    places, digests = (np.load(folder / f"{split}_{name}.npy", allow_pickle=False) for name in ("rows", "sha256"))
    theirs = PackedImages([np.load(pack / "digests.npy", mmap_mode="r", allow_pickle=False) for pack in packs], places)
    try:
        same = np.array_equal(np.asarray(theirs), digests)
    except IndexError:  # a row that no pack has
        same = False
    if not same:
        raise DamagedError(
            f"{folder} must say where its images are. Its packs have others there; delete the folder, and the next run "
            "makes it again."
        )
    images = [np.load(pack / "images.npy", mmap_mode="r", allow_pickle=False) for pack in packs]
    return PackedImages(images, places), labels


def where(data: DatasetRef, split: str) -> str | dict[str, object]:
    """Where the images of a split are, for a process that knows nothing of this code: a file, or packs and rows."""
    folder = store.path(data.folder)
    if (whole := folder / f"{split}_images.npy").exists():
        return str(whole)
    packs = [str(store.path(part) / "images.npy") for part in parts_of(folder)]
    return {"packs": packs, "rows": str(folder / f"{split}_rows.npy")}
