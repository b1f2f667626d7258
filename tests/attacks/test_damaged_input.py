"""Input that reads as something else than was meant: images repaired without a word, settings that are lost."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.given import settings_of
from layerflow import artifacts
from layerflow.config import RetrainConfig
from layerflow.data import image_folder, validation
from layerflow.data import load as data
from layerflow.errors import ConfigError, DatasetError
from layerflow.records import DatasetRef
from layerflow.settings.checks import ChecksConfig
from layerflow.settings.data import DataConfig


def photograph(number: int) -> bytes:
    noise = np.random.default_rng(number).integers(0, 256, (12, 12, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).resize((96, 96), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=95)
    return stream.getvalue()


@pytest.fixture
def pets(tmp_path: Path, empty_store: Path) -> Path:
    """Sixty photographs to learn from and twenty-four to test with, of two classes, one in each split repaired."""
    for split, count in (("train", 60), ("test", 24)):
        for number in range(count):
            file = tmp_path / "pets" / split / ("cat", "dog")[number % 2] / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            content = photograph(number + 1000 * (split == "test"))
            if number == 0:
                middle = len(content) // 2
                half, zeroed = content[:middle] + b"\xff\xd9", content[:middle] + bytes(2000) + content[middle + 2000 :]
                content = half if split == "train" else zeroed
                assert Image.open(io.BytesIO(content)).convert("RGB").size == (96, 96), "Pillow repairs it"
            file.write_bytes(content)
    return tmp_path / "pets"


def test_images_that_libjpeg_repairs_are_refused_and_where_they_may_be_left_out_are_a_finding(pets: Path) -> None:
    def load(max_broken: float) -> DatasetRef:
        image_folder.forget()
        config = DataConfig(name="folder", path=pets, max_broken=max_broken, validation_fraction=0.3)
        return artifacts.make("load_data", "pets", DatasetRef, lambda target: data.load(config, target))

    with pytest.raises(
        DatasetError, match=r"2 of 84 files .* test/cat/0\.jpg \(corrupt JPEG data.* train/cat/0\.jpg \("
    ):
        load(0)
    made = load(0.05)
    assert (made.broken, sum(made.counts.values())) == (2, 82)
    report = validation.validate(ChecksConfig(), made, None)
    assert "2 of 84 files can't be read and were left out" in report.findings[0].text


@pytest.mark.parametrize(
    "text",
    [
        "gate: {min_accuracy: 0.95}\ntraining: {epochs: 3}\ngate: {margin: 0.01}\n",
        "gate:\n  min_accuracy: 0.95\n  min_accuracy: 0\n",
        'gate: {min_accuracy: 0.95, "min_accuracy": 0}',
    ],
)
def test_a_floor_is_not_lost_to_a_second_line_of_its_name(text: str, tmp_path: Path) -> None:
    file = tmp_path / "nightly.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="each name once"):
        settings_of(file, RetrainConfig())
