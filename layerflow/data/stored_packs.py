"""The packs in the store, and what earlier versions of a dataset tell of files, as far as they are whole."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from layerflow import artifacts, store
from layerflow.records import DatasetRef, PackRef

#: The versions of a dataset, the newest ones, that tell what was made of a file.
_VERSIONS = 3
#: The files of a pack that say what its rows are.
_TABLES = ("digests.npy", "test_places.npy")


class StoredPack:
    """A pack in the store. What it says is believed once ``is_sound`` has checked it."""

    def __init__(self, record: PackRef, digests: np.ndarray, test_places: np.ndarray) -> None:
        self.folder, self.digests, self.test_places = record.folder, digests, test_places
        self._sound: bool | None = None
        self._lock = threading.Lock()

    @classmethod
    def read(cls, folder: Path, shape: tuple[int, int, int]) -> Self | None:
        """The pack in a folder, if it can be read and its images have this shape; a damaged one is set aside."""
        record = artifacts.record_in(folder, PackRef)
        if record is None or record.image_shape != shape or not artifacts.are_sound(folder, _TABLES):
            return None
        digests, test_places = (np.load(folder / name, allow_pickle=False) for name in _TABLES)
        return cls(record, digests, test_places)

    def is_sound(self) -> bool:
        """Whether all its bytes are as they were stored; from now on it stays while this process lives."""
        with self._lock:
            if self._sound is None:
                self._sound = artifacts.sound(store.path(self.folder))
        return self._sound


class Index:
    """The rows of some tables, by the 32 bytes that each of them has.

    Args:
        tables: ``uint8`` arrays of shape ``(rows, 32)``.
    """

    def __init__(self, tables: Sequence[np.ndarray]) -> None:
        lengths = [len(table) for table in tables]
        keys = np.concatenate([np.empty((0, 32), np.uint8), *tables]).view("S32").ravel()
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._tables = np.repeat(np.arange(len(tables)), lengths)[order]
        self._rows = np.concatenate([np.empty(0, np.int64), *map(np.arange, lengths)])[order]

    def find(self, key: bytes) -> Iterator[tuple[int, int]]:
        """The number of each table that has these bytes, in order, and of their row there."""
        at = int(np.searchsorted(self._keys, key))
        # NumPy leaves out zeros at the end of what it gives.
        while at < len(self._keys) and self._keys[at] == key.rstrip(b"\0"):
            yield int(self._tables[at]), int(self._rows[at])
            at += 1


def stored_packs(shape: tuple[int, int, int], first: Sequence[str]) -> list[StoredPack]:
    """The packs whose images have this shape: those named ``first``, then the others, the largest first."""
    found = [pack for folder in _folders("packs") if (pack := StoredPack.read(folder, shape))]
    return sorted(found, key=lambda pack: (pack.folder not in first, -len(pack.digests)))


def newest_versions(name: str, shape: tuple[int, int, int]) -> list[Path]:
    """The folders of the versions of a dataset that were prepared last, in this shape, the newest first."""
    times = dict[Path, float]()
    for folder in _folders("load_data"):
        with contextlib.suppress(FileNotFoundError):  # it was collected just now
            times[folder] = (folder / artifacts.RECORD).stat().st_mtime  # use changes that of the folder alone
    found = list[Path]()
    for folder in sorted(times, key=lambda each: -times[each]):
        data = artifacts.record_in(folder, DatasetRef)
        if data and (data.name, data.image_shape) == (name, shape) and artifacts.are_sound(folder):
            found.append(folder)
        if len(found) == _VERSIONS:
            break
    return found


def sources_and_digests(version: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each split of a version: what tells its files from others, and the digests of their images."""
    for sources in sorted(version.glob("*_sources.npy")):
        digests = sources.with_name(sources.name.replace("sources", "sha256"))
        yield np.load(sources, allow_pickle=False), np.load(digests, allow_pickle=False)


def _folders(step: str) -> list[Path]:
    return sorted(each for each in (store.root() / step).glob("[!.]*") if each.is_dir())
