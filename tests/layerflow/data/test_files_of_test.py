"""The files of the test images of a folder, and what verification makes of them."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from layerflow import artifacts, checksums
from layerflow.data import decode, image_folder
from layerflow.data.arrays import images_and_labels
from layerflow.data.files_of_test import files_of_test
from layerflow.data.load import load
from layerflow.export import verification
from layerflow.records import DatasetRef
from layerflow.settings.data import DataConfig
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import TrainingConfig
from tests import image_files
from tests.layerflow.conftest import VERIFIER, make_challenger

KINDS = ("png-rgb", "jpeg-turned-6", "gif", "webp", "tiff", "jpeg-cmyk")


def make_folder(root: Path) -> Path:
    makers = {**image_files.DECODED, **{kind: make for kind, (make, _) in image_files.REFUSED.items()}}
    for number in range(48):
        kind = KINDS[number % len(KINDS)]
        file = root / ("test" if number % 4 == 0 else "train") / ("cat", "dog")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(number)
        file.write_bytes(makers[kind](random, *random.integers(20, 60, 2).tolist()))
    return root


@pytest.mark.process
def test_every_test_file_is_compared_with_the_pixels_that_training_has(empty_store: Path, tmp_path: Path) -> None:
    """In a process of its own, as every model is verified."""
    root = make_folder(tmp_path / "folder")
    (root / "test" / "dog").mkdir()
    for number in (1, 13, 5, 17):  # PNG or JPEG of the dogs, and those that are refused
        shutil.move(root / "train" / "dog" / f"{number}.png", root / "test" / "dog")
    config = DataConfig(name="folder", path=root, image_size="16x12", validation_fraction=0.2)
    data = artifacts.make("load_data", "folder", DatasetRef, lambda folder: load(config, folder))
    image_folder.forget()
    files = files_of_test(data, root)
    images, _ = images_and_labels(data, "test")
    assert sorted(row for *_, row in files) == list(range(data.counts["test"]))
    for path, digest, row in files:
        assert checksums.sha256(Path(path)) == digest
        np.testing.assert_array_equal(decode.read(Path(path).read_bytes(), data.image_shape), images[row])
    settings = TrainingConfig(epochs=1, compile="graph")
    made = make_challenger("folder", data, None, ModelConfig(hidden=(4,)), settings)  # type: ignore[arg-type]
    found = verification.verify(made.export, made.evaluation, data, VERIFIER, files)
    assert made.export.signatures == ("image_bytes", "pixels", "embedding")
    refused = sum(int(Path(path).stem) % len(KINDS) >= 4 for path, *_ in files)
    assert (found.files_same, found.files_refused) == (len(files) - refused, refused)
    assert refused
    (detail,) = (check.detail for check in found.checks if check.name == "image_files")
    assert "become the pixels of training, bit by bit" in detail
    assert "is a CMYK JPEG" in detail
    image_folder.forget()
    shutil.rmtree(root)
    assert files_of_test(data, root) == []
    assert files_of_test(data, None) == []
