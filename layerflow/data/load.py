"""From a dataset's name to ``uint8`` arrays on disk: a train, a validation and a test split."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from layerflow import checksums
from layerflow.data.image_folder_source import FolderSource
from layerflow.data.packs import Packs
from layerflow.data.rows import Row
from layerflow.data.slice_files import SliceFiles
from layerflow.data.split_files import SPLITS, SplitFiles
from layerflow.data.tfds_examples import TfdsSource
from layerflow.errors import DatasetError
from layerflow.records import DatasetRef
from layerflow.settings.data import DataConfig

log = logging.getLogger(__name__)
Source = FolderSource | TfdsSource
#: Seconds between two lines that say how far reading is.
_PROGRESS_SECONDS = 10.0
#: Examples after which it is looked whether such a line is due: looking takes as long as reading a tiny image.
_PROGRESS_EXAMPLES = 100


def load(config: DataConfig, target: Path) -> DatasetRef:
    """Read a dataset of TFDS or a folder of images once, and write what its splits hold into ``target``.

    Images that no pack in the store has go into new packs; a file of a folder that was read before is not read again.
    ``target`` gets the labels, digests and places of the images, as ``SplitFiles`` writes them, and with
    ``data.slices`` the slices of the test images, as ``SliceFiles`` does.

    Raises:
        DatasetError: If the dataset is unknown, is no set of labelled images that can be given one shape, lacks a
            split, holds more broken images than it may, or has no such slices.
        MirrorError: If the mirror lacks a file or holds a damaged one.
        UnreachableError: If the files must be downloaded and the network can't be reached.
        FolderChangedError: If a folder is written to while it is read.
    """
    source = _open(config)
    source.prepare(target)
    expressions = source.expressions()
    drawn = {
        split: int(fraction * 2**64)
        for split, fraction in (("validation", config.validation_fraction), ("test", config.test_fraction))
        if split not in expressions
    }
    files, slice_files = SplitFiles(), SliceFiles(source.columns)
    with Packs(target, source.shape, source.rule, source.name) as packs:
        for split, expression in expressions.items():
            for row, label, slices in _with_progress(source, expression, packs):
                side = _side(row, drawn) if split == "train" else split
                files.add(side, row, label)
                if side == "test":
                    slice_files.add(slices)
        source.require_complete()
        counts = {split: files.count(split) for split in SPLITS}
        _require_images(config, counts, expressions)
        files.write(target, packs)
    slice_files.write(target)
    return _describe(config, source, target, counts, expressions)


def check(config: DataConfig) -> str:
    """Raise what ``load`` would raise before it reads any example: a wrong name, a mirror that is not whole.

    Returns:
        Where ``load`` will find the examples, as text.
    """
    return _open(config).where()


def _open(config: DataConfig) -> Source:
    return FolderSource(config) if config.path else TfdsSource(config)


def _with_progress(source: Source, expression: str, packs: Packs) -> Iterator[tuple[Row, int, tuple[str, ...]]]:
    """The examples of a split, with a bar on a terminal, and a line in the log now and then elsewhere."""
    count, said = source.count(expression), time.monotonic()
    terminal = Console(stderr=True)
    with Progress(console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
        task = bar.add_task(f"reading {expression}", total=count)
        for number, example in enumerate(source.examples(expression, packs), 1):
            yield example
            if number % _PROGRESS_EXAMPLES and number < count:
                continue
            bar.update(task, completed=number)
            if bar.disable and time.monotonic() - said > _PROGRESS_SECONDS:
                said = time.monotonic()
                log.info("read %s of %s images of %s", f"{number:,}", f"{count:,}", expression)


def _side(row: Row, drawn: dict[str, int]) -> str:
    """The split of an image of train, by the rule that ``_split_rule`` states: its content decides, and never changes.

    Args:
        row: The image.
        drawn: For validation and for test, if it is drawn from train, the bound below which an image is chosen.
    """
    if row.test_place < drawn.get("test", 0):
        return "test"
    return "validation" if int.from_bytes(row.digest[:8], "big") < drawn.get("validation", 0) else "train"


def _split_rule(config: DataConfig, expressions: dict[str, str]) -> str:
    """How the splits came about, as text."""
    rule = "the first 8 bytes of the SHA-256 of its bytes, as a share of 2^64, are below"
    said = [f"{split} is the data's own `{expression}`" for split, expression in expressions.items()]
    if "validation" not in expressions:
        said.append(f"an image of train validates if {rule} {config.validation_fraction:g}")
    if "test" not in expressions:
        said.append(f"an image of train tests if, with `test` after its bytes, {rule} {config.test_fraction:g}")
    return "; ".join(said)


def _require_images(config: DataConfig, counts: dict[str, int], expressions: dict[str, str]) -> None:
    drawn = [split for split in ("validation", "test") if split not in expressions]
    for split in (split for split, count in counts.items() if not count):
        if not drawn or (split in expressions and split != "train"):
            raise DatasetError(f"The {split} split must hold images that can be read. It holds none; add some.")
        field = f"{split if split in drawn else drawn[0]}_fraction"
        raise DatasetError(
            f"data.{field} must leave images on both sides. With {getattr(config, field)}, none are left for {split}; "
            "choose another share, or add images."
        )


def _describe(
    config: DataConfig, source: Source, target: Path, counts: dict[str, int], expressions: dict[str, str]
) -> DatasetRef:
    files = {file.name: checksums.sha256(file) for kind in ("npy", "json") for file in sorted(target.glob(f"*.{kind}"))}
    digest, test_digest = DatasetRef.digests_of(files, source.classes)
    return DatasetRef(
        name=source.name,
        version=source.version,
        digest=digest,
        test_digest=test_digest,
        image_shape=source.shape,
        classes=source.classes,
        counts=counts,
        broken=source.broken,
        image_rule=source.image_rule,
        split_rule=_split_rule(config, expressions),
        slices=source.columns,
        slices_digest=DatasetRef.slices_digest_of(files),
    )
