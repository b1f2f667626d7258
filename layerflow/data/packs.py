"""Images kept once, by content, in packs that all versions of data share.

A pack never changes. A version that has new images writes them into new packs, and says of every image where it is.
"""

import hashlib
import itertools
import shutil
import threading
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.lib.format import write_array_header_1_0

from layerflow import artifacts, checksums, store
from layerflow.records import DatasetRef, PackRef

#: Most bytes of images in a pack: if one is damaged, so many are read again from their files.
PACK_BYTES = 128 * 2**20
#: A version that finds its images in more packs than this that are smaller than an eighth of a full one makes one of
#: them: so a folder that grows each night is not read from a thousand files.
MOST_SMALL = 16
#: The versions of a dataset, the newest ones, that tell what was made of a file.
_VERSIONS = 3


class Content(NamedTuple):
    """An image, and what its bytes decide.

    Attributes:
        image: ``uint8`` of shape ``(height, width, channels)``, contiguous.
        digest: SHA-256 of its bytes.
        test_place: The first 8 bytes of the SHA-256 of its bytes and ``test``.
    """

    image: np.ndarray
    digest: bytes
    test_place: int

    @classmethod
    def of(cls, image: np.ndarray) -> Self:
        """The content of an image, ``uint8`` of shape ``(height, width, channels)``."""
        image = np.ascontiguousarray(image)
        digest = hashlib.sha256(image.data)
        own = digest.digest()
        digest.update(b"test")
        return cls(image, own, int.from_bytes(digest.digest()[:8], "big"))


class Row(NamedTuple):
    """An image in a pack.

    Attributes:
        pack: Number of the pack.
        row: Its place there.
        digest: SHA-256 of its bytes.
        test_place: As ``Content`` has it.
        source: What tells the file that it was made of, and how, from all others; empty if it was no file.
    """

    pack: int
    row: int
    digest: bytes
    test_place: int
    source: bytes = b""


class Packs:
    """The rows of all packs in the store whose images have one shape, and new packs for images that none of them has.

    Args:
        folder: Where new packs grow until they are full.
        shape: Height, width and channels of each image.
        rule: Digest of the code that makes images of files; empty where images are no files.
        name: The dataset, of which earlier versions tell what was made of a file.

    Example:
        >>> with Packs(folder, (8, 8, 1), rule, "folder") as packs:
        ...     row = packs.of_file(digest) or packs.add(Content.of(image), digest)
        ...     parts, places = packs.settle(np.array([[row.pack, row.row]], np.uint32))
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int], rule: str = "", name: str = "") -> None:
        self._scratch, self._shape, self._rule = folder / "new_pack", shape, rule.encode()
        self._full = max(1, PACK_BYTES // int(np.prod(shape)))
        self._known = [pack for each in _folders("packs") if (pack := _Known.read(each, shape))]
        #: The folder in the store of each pack, in the order of their numbers.
        self._parts = [pack.folder for pack in self._known]
        self._by_image = _Index([pack.digests for pack in self._known])
        self._images_of_files = list(_earlier(name)) if rule else []
        self._by_source = _Index([sources for sources, _ in self._images_of_files])
        self._new: _NewPack | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def of_file(self, digest: bytes) -> Row | None:
        """The image that the same code made of the file with this SHA-256, if a sound pack has it."""
        source = self._source_of(digest)
        if (at := self._by_source.find(source)) is None:
            return None
        version, number = at
        return self._find(self._images_of_files[version][1][number].tobytes(), source)

    def add(self, content: Content, file: bytes | None = None) -> Row:
        """Where an image is: in a pack that has it, or in a new one.

        Args:
            content: The image.
            file: SHA-256 of the file that it was made of.
        """
        source = self._source_of(file) if file else b""
        return self._find(content.digest, source) or self._append(content)._replace(source=source)

    def settle(self, places: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Finish the new packs, and say where the rows of a version are then.

        Rows of a pack that the version uses by less than half move into a new one, and so do those of many small ones.
        The old packs go with the versions that they were made for: what no image needs is at most as much as the rest.

        Args:
            places: Pack and row of each image, ``uint32`` of shape ``(examples, 2)``.

        Returns:
            The packs that are needed, and the places of the images in these.
        """
        places = self._gather(places)
        self._finish()
        used, numbers = np.unique(places[:, 0], return_inverse=True)
        return [self._parts[number] for number in used], np.column_stack([numbers, places[:, 1]]).astype(np.uint32)

    def _source_of(self, file: bytes) -> bytes:
        """Another code, another source: what it made of a file says nothing of what this one makes of it."""
        return hashlib.sha256(file + self._rule).digest()

    def _find(self, digest: bytes, source: bytes) -> Row | None:
        if (at := self._by_image.find(digest)) is None or not (pack := self._known[at[0]]).is_sound():
            return None
        return Row(*at, digest, int(pack.test_places[at[1]]), source)

    def _append(self, content: Content) -> Row:
        if self._new is None:
            self._new = self._open.enter_context(_NewPack(self._scratch, self._shape))
        row = Row(len(self._parts), self._new.add(content), content.digest, content.test_place)
        if row.row + 1 == self._full:
            self._finish()
        return row

    def _finish(self) -> None:
        if self._new:
            self._parts.append(self._new.finish().folder)
            self._new = None

    def _gather(self, places: np.ndarray) -> np.ndarray:
        """Write the rows of packs that are not worth keeping into new ones; returns where all rows are then."""
        if not self._known:
            return places
        rows = np.unique(places, axis=0)
        used = np.bincount(rows[:, 0], minlength=len(self._parts))[: len(self._known)]
        sizes = np.array([len(pack.digests) for pack in self._known])
        small = (used > 0) & (sizes < self._full / 8)
        left = (used > 0) & (used < sizes / 2) | (small if small.sum() > MOST_SMALL else False)
        places = places.copy()
        for number in np.flatnonzero(left):
            pack = self._known[number]
            images = np.load(store.path(pack.folder) / "images.npy", mmap_mode="r", allow_pickle=False)
            moved = np.zeros((sizes[number], 2), np.uint32)
            for row in rows[rows[:, 0] == number, 1]:
                content = Content(np.asarray(images[row]), pack.digests[row].tobytes(), int(pack.test_places[row]))
                to = self._append(content)
                moved[row] = to.pack, to.row
            chosen = places[:, 0] == number
            places[chosen] = moved[places[chosen, 1]]
        return places


