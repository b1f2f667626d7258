"""The slices of the test images, such as those of one camera."""

from typing import NamedTuple

import numpy as np

from layerflow import store
from layerflow.errors import DamagedError
from layerflow.json_file import read_json
from layerflow.records import DatasetRef


class Slices(NamedTuple):
    """Each column of ``data.slices`` divides the test images among its values; each value is a slice.

    Attributes:
        names: Column and value of each slice. The value is empty for the images that have none.
        numbers: For each test image the numbers of its slices, ``int32`` of shape ``(examples, columns)``.
    """

    names: tuple[tuple[str, str], ...]
    numbers: np.ndarray

    def counts(self, chosen: np.ndarray) -> list[int]:
        """How many of the test images that are ``chosen``, ``bool`` of shape ``(examples,)``, are in each slice."""
        counts: list[int] = np.bincount(self.numbers[chosen].ravel(), minlength=len(self.names)).tolist()
        return counts


def slices_of(data: DatasetRef) -> Slices:
    """The slices of the test images, in the order of their rows; none if ``data.slices`` was not set.

    Raises:
        DamagedError: If the files are not what ``SliceFiles`` writes of so many test images.
    """
    examples = data.counts["test"]
    if not data.slices:
        return Slices((), np.empty((examples, 0), np.int32))
    folder = store.path(data.folder)
    try:
        names = tuple((str(column), str(value)) for column, value in read_json(folder / "test_slices.json"))
        numbers = np.load(folder / "test_slices.npy", allow_pickle=False)
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise _damaged(data) from error
    columns = np.array([data.slices.index(column) if column in data.slices else -1 for column, _ in names])
    is_sound = (
        numbers.dtype == np.int32
        and numbers.shape == (examples, len(data.slices))
        and numbers.min(initial=0) >= 0
        and numbers.max(initial=0) < len(names)
        and bool((columns[numbers] == np.arange(len(data.slices))).all())
    )
    if not is_sound:
        raise _damaged(data)
    return Slices(names, numbers)


def _damaged(data: DatasetRef) -> DamagedError:
    return DamagedError(
        f"{store.path(data.folder)} must hold the slices of its {data.counts['test']:,} test images. Its files "
        "test_slices.npy and test_slices.json do not; delete the folder and re-run the command."
    )
