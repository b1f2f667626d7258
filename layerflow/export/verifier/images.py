"""Test images, read as they are asked for."""

import numpy as np


class Images:
    """Rows of memory-mapped arrays, of which no more is read than is asked for.

    Args:
        packs: ``uint8`` arrays of shape ``(rows, height, width, channels)``.
        places: Array and row of each image, integers of shape ``(examples, 2)``.
    """

    def __init__(self, packs: list[np.ndarray], places: np.ndarray) -> None:
        self.packs, self.places = packs, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        places = self.places[key]
        found = np.empty((len(places), *self.packs[0].shape[1:]), np.uint8)
        for number in np.unique(places[:, 0]):
            chosen = np.flatnonzero(places[:, 0] == number)
            found[chosen] = self.packs[number][places[chosen, 1]]
        return found
