"""The slices of the test images: of a folder by a CSV file, of a dataset by its features."""

import io
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from layerflow import artifacts, store
from layerflow.config import RetrainConfig
from layerflow.data import image_folder, load, slices_csv
from layerflow.data.arrays import images_and_labels
from layerflow.data.slice_files import MOST_VALUES
from layerflow.data.slices import slices_of
from layerflow.errors import DamagedError, DatasetError, config_sentence
from layerflow.records import DatasetRef, TrainedRef
from layerflow.settings.data import DataConfig
from layerflow.settings.devices import DevicesConfig
from tasks import evaluate_model, export_model, load_data, train_model
from tasks.caching import key_of

CAMERAS = ("left", "right", "above")


def picture(number: int) -> bytes:
    """A PNG whose every pixel is its number, by which the tests know it."""
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 4), number, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def camera_of(number: int) -> str:
    return CAMERAS[number % 3]


@pytest.fixture
def tree(tmp_path: Path, empty_store: Path) -> Path:
    """Images 0 to 39 in train/ and 100 to 119 in test/, of two classes."""
    root = tmp_path / "pets"
    for split, numbers in (("train", range(40)), ("test", range(100, 120))):
        for number in numbers:
            file = root / split / ("cat", "dog")[number % 2] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(picture(number))
    return root


def write_csv(root: Path, camera: Callable[[int], str] = camera_of) -> Path:
    """A CSV file of all images with their camera, and the half of the day."""
    files = sorted(root.rglob("*.png"))
    lines = [f"{file.relative_to(root).as_posix()},{camera(int(file.stem))},{int(file.stem) % 2}" for file in files]
    (root / "slices.csv").write_text("\n".join(["file,camera,half", *lines]))
    return root / "slices.csv"


def loaded(root: Path, **settings: object) -> DatasetRef:
    image_folder.forget()
    config = DataConfig.model_validate({"name": "folder", "path": root, **settings})
    return artifacts.make("load_data", "pets", DatasetRef, lambda folder: load.load(config, folder), anew=True)


def by_image(made: DatasetRef) -> dict[int, list[str]]:
    """The values of each test image, by its number."""
    found, images = slices_of(made), np.asarray(images_and_labels(made, "test")[0])
    values = [[found.names[number][1] for number in row] for row in found.numbers]
    return dict(zip(images[:, 0, 0, 0].tolist(), values, strict=True))


def expected(numbers: range) -> dict[int, list[str]]:
    return {number: [camera_of(number), str(number % 2)] for number in numbers}


def test_each_test_image_has_the_values_of_its_line(tree: Path) -> None:
    made = loaded(tree, slices=str(write_csv(tree)))
    assert made.slices == ("camera", "half")
    assert by_image(made) == expected(range(100, 120))
    assert slices_of(made).names == (*(("camera", each) for each in sorted(CAMERAS)), ("half", "0"), ("half", "1"))


def test_rows_stay_aligned_where_files_are_broken_and_images_are_there_twice(tree: Path) -> None:
    (tree / "test" / "cat" / "102.png").write_bytes(picture(102)[:-20])
    shutil.copy(tree / "test" / "cat" / "104.png", tree / "test" / "cat" / "304.png")
    slices = write_csv(tree, lambda number: "copy" if number == 304 else camera_of(number))
    made = loaded(tree, slices=str(slices), max_broken=0.1)
    assert made.broken == 1
    images, found = np.asarray(images_and_labels(made, "test")[0])[:, 0, 0, 0].tolist(), slices_of(made)
    assert sorted(images) == [100, 101, 103, 104, *range(104, 120)]
    cameras = [(image, found.names[row[0]][1]) for image, row in zip(images, found.numbers, strict=True)]
    copies = [camera for image, camera in cameras if image == 104]
    assert sorted(copies) == sorted(["copy", camera_of(104)])
    assert all(camera == camera_of(image) for image, camera in cameras if image != 104)


def test_the_slices_follow_an_image_that_is_drawn_from_train(tree: Path) -> None:
    shutil.rmtree(tree / "test")
    made = loaded(tree, slices=str(write_csv(tree)), test_fraction=0.4)
    found = by_image(made)
    assert 5 < len(found) == made.counts["test"] < 40
    assert found == {number: expected(range(40))[number] for number in found}


