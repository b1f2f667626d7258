"""The prepared images and labels of a split, memory-mapped."""

import weakref
from pathlib import Path

import numpy as np

from layerflow import store
from layerflow.errors import DamagedError
from layerflow.packed import Images, PackedImages
from layerflow.parts import parts_of
from layerflow.records import DatasetRef

#: The images of packs that are open in this process: each map is an open file, and splits share packs.
_open: "weakref.WeakValueDictionary[Path, np.memmap]" = weakref.WeakValueDictionary()
#: What reading an array that is not what it must be can raise.
_UNFIT = (ValueError, TypeError, IndexError, EOFError, MemoryError)


def labels_of(data: DatasetRef, split: str) -> np.ndarray:
    """The memory-mapped labels of a split, ``int32`` of shape ``(examples,)``."""
    labels: np.ndarray = np.load(store.path(data.folder) / f"{split}_labels.npy", mmap_mode="r", allow_pickle=False)
    return labels


def images_and_labels(data: DatasetRef, split: str) -> tuple[Images, np.ndarray]:
    """The memory-mapped images and labels of a split.

    Returns:
        The images, ``uint8`` of shape ``(examples, height, width, channels)``, and the labels, ``int32`` of shape
        ``(examples,)``.

    Raises:
        DamagedError: If the packs do not have the images of this version.
    """
    folder = store.path(data.folder)
    if (whole := folder / f"{split}_images.npy").exists():  # an earlier layerflow had no packs
        return np.load(whole, mmap_mode="r", allow_pickle=False), labels_of(data, split)
    packs = [store.path(part) for part in parts_of(folder)]
    try:
        places, digests = (np.load(folder / f"{split}_{name}.npy", allow_pickle=False) for name in ("rows", "sha256"))
        theirs = [np.load(pack / "digests.npy", allow_pickle=False) for pack in packs]
        images = [_mapped(pack / "images.npy") for pack in packs]
        same = (
            all(each.dtype == np.uint8 and each.shape[1:] == data.image_shape for each in images)
            and [len(each) for each in images] == [len(each) for each in theirs]
            and np.array_equal(np.asarray(PackedImages(theirs, places)), digests)
        )
    except _UNFIT:
        same = False
    if not same:
        raise DamagedError(
            f"{folder} must say where its images are. Its packs have others there; delete the folder, and the next run "
            "makes it again."
        )
    return PackedImages(images, places), labels_of(data, split)


def where(data: DatasetRef, split: str) -> str | dict[str, object]:
    """Where the images of a split are, for a process that knows nothing of this code: a file, or packs and rows."""
    folder = store.path(data.folder)
    if (whole := folder / f"{split}_images.npy").exists():
        return str(whole)
    packs = [str(store.path(part) / "images.npy") for part in parts_of(folder)]
    return {"packs": packs, "rows": str(folder / f"{split}_rows.npy")}


def _mapped(file: Path) -> np.ndarray:
    if (found := _open.get(file)) is None:
        found = _open[file] = np.load(file, mmap_mode="r", allow_pickle=False)
    return found