class _Known:
    """A pack in the store. What it says is believed once ``is_sound`` has checked it."""

    def __init__(self, record: PackRef, digests: np.ndarray, test_places: np.ndarray) -> None:
        self.folder, self.digests, self.test_places = record.folder, digests, test_places
        self._sound: bool | None = None
        self._lock = threading.Lock()

    @classmethod
    def read(cls, folder: Path, shape: tuple[int, int, int]) -> Self | None:
        """The pack in a folder, if it can be read and its images have this shape."""
        record = artifacts.record_in(folder, PackRef)
        if record is None or record.image_shape != shape:
            return None
        try:
            arrays = [np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("digests", "test_places")]
        except (OSError, ValueError):
            return None
        return cls(record, *arrays) if [each.shape for each in arrays] == [(record.rows, 32), (record.rows,)] else None

    def is_sound(self) -> bool:
        """Whether all its bytes are as they were stored; from now on it stays while this process lives."""
        with self._lock:
            if self._sound is None:
                self._sound = artifacts.sound(store.path(self.folder))
        return self._sound


class _Index:
    """The rows of some tables, by the 32 bytes that each of them has."""

    def __init__(self, tables: list[np.ndarray]) -> None:
        lengths = [len(table) for table in tables]
        keys = np.concatenate([np.empty((0, 32), np.uint8), *tables]).view("S32").ravel()
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._tables = np.repeat(np.arange(len(tables)), lengths)[order]
        self._rows = np.concatenate([np.empty(0, np.int64), *map(np.arange, lengths)])[order]

    def find(self, key: bytes) -> tuple[int, int] | None:
        """The number of a table that has these bytes, and of their row there."""
        at = int(np.searchsorted(self._keys, key))
        # NumPy leaves out zeros at the end of what it gives.
        if at == len(self._keys) or self._keys[at] != key.rstrip(b"\0"):
            return None
        return int(self._tables[at]), int(self._rows[at])


class _NewPack:
    """A pack that grows. Images are appended to a plain file: pages of a memory map would count as this process's."""

    def __init__(self, folder: Path, shape: tuple[int, int, int]) -> None:
        self._folder, self._shape = folder, shape
        self._digests, self._test_places = bytearray(), array("Q")
        folder.mkdir()
        self._images = (folder / "images.npy").open("wb")
        self._write_header()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._images.close()

    def add(self, content: Content) -> int:
        """Append an image; returns its row."""
        self._images.write(content.image.data)
        self._digests += content.digest
        self._test_places.append(content.test_place)
        return len(self._test_places) - 1

    def finish(self) -> PackRef:
        """Put the pack into the store, unless it is there, and return its record."""
        self._write_header()
        self._images.close()
        digests = np.frombuffer(self._digests, np.uint8).reshape(-1, 32)
        np.save(self._folder / "digests.npy", digests, allow_pickle=False)
        np.save(self._folder / "test_places.npy", np.frombuffer(self._test_places, np.uint64), allow_pickle=False)
        files = {file.name: checksums.sha256(file) for file in self._folder.glob("*.npy") if file.stem != "images"}
        digest = PackRef.digest_of(files, self._shape)

        def build(folder: Path) -> PackRef:
            for file in self._folder.iterdir():
                shutil.move(file, folder)
            return PackRef(digest=digest, rows=len(self._test_places), image_shape=self._shape)

        made = artifacts.make("packs", digest[:32], PackRef, build)
        shutil.rmtree(self._folder)
        return made

    def _write_header(self) -> None:
        """Say how many images there are. NumPy leaves room for the largest number, so it fits over an earlier one."""
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(self._test_places), *self._shape)}
        self._images.seek(0)
        write_array_header_1_0(self._images, header)


def _earlier(name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Sources and digests of the files of each split of the newest versions of a dataset, as far as they are whole."""
    newest = sorted(_folders("load_data"), key=lambda folder: -folder.stat().st_mtime)
    of_name = (each for each in newest if (data := artifacts.record_in(each, DatasetRef)) and data.name == name)
    for folder in itertools.islice(of_name, _VERSIONS):
        if not artifacts.sound(folder):
            continue
        for sources in folder.glob("*_sources.npy"):
            digests = sources.with_name(sources.name.replace("sources", "sha256"))
            yield np.load(sources, allow_pickle=False), np.load(digests, allow_pickle=False)


def _folders(step: str) -> list[Path]:
    return sorted(each for each in (store.root() / step).glob("[!.]*") if each.is_dir())
