"""What the splits of a version of data hold, written while the images are read."""

import json
from array import array
from pathlib import Path

import numpy as np

from layerflow.data.packs import Packs
from layerflow.data.rows import Row
from layerflow.parts import PARTS

SPLITS = ("train", "validation", "test")


class SplitFiles:
    """Writes ``<split>_labels.npy``, ``_sha256.npy``, ``_rows.npy`` and of files ``_sources.npy``, for all splits.

    Example:
        >>> files = SplitFiles()
        >>> files.add("train", packs.add(Content.of(image)), 3)
        >>> files.write(folder, packs)
    """

    def __init__(self) -> None:
        self._labels = {split: array("i") for split in SPLITS}
        self._digests = {split: bytearray() for split in SPLITS}
        self._sources = {split: bytearray() for split in SPLITS}
        self._places = {split: array("I") for split in SPLITS}

    def add(self, split: str, row: Row, label: int) -> None:
        """Append an image, and the number of its class, to a split."""
        self._labels[split].append(label)
        self._digests[split] += row.digest
        self._sources[split] += row.source
        self._places[split].extend((row.pack, row.row))

    def count(self, split: str) -> int:
        """How many images a split has."""
        return len(self._labels[split])

    def write(self, folder: Path, packs: Packs) -> None:
        """Finish the packs, and write what each split has of them."""
        before = [np.frombuffer(self._places[split], np.uint32).reshape(-1, 2) for split in SPLITS]
        parts, places = packs.settle(np.concatenate(before))
        (folder / PARTS).write_text(json.dumps(parts))
        ends = np.cumsum([len(each) for each in before])
        for split, rows in zip(SPLITS, np.split(places, ends[:-1]), strict=True):
            for name, of in {"sha256": self._digests, "sources": self._sources}.items():
                if of[split] or name == "sha256":  # images that are no files have no source
                    digests = np.frombuffer(of[split], np.uint8).reshape(-1, 32)
                    np.save(folder / f"{split}_{name}.npy", digests, allow_pickle=False)
            np.save(folder / f"{split}_rows.npy", rows, allow_pickle=False)
            np.save(folder / f"{split}_labels.npy", np.frombuffer(self._labels[split], np.int32), allow_pickle=False)
