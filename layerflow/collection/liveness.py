"""Which of the items in the store live: the one rule that separates garbage from what is needed."""

import contextlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from layerflow import store
from layerflow.collection.items import PUBLISHED, Item
from layerflow.errors import DamagedError
from layerflow.json_file import read_json
from layerflow.parts import PARTS, parts_of
from layerflow.registry.layout import RECEIPT, is_version

#: The parts of a receipt that name what a step made.
_PARTS = (
    *("data", "checked", "model", "trained", "evaluation", "export", "verification", "formats"),
    *("own_checks", "own_metrics"),
)


class Needs(NamedTuple):
    """What receipts say.

    Attributes:
        by_model: For each model the paths that its versions, its candidates and its last runs need.
        datasets: Name and version of the datasets that the models need.
    """

    by_model: dict[str, set[str]]
    datasets: set[tuple[str, str]]


def is_live(item: Item, needed: set[str], in_use: set[str], now: float, keep_days: float) -> bool:
    """The rule: an item lives if a model needs it, if a process uses it, or if it was used in the last days.

    Args:
        item: Of the store.
        needed: What published versions, candidates and the last runs of each model need.
        in_use: The artifacts that living processes use.
        now: Seconds since the epoch.
        keep_days: So many days count as young.
    """
    return item.path in needed or item.path in in_use or now - item.used < keep_days * 24 * 3600


def needs(everything: Iterable[Item], keep_runs: int) -> Needs:
    """Read what the receipts say.

    Args:
        everything: The items of the store.
        keep_runs: Of each model, that many receipts of runs that published nothing count, the newest.

    Raises:
        DamagedError: If the receipt of a version or of a candidate can't be read: nobody knows then what it needs.
    """
    found = Needs({}, set())
    for file in _of_published():
        _count(found, file, file.parents[2].name)
    seen = dict[str, int]()
    for item in sorted((each for each in everything if each.kind == "receipts"), key=lambda each: -each.used):
        name = item.path.split("/")[1]
        seen[name] = seen.get(name, 0) + 1
        if seen[name] <= keep_runs:
            found.by_model.setdefault(name, set()).add(item.path)
            place = store.root() / item.path
            with contextlib.suppress(DamagedError):  # it tells nothing, and goes when its time has come
                _count(found, place / Path(RECEIPT).name if place.is_dir() else place, name)
    return found


def _of_published() -> list[Path]:
    """The receipts of versions and of candidates."""
    return [
        folder / RECEIPT
        for kind in PUBLISHED
        for folder in sorted((store.root() / kind).glob("[!.]*/[!.]*"))
        if (folder / RECEIPT).exists() or is_version(folder.name)
    ]


def _count(found: Needs, file: Path, name: str) -> None:
    """Add what a receipt of the model ``name`` says."""
    parts = _parts(file)
    folders = {str(part.get("folder")) for part in parts.values()}
    found.by_model.setdefault(name, set()).update(folders, *map(_packs_of, folders))
    data = parts.get("data", {})
    found.datasets.add((str(data.get("name")), str(data.get("version"))))


def _parts(file: Path) -> dict[str, dict[str, Any]]:
    try:
        content = read_json(file)
        if not isinstance(content, dict):
            raise ValueError("no receipt")
    except (OSError, ValueError) as error:
        raise DamagedError(
            f"{file} must be a receipt, which says what its model needs. It can't be read ({type(error).__name__}); "
            "restore it from a backup, or move its version away. Nothing was collected."
        ) from error
    return {name: part for name in _PARTS if isinstance(part := content.get(name), dict)}


class SharedPacks:
    """The packs that versions of data need: a pack lives as long as one of the versions that have images in it.

    Args:
        everything: The items of the store.
    """

    def __init__(self, everything: Iterable[Item]) -> None:
        self._packs, self._parts = dict[str, Item](), dict[str, tuple[str, ...]]()
        for item in everything:
            if item.kind == "packs":
                self._packs[item.path] = item
            elif item.kind == "load_data" and not Path(item.path).name.startswith("."):  # no damaged one
                self._parts[item.path] = _packs_of(item.path)
        self._versions = Counter(part for parts in self._parts.values() for part in parts)

    def is_needed(self, item: Item) -> bool:
        """Whether a version needs this pack."""
        return self._versions[item.path] > 0

    def forget(self, item: Item) -> None:
        """Take into account that a version is gone."""
        self._versions.subtract(self._parts.get(item.path, ()))

    def freed_by(self, item: Item) -> list[Item]:
        """The packs of a version that is gone which no other version needs."""
        return [
            pack
            for part in self._parts.get(item.path, ())
            if (pack := self._packs.get(part)) and not self.is_needed(pack)
        ]


def _packs_of(folder: str) -> tuple[str, ...]:
    """The packs that an artifact needs; of one that says nothing readable, and is made again, none.

    Raises:
        DamagedError: If the disk can't read it just now.
    """
    try:
        return parts_of(store.path(folder))
    except (FileNotFoundError, ValueError, RecursionError, DamagedError):
        return ()
    except OSError as error:
        raise DamagedError(
            f"{folder}/{PARTS} must say which packs it needs. It can't be read ({error.strerror}); repair the disk. "
            "Nothing was collected."
        ) from error


def users_of() -> dict[str, list[str]]:
    """The versions and candidates that were made from each artifact, such as ``mlp-digits 3``."""
    found = dict[str, list[str]]()
    for file in _of_published():
        with contextlib.suppress(DamagedError):  # who only looks need not know
            for part in _parts(file).values():
                found.setdefault(str(part.get("folder")), []).append(f"{file.parents[2].name} {file.parents[1].name}")
    return found


def is_of_dataset(item: Item, datasets: set[tuple[str, str]]) -> bool:
    """Whether an item is one of these datasets, as TensorFlow Datasets prepared it."""
    if item.kind != "tfds":
        return False
    *parents, version = item.path.split("/")
    return any(version == of and set(name.replace(":", "/").split("/")) & set(parents) for name, of in datasets)