def test_an_image_that_is_not_listed_has_no_value_and_the_log_counts_them(
    tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slices = write_csv(tree)
    kept = [line for line in slices.read_text().splitlines() if not line.startswith("test/cat/10")]
    slices.write_text("\n".join(kept))
    with caplog.at_level(logging.INFO):
        made = loaded(tree, slices=str(slices))
    assert by_image(made) == expected(range(100, 120)) | {number: ["", ""] for number in range(100, 110, 2)}
    assert "5 of 20 test images have no camera" in caplog.text


def test_slices_change_no_digest_of_images_and_their_absence_writes_no_file(tree: Path) -> None:
    without = loaded(tree)
    assert not list(store.path(without.folder).glob("test_slices*"))
    assert (without.slices, without.slices_digest, slices_of(without).names) == ((), None, ())
    made = loaded(tree, slices=str(write_csv(tree)))
    assert (made.digest, made.test_digest) == (without.digest, without.test_digest)
    other = loaded(tree, slices=str(write_csv(tree, lambda number: "left")))
    assert other.digest == made.digest
    assert other.slices_digest != made.slices_digest


def test_other_slices_load_and_evaluate_again_and_train_nothing_again(tree: Path) -> None:
    trained = TrainedRef.model_construct(model="mlp", digest="trained")

    def keys() -> list[str]:
        image_folder.forget()
        config = DataConfig(name="folder", path=tree, slices=str(tree / "slices.csv"))
        data = loaded(tree, slices=str(tree / "slices.csv"))
        devices = DevicesConfig()
        inputs = {"trained": trained, "data": data, "devices": devices}
        loading = key_of(load_data.cache_policy.work, {"config": config, "devices": devices})
        steps = (evaluate_model, export_model)
        training = key_of(train_model.cache_policy.work, {"data": data, "devices": devices})
        return [loading, *(key_of(step.cache_policy.work, inputs) for step in steps), training]

    write_csv(tree)
    load_, evaluate, export, train = keys()
    write_csv(tree).write_text((tree / "slices.csv").read_text() + "\n\nnot/here.png,left,0\n")
    assert keys() == [load_, evaluate, export, train], "it says the same of each image"
    write_csv(tree, lambda number: "left" if number == 107 else camera_of(number))
    again = keys()
    assert again[0] != load_
    assert again[1] != evaluate
    assert again[2:] == [export, train]


def test_the_features_that_are_the_slices_are_in_the_key() -> None:
    keys = [
        key_of(load_data.cache_policy.work, {"config": DataConfig(slices=slices), "devices": DevicesConfig()})
        for slices in (None, "camera", "camera,site")
    ]
    assert len(set(keys)) == 3


def test_two_files_that_change_places_are_other_slices(tree: Path) -> None:
    write_csv(tree)
    config = DataConfig(name="folder", path=tree, slices=str(tree / "slices.csv"))
    before = key_of(load_data.cache_policy.work, {"config": config, "devices": DevicesConfig()})
    first, second, aside = (tree / "test" / "cat" / f"{name}.png" for name in (100, 102, "aside"))
    for old, new in ((first, aside), (second, first), (aside, second)):
        old.rename(new)
    image_folder.forget()
    assert key_of(load_data.cache_policy.work, {"config": config, "devices": DevicesConfig()}) != before
    found = by_image(loaded(tree, slices=str(tree / "slices.csv")))
    assert found[102][0] == camera_of(100)
    assert found[100][0] == camera_of(102)


def test_what_spreadsheets_write_is_read(tree: Path) -> None:
    text = write_csv(tree).read_text().replace("\n", "\r\n").replace("left", ' "left" '.strip())
    (tree / "slices.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert by_image(loaded(tree, slices=str(tree / "slices.csv"))) == expected(range(100, 120))


LISTED = "test/cat/100.png,left\n"
MANY = "".join(f"test/cat/{number}.png,{number}\n" for number in range(MOST_VALUES + 1))
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", r"has the columns of an empty line"),
    "header alone": (b"file,camera\n", "has no line below its header"),
    "no header": (LISTED.encode(), r"has the columns test/cat/100.png, left"),
    "semicolons": (b"file;camera\ntest/cat/100.png;left\n", r"has the columns file;camera"),
    "no other column": (b"file\ntest/cat/100.png\n", "has no other column"),
    "a column twice": (f"file,camera,camera\n{LISTED}".encode(), "has the column camera twice"),
    "a column without name": (b"file,\ntest/cat/100.png,left\n", "has a column named ''"),
    "many columns": (b"file," + b",".join(b"c%d" % number for number in range(21)), "has 21 others, where 20 are"),
    "a cell too many": (f"file,camera\n{LISTED}test/cat/102.png,a,b\n".encode(), "has 3 cells in line 3"),
    "a cell too few": (b"file,camera\ntest/cat/100.png\n", "has 1 cells in line 2"),
    "different values": (f"file,camera\n{LISTED}test/cat/100.png,right\n".encode(), "different values"),
    "latin": ("file,caméra\n".encode("latin-1"), "is not UTF-8"),
    "utf-16": (f"file,camera\n{LISTED}".encode("utf-16"), "has null characters"),
    "null": (b"file,camera\ntest/cat/100.png,le\0ft\n", "has null characters"),
    "a huge cell": (b"file,camera\ntest/cat/100.png," + b"a" * 200_000, r"line 2 that is not CSV \(field larger"),
    "a long value": (b"file,camera\ntest/cat/100.png," + b"a" * 201, "printable text of at most 200 characters"),
    "an escape": (b"file,camera\ntest/cat/100.png,\x1b[31m\n", "printable text of at most 200 characters"),
    "an open quote": (b'file,camera\ntest/cat/100.png,"left', "that is not CSV"),
    "no such image": (b"file,camera\nC:\\pets\\100.png,left\n", r"None of the 1 names in .* such as C:\\\\?pets"),
    "only train images": (b"file,camera\ntrain/cat/0.png,left\n", "None of the 20 test images has a value"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_csv_is_one_sentence(case: str, tree: Path) -> None:
    content, reason = BAD[case]
    (tree / "slices.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=reason) as caught:
        loaded(tree, slices=str(tree / "slices.csv"))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_a_column_of_too_many_values_is_refused_before_an_image_is_read(tree: Path) -> None:
    for number in range(MOST_VALUES + 1):
        (tree / "test" / "cat" / f"{number}.png").write_bytes(b"")
    (tree / "slices.csv").write_text(f"file,weight\n{MANY}")
    with pytest.raises(DatasetError, match=r"at most 1,000 values\. weight has more"):
        load.check(DataConfig(name="folder", path=tree, slices=str(tree / "slices.csv")))


@pytest.mark.parametrize("name", ["missing.csv", ".", "x" * 300])
def test_a_csv_that_can_not_be_read_is_one_sentence_and_does_not_heal(name: str, tree: Path) -> None:
    with pytest.raises(DatasetError, match="can't be read"):
        loaded(tree, slices=str(tree / name))


def test_a_csv_that_is_too_large_is_not_read(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices_csv, "_MOST_BYTES", 100)
    with pytest.raises(DatasetError, match="is larger than"):
        loaded(tree, slices=str(write_csv(tree)))


def _swap(content: list[list[str]]) -> object:
    return [content[-1], *content[1:-1], content[0]]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("json", lambda content: content[:-1]),
        ("json", _swap),
        ("json", lambda content: {}),
        ("json", lambda content: [*content[:-1], ["camera"]]),
        ("json", lambda content: [["other", value] for _, value in content]),
        ("npy", lambda rows: rows[:-1]),
        ("npy", lambda rows: rows[:, :1]),
        ("npy", lambda rows: rows + 100),
        ("npy", lambda rows: -rows - 1),
        ("npy", lambda rows: rows.astype(np.int64)),
        ("npy", lambda rows: rows[:, ::-1]),
    ],
)
def test_slices_that_do_not_fit_the_test_images_are_damaged(
    name: str, damage: Callable[..., object], tree: Path
) -> None:
    made = loaded(tree, slices=str(write_csv(tree)))
    file = store.path(made.folder) / f"test_slices.{name}"
    if name == "json":
        file.write_text(json.dumps(damage(json.loads(file.read_text()))))
    else:
        np.save(file, damage(np.load(file)))
    with pytest.raises(DamagedError, match=r"must hold the slices of its 20 test images"):
        slices_of(made)
    with pytest.raises(DamagedError):  # and the store finds it first
        artifacts.check_record(made)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"slices": "camera,camera"}, "data: data.slices with at most 20 names of features, each once"),
        ({"slices": "camera,,site"}, "data: data.slices with at most 20 names of features, each once"),
        ({"name": "folder", "path": "pets", "slices": "a\0.csv"}, "a CSV file whose path has no null character"),
    ],
)
def test_slices_that_can_not_be_are_refused_before_the_run(settings: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RetrainConfig.model_validate({"data": settings})
    assert sentence in config_sentence(caught.value)
