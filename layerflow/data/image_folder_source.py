"""A folder of images, as ``load`` reads it."""

from collections.abc import Iterator
from pathlib import Path

from layerflow.code_digest import code_digest
from layerflow.data import decode, image_folder
from layerflow.data.packs import Packs
from layerflow.data.rows import Row
from layerflow.settings.data import DataConfig


class FolderSource:
    """The images of ``config.path``, each made fit by ``decode.RULE``, in an order that the content decides.

    Raises:
        DatasetError: If the folder is not laid out as ``train/<class>/``, its images have no common shape, or
            ``config.slices`` is no CSV file of their slices.
    """

    def __init__(self, config: DataConfig) -> None:
        assert config.path
        self._most_broken = config.max_broken
        self._listing = image_folder.listed(config.path, config.slices_file)
        self._broken: list[tuple[str, str]] = []
        self.name, self.version = config.title, self._listing.digest[:12]
        self.classes, self.columns = self._listing.classes, self._listing.columns
        self.shape = image_folder.shape_of(self._listing, config.size, config.channels)
        self.image_rule, self.rule = decode.RULE, code_digest("layerflow.data.decode")

    @property
    def broken(self) -> int:
        """How many files were left out because they can't be read."""
        return len(self._broken)

    def where(self) -> str:
        """Where the examples are, as text."""
        return f"{len(self._listing.files):,} files in {self._listing.root}"

    def prepare(self, scratch: Path) -> None:
        """Do nothing: the files are there."""

    def expressions(self) -> dict[str, str]:
        """What is read for each split that the folder has."""
        found = {file.split for file in self._listing.files}
        return {split: split for split in ("train", "test") if split in found}

    def count(self, split: str) -> int:
        """How many files a split has."""
        return sum(file.split == split for file in self._listing.files)

    def examples(self, split: str, packs: Packs) -> Iterator[tuple[Row, int, tuple[str, ...]]]:
        """Each image of a split that can be read, now in ``packs``, with its class's number and its slices.

        Raises:
            FolderChangedError: If a file is not what it was when it was listed.
        """
        numbers = {name: number for number, name in enumerate(self.classes)}
        for file, image in image_folder.read(self._listing, split, self.shape, packs.of_file, self._broken):
            row = image if isinstance(image, Row) else packs.add(image, bytes.fromhex(file.digest))
            yield row, numbers[file.label], file.slices

    def require_complete(self) -> None:
        """Name the files that can't be read.

        Raises:
            DatasetError: If they are more than the share ``data.max_broken``.
        """
        image_folder.require_few_broken(self._listing, self._broken, self._most_broken)
