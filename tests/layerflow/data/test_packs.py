"""Images kept once, by content: what a new version writes, reads again, and does not read."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layerflow import artifacts, checksums, store
from layerflow.data import image_folder, image_folder_source, load, packs, stored_packs
from layerflow.data.arrays import images_and_labels
from layerflow.data.image_digests import image_digests
from layerflow.data.prepared import difference, prepared_as, write_folder
from layerflow.errors import DamagedError
from layerflow.packed import PackedImages
from layerflow.parts import parts_of
from layerflow.records import DatasetRef, PackRef
from layerflow.settings.data import DataConfig

SPLITS = ("train", "validation", "test")
Version = Callable[[str], DatasetRef]


def draw(root: Path, numbers: range) -> None:
    """Pictures of two classes, each its own."""
    for number in numbers:
        file = root / ("test" if number % 5 == 0 else "train") / ("cat", "dog")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (9, 8, 3), np.uint8)).save(file)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Sixty pictures."""
    draw(tmp_path / "pets", range(60))
    return tmp_path / "pets"


@pytest.fixture
def version(pets: Path, empty_store: Path) -> Version:
    """Prepares the folder as it is now, under a key."""
    config = DataConfig(name="folder", path=pets, image_size="8x8", validation_fraction=0.2)

    def prepare(key: str) -> DatasetRef:
        image_folder.forget()
        return artifacts.make("load_data", key, DatasetRef, partial(load.load, config))

    return prepare


def content(data: DatasetRef) -> dict[str, list[tuple[bytes, int]]]:
    """Images and labels of each split, in their order."""
    return {
        split: [(image.tobytes(), int(label)) for image, label in zip(*images_and_labels(data, split), strict=True)]
        for split in SPLITS
    }


