"""Images in several packs, as one array that is read as it is asked for."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


class PackedImages:
    """Images in packs, as far as they are used like a memory-mapped array: a slice is a view, and reads nothing.

    Args:
        packs: ``uint8`` arrays of shape ``(rows, height, width, channels)``, memory-mapped.
        places: Pack and row of each image, integers of shape ``(examples, 2)``.

    Example:
        >>> images = PackedImages([first, second], np.array([[1, 0], [0, 7]]))
        >>> images[0], np.asarray(images[1:])  # the first row of `second`; a batch with the eighth of `first`
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, packs: Sequence[np.ndarray], places: np.ndarray) -> None:
        self.packs, self._places = packs, places

    @property
    def shape(self) -> tuple[int, ...]:
        """``(examples, height, width, channels)``."""
        return len(self._places), *self.packs[0].shape[1:]

    @property
    def nbytes(self) -> int:
        """Bytes of all images."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, key: Any) -> Any:
        """One image for a number; a view for a slice; an array for an array of numbers or of truth values."""
        places = self._places[key]
        if isinstance(key, slice):
            return PackedImages(self.packs, places)
        if places.ndim == 1:
            return self.packs[places[0]][places[1]]
        found = np.empty((len(places), *self.shape[1:]), self.dtype)
        for pack in np.unique(places[:, 0]):
            chosen = np.flatnonzero(places[:, 0] == pack)
            found[chosen] = self.packs[pack][places[chosen, 1]]
        return found

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[number] for number in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All images, read."""
        images: np.ndarray = self[np.arange(len(self))]
        return images if dtype is None else images.astype(dtype, copy=False)


#: What reads images takes either: of a version with packs, and of one of an earlier layerflow.
Images = np.ndarray | PackedImages
