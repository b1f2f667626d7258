"""Images kept once, by content, in packs that all versions of data share.

A pack never changes. A version that has new images writes them into new packs, and says of every image where it is.
"""

import hashlib
import shutil
from array import array
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.lib.format import write_array_header_1_0

from layerflow import artifacts, checksums, store
from layerflow.data.rows import Content, Row
from layerflow.data.stored_packs import Index, newest_versions, sources_and_digests, stored_packs
from layerflow.parts import parts_of
from layerflow.records import PackRef

#: Most bytes of images in a pack. If one is damaged, so many are read again from their files; and whoever reads images
#: has each of their packs open.
PACK_BYTES = 2**30
#: So many packs more than twice those that would be full, and a version joins the smallest ones: a folder that grows
#: each night would be read from a thousand files.
MOST_SMALL = 16


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
        earlier = newest_versions(name, shape) if name else []
        # First those of the newest version: from the others it may have moved its rows away.
        self._known = stored_packs(shape, first=parts_of(earlier[0]) if earlier else ())
        #: The folder in the store of each pack, in the order of their numbers.
        self._parts = [pack.folder for pack in self._known]
        self._by_image = Index([pack.digests for pack in self._known])
        self._images_of_files = [pair for each in earlier for pair in sources_and_digests(each)] if rule else []
        self._by_source = Index([sources for sources, _ in self._images_of_files])
        self._new: _NewPack | None = None
        self._new_rows: dict[bytes, tuple[int, int]] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def of_file(self, digest: bytes) -> Row | None:
        """The image that the same code made of the file with this SHA-256, if a sound pack has it."""
        source = self._source_of(digest)
        for version, number in self._by_source.find(source):
            return self._find(self._images_of_files[version][1][number].tobytes(), source)
        return None

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
        So at least half of the rows of its packs are its own.

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
        for number, row in self._by_image.find(digest):
            if (pack := self._known[number]).is_sound():
                return Row(number, row, digest, int(pack.test_places[row]), source)
        return None

    def _append(self, content: Content) -> Row:
        if content.digest not in self._new_rows:
            if self._new is None:
                self._new = self._open.enter_context(_NewPack(self._scratch, self._shape))
            row = self._new.add(content)
            self._new_rows[content.digest] = len(self._parts), row
            if row + 1 == self._full:
                self._finish()
        return Row(*self._new_rows[content.digest], content.digest, content.test_place)

    def _finish(self) -> None:
        if self._new:
            self._parts.append(self._new.finish().folder)
            self._new = None

    def _to_join(self, sizes: np.ndarray) -> list[int]:
        """The smallest packs, and larger ones as long as they are no larger than these together.

        So an image is written again a few times in the life of a folder that grows, and not with each joining.
        """
        chosen, rows = list[int](), 0
        for number in np.argsort(sizes, kind="stable").tolist():
            if sizes[number] >= self._full / 2 or (len(chosen) >= MOST_SMALL and sizes[number] > rows):
                break
            chosen.append(number)
            rows += int(sizes[number])
        return chosen

    def _gather(self, places: np.ndarray) -> np.ndarray:
        """Write the rows of packs that are not worth keeping into new ones; returns where all rows are then."""
        if not self._known:
            return places
        rows = np.unique(places, axis=0)
        used = np.bincount(rows[:, 0], minlength=len(self._parts))[: len(self._known)]
        sizes = np.array([len(pack.digests) for pack in self._known])
        left = (used > 0) & (used < sizes / 2)
        if np.count_nonzero(used) > MOST_SMALL + 2 * len(rows) / self._full:
            left[self._to_join(np.where(used, sizes, self._full))] = True
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
