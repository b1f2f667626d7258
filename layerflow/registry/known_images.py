"""Which images a model has learned from, so that two models are compared on others alone."""

import hashlib
import io
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from layerflow.data.image_digests import image_digests
from layerflow.records import DatasetRef


class KnownImages(NamedTuple):
    """The digests of images, ``uint64``, in ascending order, each once.

    Attributes:
        learned: Those that the model, or one whose weights it started from, was trained or validated on.
        tested: Those that it was tested on.
    """

    learned: np.ndarray
    tested: np.ndarray

    @classmethod
    def of(cls, data: DatasetRef, before: Self | None = None) -> Self:
        """Those of a model that was trained on ``data``, from the weights of one that knew ``before``."""
        learned = image_digests(data, "train", "validation")
        if before:
            learned = np.concatenate([learned, before.learned])
        return cls(np.unique(learned), np.unique(image_digests(data, "test")))

    @classmethod
    def read(cls, file: Path) -> Self:
        """What ``as_bytes`` gave.

        Raises:
            OSError: If the file can't be read.
            ValueError: If it is no such file.
        """
        with np.load(file, allow_pickle=False) as arrays:
            found = cls(*(arrays[name] for name in cls._fields))
        if any(each.dtype != np.uint64 or each.ndim != 1 for each in found):
            raise ValueError(f"{file} does not hold digests of images")
        return found

    @property
    def as_bytes(self) -> bytes:
        """A ``.npz`` file; the same digests make the same bytes."""
        file = io.BytesIO()
        np.savez(file, **self._asdict())
        return file.getvalue()


class ComparedImages(NamedTuple):
    """The test images on which two models are compared.

    Attributes:
        rows: Their places in the test split, ``int64``, in ascending order.
        digests: Their digests, ``uint64``.
        is_new: For each, whether the champion was not tested on it before it was published.
    """

    rows: np.ndarray
    digests: np.ndarray
    is_new: np.ndarray

    def keep(self, chosen: np.ndarray) -> Self:
        """Those of the images for which ``chosen``, ``bool``, is true."""
        return type(self)(self.rows[chosen], self.digests[chosen], self.is_new[chosen])

    @property
    def digest(self) -> str:
        """SHA-256 of the digests in ascending order."""
        return hashlib.sha256(np.sort(self.digests).tobytes()).hexdigest()

    @property
    def new(self) -> int:
        """How many of the images the champion was not tested on."""
        return int(self.is_new.sum())


def all_test_images(data: DatasetRef) -> ComparedImages:
    """The whole test split, of which the champion knew every image."""
    digests = image_digests(data, "test")
    return ComparedImages(np.arange(len(digests)), digests, np.zeros(len(digests), bool))


def common_test_set(data: DatasetRef, challenger: KnownImages, champion: KnownImages) -> ComparedImages:
    """The test images of ``data`` that neither model has learned from."""
    digests = image_digests(data, "test")
    tests = ComparedImages(np.arange(len(digests)), digests, ~np.isin(digests, champion.tested))
    return tests.keep(~np.isin(digests, np.concatenate([challenger.learned, champion.learned])))