def packs_of(data: DatasetRef) -> list[PackRef]:
    found = [artifacts.check(store.path(part), PackRef) for part in parts_of(store.path(data.folder))]
    return [each for each in found if isinstance(each, PackRef)]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The files that are decoded from now on."""
    read, found = image_folder.decode.read, list[bytes]()

    def count(file: bytes, shape: tuple[int, int, int]) -> np.ndarray:
        found.append(file)
        return read(file, shape)

    monkeypatch.setattr(image_folder.decode, "read", count)
    return found


def test_a_night_decodes_and_writes_only_what_is_new(
    version: Version, pets: Path, decoded: list[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    version("first")
    (first,) = packs_of(version("first"))
    decoded.clear()
    draw(pets, range(60, 63))
    (pets / "train/cat/2.png").unlink()
    second = version("second")
    assert sorted(decoded) == sorted(file.read_bytes() for file in pets.rglob("6[012].png"))
    old, new = sorted(packs_of(second), key=lambda pack: -pack.rows)
    assert (old, new.rows) == (first, 3)
    # As if nothing had been there.
    monkeypatch.setenv("LAYERFLOW_STORE", str(tmp_path / "other"))
    alone = version("second")
    assert (alone.digest, alone.test_digest) == (second.digest, second.test_digest)
    expected = content(alone)
    monkeypatch.setenv("LAYERFLOW_STORE", str(tmp_path / "store"))
    assert content(second) == expected


def test_the_same_images_are_kept_once_whatever_they_are_called(version: Version, pets: Path) -> None:
    first = version("first")
    (pets / "train/dog").rename(pets / "train/wolf")
    (pets / "test/dog").rename(pets / "test/wolf")
    second = version("second")
    assert packs_of(second) == packs_of(first)
    assert second.digest != first.digest, "classes count"
    assert content(second) == content(first)


def test_a_damaged_pack_is_set_aside_with_its_versions_and_made_again_from_the_files(
    version: Version, pets: Path, empty_store: Path
) -> None:
    first = version("first")
    draw(pets, range(60, 63))
    second = version("second")
    expected = content(second)
    small, large = sorted(packs_of(second), key=lambda pack: pack.rows)
    with (empty_store / large.folder / "images.npy").open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"other")
    for damaged in (first, second):
        with pytest.raises(DamagedError, match=r"packs/.* is not as it was stored; the folder was set aside"):
            artifacts.check_record(damaged)
    assert version("second").digest == second.digest
    assert sorted(packs_of(second), key=lambda pack: pack.rows) == [small, large], "of which only one is new"
    assert content(version("second")) == expected


def test_a_damaged_pack_is_not_taken_from(
    version: Version, pets: Path, decoded: list[bytes], empty_store: Path
) -> None:
    (pack,) = packs_of(version("first"))
    with (empty_store / pack.folder / "images.npy").open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"other")
    draw(pets, range(60, 61))
    decoded.clear()
    artifacts.check_record(version("second"))
    assert len(decoded) == 61


def test_what_another_code_made_of_a_file_is_made_again_and_kept_once(
    version: Version, decoded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = version("first")
    for key in ("upgraded", "and its next night"):
        decoded.clear()
        monkeypatch.setattr(image_folder_source, "code_digest", lambda module: "of another Pillow")
        assert packs_of(version(key)) == packs_of(first)
        assert len(decoded) == (60 if key == "upgraded" else 0)


def test_files_that_were_encoded_anew_are_kept_once(version: Version, pets: Path, decoded: list[bytes]) -> None:
    first = version("first")
    for file in pets.rglob("*.png"):
        Image.open(file).save(file.with_suffix(".bmp"))
        file.unlink()
    decoded.clear()
    assert packs_of(version("second")) == packs_of(first)
    assert len(decoded) == 60
    assert packs_of(version("third")) == packs_of(first)
    assert len(decoded) == 60


HEADER = b"\x93NUMPY\x01\x00\x76\x00"


@pytest.mark.parametrize(
    "damage",
    [b"", b"no array", b"PK\x03\x04", HEADER + b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999,)}"],
    ids=["empty", "text", "zip", "huge"],
)
@pytest.mark.parametrize("name", ["digests.npy", "test_places.npy", "images.npy", "record.json"])
def test_a_pack_that_can_not_be_read_is_no_pack(
    name: str, damage: bytes, version: Version, pets: Path, empty_store: Path
) -> None:
    version("first")
    (pack,) = (empty_store / "packs").glob("[!.]*")
    (pack / name).write_bytes(damage)
    draw(pets, range(60, 61))
    assert sum(each.rows for each in packs_of(version("second"))) == 61


def test_a_version_whose_packs_have_other_images_is_refused(version: Version, pets: Path, empty_store: Path) -> None:
    data = version("first")
    rows = empty_store / data.folder / "train_rows.npy"
    places = np.load(rows)
    far, elsewhere = places + np.array([0, 1000], np.uint32), places + np.array([9, 0], np.uint32)
    for wrong in (places[::-1], far, elsewhere, places.astype(float), places[:, :1], places[:0], None):
        rows.write_bytes(b"") if wrong is None else np.save(rows, wrong)
        with pytest.raises(DamagedError, match="must say where its images are"):
            images_and_labels(data, "train")


def test_parts_that_are_no_packs_are_damage(version: Version, empty_store: Path) -> None:
    data = version("first")
    for wrong in ('["load_data/first"]', '["../../etc"]', '"packs"', "{", f'["packs/{"a" * 32}"]'):
        folder = store.path(data.folder)
        (folder / "parts.json").write_text(wrong)
        record = json.loads((folder / "record.json").read_bytes())
        del record["digest"]
        record["files"]["parts.json"] = artifacts.sha256(folder / "parts.json")
        (folder / "record.json").write_text(json.dumps(record | {"digest": artifacts._digest(record)}))
        with pytest.raises(DamagedError):
            artifacts.check(folder)
        version("first")


def test_many_small_packs_become_one(version: Version, pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "MOST_SMALL", 3)
    (first,) = packs_of(version("first"))
    for night in range(9):
        draw(pets, range(60 + night, 61 + night))
        data = version(str(night))
        assert len(packs_of(data)) <= 5
        assert first in packs_of(data), "large ones are not written again with them"
    assert sum(each.rows for each in packs_of(data)) == 69


def test_what_was_moved_is_not_moved_again(version: Version, pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times, because which pack comes first by name is chance."""
    monkeypatch.setattr(packs, "PACK_BYTES", 40 * 8 * 8 * 3)
    version("first")
    for number in range(33):
        for file in pets.rglob(f"{number}.png"):
            file.unlink()
    for night in range(10):
        draw(pets, range(60 + night, 61 + night))
        before = {each.name for each in (store.root() / "packs").iterdir()}
        version(f"night {night}")
        new = [each for each in (store.root() / "packs").iterdir() if each.name not in before]
        rows = sum(record.rows for each in new if (record := artifacts.record_in(each, PackRef)))
        assert rows == 1 or night == 0


def test_copies_in_one_version_are_kept_once(version: Version, pets: Path) -> None:
    for number in range(50):
        shutil.copy(pets / "train/cat/2.png", pets / f"train/dog/copy-{number}.png")
    data = version("first")
    assert (sum(pack.rows for pack in packs_of(data)), sum(data.counts.values())) == (60, 110)


