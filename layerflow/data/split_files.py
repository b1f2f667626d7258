"""The arrays of a dataset's splits on disk, written while the images are read."""

from array import array
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.lib.format import write_array_header_1_0

SPLITS = ("train", "validation", "test")


class SplitFiles:
    """Writes ``<split>_images.npy``, ``_labels.npy`` and ``_digests.npy`` for train, validation and test.

    Images are appended to plain files. Pages of a memory map would count as this process's memory.

    Args:
        folder: Where the files are written.
        shape: Height, width and channels of each image.

    Example:
        >>> with SplitFiles(folder, (8, 8, 1)) as files:
        ...     files.add("train", image, 3, digest)
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int]) -> None:
        self._folder, self._shape = folder, shape
        self._labels: dict[str, list[int]] = {split: [] for split in SPLITS}
        self._digests = {split: array("Q") for split in SPLITS}
        self._streams: dict[str, BinaryIO] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        for split in SPLITS:
            self._streams[split] = self._open.enter_context((self._folder / f"{split}_images.npy").open("wb"))
            self._write_header(split)
        return self

    def add(self, split: str, image: np.ndarray, label: int, digest: int) -> None:
        """Append an image, contiguous ``uint8`` of ``shape``, the number of its class and its digest to a split."""
        self._streams[split].write(image.data)
        self._labels[split].append(label)
        self._digests[split].append(digest)

    def count(self, split: str) -> int:
        """How many images a split has."""
        return len(self._labels[split])

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._open:
            if kind is None:
                self._finish()

    def _finish(self) -> None:
        for split, labels in self._labels.items():
            self._write_header(split)
            np.save(self._folder / f"{split}_labels.npy", np.array(labels, np.int32), allow_pickle=False)
            digests = np.frombuffer(self._digests[split], np.uint64)
            np.save(self._folder / f"{split}_digests.npy", digests, allow_pickle=False)

    def _write_header(self, split: str) -> None:
        """Say how many images there are. NumPy leaves room for the largest number, so it fits over an earlier one."""
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.count(split), *self._shape)}
        self._streams[split].seek(0)
        write_array_header_1_0(self._streams[split], header)
