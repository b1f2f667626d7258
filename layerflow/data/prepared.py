"""The versions of data that the store has, as `load_data` prepared them; how two differ, and one as a folder."""

import shutil
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from pydantic import BaseModel, ConfigDict

from layerflow import artifacts, store
from layerflow.data.arrays import images_and_labels, labels_of
from layerflow.data.image_digests import image_digests
from layerflow.errors import DataError, printed
from layerflow.records import DatasetRef

#: Letters of a digest that name a version, at least.
_FEWEST = 4


class Prepared(NamedTuple):
    """A version of some data; ``used`` is when it was prepared or used last, in seconds since the epoch."""

    data: DatasetRef
    used: float


def prepared() -> list[Prepared]:
    """The versions in the store, the one that was used last first. Of a damaged one nothing is known."""
    folders = [each for each in (store.root() / "load_data").glob("[!.]*") if each.is_dir()]
    found = [
        Prepared(data, each.stat().st_mtime) for each in folders if (data := artifacts.record_in(each, DatasetRef))
    ]
    return sorted(found, key=lambda each: -each.used)


def prepared_as(digest: str) -> DatasetRef:
    """The version whose digest begins so, checked to the last byte.

    Raises:
        DataError: If no version has it, or several with other images do.
        DamagedError: If it is damaged; the next run makes it again.
    """
    digests = {each.data.digest: each.data for each in reversed(prepared()) if each.data.digest.startswith(digest)}
    if len(digest) < _FEWEST or len(digests) != 1:
        raise DataError(
            f"A version of data must be named by the first letters of its digest, {_FEWEST} or more that no other has. "
            f"Received: {printed(digest)}; `layerflow data list` shows them."
        )
    (found,) = digests.values()
    artifacts.check_record(found)
    return found


class Difference(BaseModel):
    """What two versions have differently; each number is of images.

    ``added`` and ``removed`` are by class, ``relabelled`` by ``class → class``, ``moved`` by ``split → split``.
    ``counts`` has for each class how many there were and are. Images are the same if their pixels are.
    """

    model_config = ConfigDict(frozen=True)

    added: dict[str, int]
    removed: dict[str, int]
    relabelled: dict[str, int]
    moved: dict[str, int]
    counts: dict[str, tuple[int, int]]


def difference(before: DatasetRef, after: DatasetRef) -> Difference:
    """What became of the images of ``before`` in ``after``."""
    old, new = _places(before), _places(after)
    added, removed, relabelled, moved = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for digest in old.keys() | new.keys():
        of_old, of_new = (Counter(label for label, _ in places.get(digest, [])) for places in (old, new))
        gone, come = sorted((of_old - of_new).elements()), sorted((of_new - of_old).elements())
        relabelled.update(f"{was} → {now}" for was, now in zip(gone, come, strict=False))
        removed.update(gone[len(come) :])
        added.update(come[len(gone) :])
        in_old, in_new = (Counter(split for _, split in places.get(digest, [])) for places in (old, new))
        left, entered = sorted((in_old - in_new).elements()), sorted((in_new - in_old).elements())
        moved.update(f"{was} → {now}" for was, now in zip(left, entered, strict=False))
    counts = [Counter(label for places in of.values() for label, _ in places) for of in (old, new)]
    return Difference(
        added=dict(sorted(added.items())),
        removed=dict(sorted(removed.items())),
        relabelled=dict(sorted(relabelled.items())),
        moved=dict(sorted(moved.items())),
        counts={name: (counts[0][name], counts[1][name]) for name in dict.fromkeys((*before.classes, *after.classes))},
    )


def _places(data: DatasetRef) -> dict[int, list[tuple[str, str]]]:
    """Class and split of each image, by the digest of its pixels."""
    found = defaultdict[int, list[tuple[str, str]]](list)
    for split in data.counts:
        labels = labels_of(data, split)
        for digest, label in zip(image_digests(data, split).tolist(), labels.tolist(), strict=True):
            found[digest].append((data.classes[label], split))
    return found


def write_folder(data: DatasetRef, target: Path) -> None:
    """Write the images of a version as PNG files, ``train/<class>/`` and ``test/<class>/``; whole, or not at all.

    The validation images are in ``train``. Where they were drawn from the training images, a run with the same
    ``data.validation_fraction`` draws the same ones again, by their content.

    Raises:
        DataError: If ``target`` is there, the images are neither grey nor coloured, or a class can't name a folder.
    """
    if target.exists():
        raise DataError(f"{printed(str(target))} must not exist yet. It does; choose another folder.")
    if data.image_shape[2] not in (1, 3):
        raise DataError(f"Images must have 1 or 3 channels to be written as PNG. These have {data.image_shape[2]}.")
    if wrong := next((name for name in data.classes if "/" in name or "\0" in name or name.startswith(".")), None):
        raise DataError(f"A class must have the name of a folder to be written as one. {printed(wrong)} can't be one.")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed process left, maybe of another version
    try:
        for split in data.counts:
            images, labels = images_and_labels(data, split)
            side = partial / ("test" if split == "test" else "train")
            for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
                folder = side / data.classes[label]
                folder.mkdir(parents=True, exist_ok=True)
                picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
                picture.save(folder / f"{split}-{number:08}.png")
        store.sync(partial)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