def test_two_sizes_of_one_folder_in_turn_decode_nothing_twice(
    pets: Path, empty_store: Path, decoded: list[bytes]
) -> None:
    for night in range(3):
        for size in ("8x8", "6x6"):
            image_folder.forget()
            config = DataConfig(name="folder", path=pets, image_size=size)
            artifacts.make("load_data", f"{size} {night}", DatasetRef, partial(load.load, config))
            assert len(decoded) == (1 if night else 60)
            decoded.clear()
        draw(pets, range(60 + night, 61 + night))


def test_the_newest_versions_are_those_that_were_made_last(version: Version, pets: Path) -> None:
    for night in range(6):
        draw(pets, range(60 + night, 61 + night))
        version(str(night))
    newest = stored_packs.newest_versions("pets", (8, 8, 3))
    assert [folder.name for folder in newest] == ["5", "4", "3"]


def test_splits_share_the_files_that_they_have_open(version: Version) -> None:
    data = version("first")
    (train,), (test,) = (images_and_labels(data, split)[0].packs for split in ("train", "test"))
    assert train is test


def test_rows_that_few_images_need_are_left_behind(version: Version, pets: Path) -> None:
    first = version("first")
    for number in range(40):
        for file in pets.rglob(f"{number}.png"):
            file.unlink()
    second = version("second")
    (pack,) = packs_of(second)
    assert pack.rows == 20
    assert pack not in packs_of(first)
    assert len({image for split in content(second).values() for image, _ in split}) == 20


def test_a_full_pack_is_followed_by_another(version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "PACK_BYTES", 25 * 8 * 8 * 3)
    data = version("first")
    assert sorted(pack.rows for pack in packs_of(data)) == [10, 25, 25]
    assert len({image for split in content(data).values() for image, _ in split}) == 60


def test_what_a_killed_loading_left_does_no_harm(version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        """The end of a process."""

    monkeypatch.setattr(packs, "PACK_BYTES", 25 * 8 * 8 * 3)
    with monkeypatch.context() as patch:
        patch.setattr(load.SplitFiles, "write", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            version("first")
    data = version("first")
    artifacts.check_record(data)
    assert sum(pack.rows for pack in packs_of(data)) == 60


def test_digests_are_those_by_which_validation_is_drawn(version: Version) -> None:
    data = version("first")
    bound = 0.2 * 2**64
    assert (image_digests(data, "validation") < bound).all()
    assert (image_digests(data, "train") >= bound).all()


def test_a_version_of_an_earlier_layerflow_is_read_compared_and_exported(
    version: Version, empty_store: Path, tmp_path: Path
) -> None:
    data = version("first")

    def as_before(folder: Path) -> DatasetRef:
        for split in SPLITS:
            images, labels = images_and_labels(data, split)
            for name, array in {"images": images, "labels": labels, "digests": image_digests(data, split)}.items():
                np.save(folder / f"{split}_{name}.npy", array)
        digest, test_digest = DatasetRef.digests_of(checksums.digests(folder), data.classes)
        return data.model_copy(update={"digest": digest, "test_digest": test_digest})

    old = artifacts.make("load_data", "old", DatasetRef, as_before)
    assert old.digest != data.digest
    assert content(old) == content(data)
    assert not any(difference(prepared_as(old.digest), data).model_dump(exclude={"counts"}).values())
    write_folder(old, tmp_path / "written")
    assert len([*(tmp_path / "written").rglob("*.png")]) == 60


def test_packed_images_are_used_like_an_array() -> None:
    first, second = np.split(np.arange(40, dtype=np.uint8).reshape(10, 2, 2, 1), [6])
    images = PackedImages([first, second], np.array([[1, 3], [0, 0], [0, 5], [1, 0], [0, 2]], np.uint32))
    whole = np.stack([second[3], first[0], first[5], second[0], first[2]])
    assert (images.shape, images.nbytes, images.dtype, len(images)) == (whole.shape, whole.nbytes, whole.dtype, 5)
    np.testing.assert_array_equal(images, whole)
    np.testing.assert_array_equal(images[3], whole[3])
    np.testing.assert_array_equal(list(images), list(whole))
    for key in (slice(1, 4), slice(None, None, 2), np.array([4, 0, 4]), whole[:, 0, 0, 0] > 15, np.array([], np.int64)):
        np.testing.assert_array_equal(images[key], whole[key])
    assert isinstance(images[1:], PackedImages), "a view"
    with pytest.raises(IndexError):
        images[5]
