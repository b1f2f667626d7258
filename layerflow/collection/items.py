"""What is in the store, as far as it can ever be collected: one item for each thing that goes as a whole."""

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from layerflow import store

#: The folders of artifacts: one of each step, that of features, which a training makes and others find, and that of
#: packs, which versions of data share.
STEPS = (
    "load_data",
    "validate_data",
    "build_model",
    "train_model",
    "evaluate_model",
    "export_model",
    "verify_export",
    "convert_model",
    "verify_formats",
    "own_checks",
    "own_metrics",
    "hand_over",
    "frozen_features",
    "packs",
)
#: What a collection leaves alone: `registry.keep` removes versions, and the answer to their question candidates.
PUBLISHED = ("models", "candidates")


class Item(NamedTuple):
    """Something that can go.

    Attributes:
        kind: The folder of the store that it is in.
        path: Its file or folder, relative to the store.
        size: Bytes.
        used: When it was made or used last, in seconds since the epoch.
        locks: The locks of the store of which whoever works on it holds one; ``*`` at the end is for any letters.
        beside: Files that belong to it and go with it, relative to the store.
    """

    kind: str
    path: str
    size: int
    used: float
    locks: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


def items() -> Iterator[Item]:
    """Everything that can go. What layerflow did not make is not among it."""
    root = store.root()
    item = partial(_item, root)
    for step in STEPS:
        for folder in _folders(root / step):
            if not folder.name.startswith(".") or folder.name.startswith(".damaged-"):
                yield item(step, folder)  # whoever works on it has noted that it uses it
    for folder in _visible(root / "checkpoints"):
        # A shorter training has a folder of its own, and no lock of its own.
        yield item("checkpoints", folder, (f"training-{folder.name.partition('-')[0]}",))
    for runs in _visible(root / "tensorboard"):
        for folder in _visible(runs):
            yield item("tensorboard", folder, (f"training-{folder.name.rpartition('-')[2]}*",))
    for folder in _visible(root / "sweeps"):
        yield item("sweeps", folder, (f"sweeps-{folder.name}",))
    for name in _visible(root / "receipts"):
        yield from _receipts(root, name)
    for index in sorted((root / "folders").glob("[!.]*.json")):
        yield item("folders", index, (f"folder-{index.stem}",))
    for digests in sorted((root / "tfds").rglob(".*.sha256.json")):
        prepared = digests.with_name(digests.name.removeprefix(".").removesuffix(".sha256.json"))
        if prepared.is_dir():  # whoever reads it holds the lock of the artifact that comes of it
            yield item("tfds", prepared, ("load_data-*",), (digests,))
    for damaged in sorted((root / "tfds").rglob(".damaged-*")):
        yield item("tfds", damaged, ("load_data-*",))


def _receipts(root: Path, name: Path) -> Iterator[Item]:
    """What runs left that published nothing: a receipt and its page, or the folder of a candidate that was answered."""
    lock, item = (f"models-{name.name}",), partial(_item, root)
    for entry in sorted(name.glob("[!.]*")):
        if entry.suffix == ".json":
            page = entry.with_suffix(".html")
            yield item("receipts", entry, lock, (page,) if page.exists() else ())
        elif entry.is_dir():
            yield item("receipts", entry, lock)


def published() -> Iterator[Item]:
    """The versions and the candidates of all models."""
    root = store.root()
    for kind in PUBLISHED:
        for name in _visible(root / kind):
            for folder in _visible(name):
                yield _item(root, kind, folder)


def _item(root: Path, kind: str, path: Path, locks: tuple[str, ...] = (), beside: tuple[Path, ...] = ()) -> Item:
    places = [str(path), *map(str, beside)]
    below = len(str(root)) + 1
    measured = [_measure(each) for each in places]
    return Item(
        kind=kind,
        path=places[0][below:],
        size=sum(size for size, _, _ in measured),
        # Only a log and a journal are added to, and leave the time of their folder as it is.
        used=max(newest for _, _, newest in measured) if kind in ("tensorboard", "sweeps") else measured[0][1],
        locks=locks,
        beside=tuple(each[below:] for each in places[1:]),
    )


def _measure(path: str) -> tuple[int, float, float]:
    """Bytes of a file, or of all files below a folder; when it was written itself, and when the newest of these."""
    try:
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            return status.st_size, status.st_mtime, status.st_mtime
        with os.scandir(path) as entries:
            inside = [_measure(entry.path) for entry in entries]
    except FileNotFoundError:
        return 0, 0.0, 0.0
    newest = max((newest for _, _, newest in inside), default=0.0)
    return sum(size for size, _, _ in inside), status.st_mtime, max(newest, status.st_mtime)


def _folders(parent: Path) -> list[Path]:
    try:
        with os.scandir(parent) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _visible(parent: Path) -> list[Path]:
    return [folder for folder in _folders(parent) if not folder.name.startswith(".")]
