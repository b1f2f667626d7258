"""The versions of data in the store: found by digest, compared, and written as a folder."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layerflow import artifacts
from layerflow.data import image_folder
from layerflow.data.load import load
from layerflow.data.prepared import difference, prepared, prepared_as, write_folder
from layerflow.errors import DamagedError, DataError
from layerflow.parts import parts_of
from layerflow.records import DatasetRef
from layerflow.settings.data import DataConfig


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Sixty grey images of two classes, of which no two are the same."""
    for number in range(60):
        file = tmp_path / "photos" / "train" / ("cat", "dog")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (4, 4), np.uint8)).save(file)
    return tmp_path / "photos"


def loaded(folder: Path, key: str) -> DatasetRef:
    image_folder.forget()
    return artifacts.make(
        "load_data", key, DatasetRef, lambda target: load(DataConfig(name="folder", path=folder), target)
    )


def test_images_that_came_went_and_have_another_class_are_told_apart(photos: Path, empty_store: Path) -> None:
    before = loaded(photos, "before")
    (photos / "train/cat/0.png").unlink()
    (photos / "train/cat/2.png").rename(photos / "train/dog/2.png")
    shutil.copy(photos / "train/dog/1.png", photos / "train/dog/again.png")
    (photos / "train/fox").mkdir()
    for number in (100, 101):
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(photos / f"train/fox/{number}.png")
    after = loaded(photos, "after")
    found = difference(before, after)
    assert found.added == {"dog": 1, "fox": 2}
    assert found.removed == {"cat": 1}
    assert found.relabelled == {"cat → dog": 1}
    assert found.moved == {}, "what is in a split stays there"
    assert found.counts == {"cat": (30, 28), "dog": (30, 32), "fox": (0, 2)}
    back = difference(after, before)
    assert (back.added, back.removed, back.relabelled) == (found.removed, found.added, {"dog → cat": 1})


def test_an_image_that_moved_to_another_split_is_told_of(photos: Path, empty_store: Path) -> None:
    before = loaded(photos, "before")
    (photos / "test/cat").mkdir(parents=True)
    (photos / "test/dog").mkdir()
    for name in ("cat/0.png", "dog/1.png"):
        (photos / "train" / name).rename(photos / "test" / name)
    found = difference(before, loaded(photos, "after"))
    assert (found.added, found.removed, found.relabelled) == ({}, {}, {})
    assert sum(count for change, count in found.moved.items() if change.startswith("test → ")) > 0


@pytest.mark.parametrize("channels", [1, 3])
def test_a_version_written_as_a_folder_has_the_same_images_in_the_same_splits(
    channels: int, photos: Path, empty_store: Path, tmp_path: Path
) -> None:
    if channels == 3:
        for file in photos.rglob("*.png"):
            Image.merge("RGB", [Image.open(file), Image.new("L", (4, 4)), Image.open(file)]).save(file)
    data = loaded(photos, "photos")
    assert data.image_shape == (4, 4, channels)
    write_folder(data, tmp_path / "written")
    again = loaded(tmp_path / "written", "again")
    found = difference(data, again)
    assert (found.added, found.removed, found.relabelled, found.moved) == ({}, {}, {}, {})
    assert again.counts == data.counts
    assert {each.name for each in tmp_path.iterdir()} >= {"photos", "written"}


def test_a_folder_is_written_whole_or_not_at_all(
    photos: Path, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, target = loaded(photos, "photos"), tmp_path / "written"

    def full(self: Image.Image, file: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        with pytest.raises(OSError, match="No space left"):
            write_folder(data, target)
    assert not target.exists()
    assert not list(tmp_path.glob(".*"))
    left = tmp_path / ".written.partial" / "train" / "cat" / "of-a-killed-process.png"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    write_folder(data, target)
    assert not list(target.rglob(left.name))
    with pytest.raises(DataError, match="must not exist yet"):
        write_folder(data, target)


@pytest.mark.parametrize(("name", "shape"), [("../cat", (4, 4, 1)), (".cat", (4, 4, 1)), ("cat", (4, 4, 2))])
def test_what_no_folder_of_pictures_can_hold_is_refused(
    name: str, shape: tuple[int, int, int], photos: Path, empty_store: Path, tmp_path: Path
) -> None:
    data = loaded(photos, "photos").model_copy(update={"classes": (name, "dog"), "image_shape": shape})
    with pytest.raises(DataError, match=r"^(Images|A class) must have"):
        write_folder(data, tmp_path / "written")
    assert not (tmp_path / "written").exists()


def test_a_version_is_found_by_the_first_letters_of_its_digest(photos: Path, empty_store: Path) -> None:
    first = loaded(photos, "first")
    (photos / "train/cat/0.png").unlink()
    second = loaded(photos, "second")
    assert [each.data for each in prepared()] == [second, first]
    assert prepared_as(first.digest[:4]) == first
    for wrong in ("", first.digest[:3], "x" * 8, "../../etc"):
        with pytest.raises(DataError, match="must be named by the first letters of its digest"):
            prepared_as(wrong)


def test_a_damaged_version_is_listed_by_its_record_and_never_used(photos: Path, empty_store: Path) -> None:
    data = loaded(photos, "first")
    (pack,) = parts_of(empty_store / data.folder)
    with (empty_store / pack / "images.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x00\x01")
    with pytest.raises(DamagedError):
        prepared_as(data.digest)
    assert prepared() == []
    other = loaded(photos, "second")
    (empty_store / other.folder / "record.json").write_text("{")
    assert prepared() == []
