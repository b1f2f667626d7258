"""Loading through TFDS: real digits, and a mirror in place of the network."""

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from layerflow import data
from layerflow.config import DataConfig
from layerflow.errors import DatasetError, MirrorError, UnreachableError
from layerflow.records import DatasetRef


def test_every_digit_is_in_exactly_one_split_with_its_own_label(digits: DatasetRef) -> None:
    assert digits.counts["train"] + digits.counts["validation"] == 1437
    assert digits.counts["test"] == 360
    reference = load_digits()
    expected = sorted(
        (np.rint(image * 255 / 16).astype(np.uint8).tobytes(), int(label))
        for image, label in zip(reference.images, reference.target, strict=True)
    )
    received = []
    for split in digits.counts:
        images, labels = data.images_and_labels(digits, split)
        assert images.dtype == np.uint8
        assert labels.dtype == np.int32
        assert images.shape == (digits.counts[split], *digits.image_shape)
        received += [(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)]
    assert sorted(received) == expected


def test_arrays_are_memory_mapped(digits: DatasetRef) -> None:
    assert isinstance(data.images_and_labels(digits, "train")[0], np.memmap)


def test_loading_again_gives_the_same_bytes(digits: DatasetRef, empty_store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    folder.mkdir()
    again = data.load(DataConfig(), folder)
    assert again.digest == digits.digest
    assert again.test_digest == digits.test_digest


def test_validation_does_not_touch_test_and_keeps_its_images_when_it_grows(digits: DatasetRef, tmp_path: Path) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    more = data.load(DataConfig(validation_fraction=0.3), folder)
    assert more.test_digest == digits.test_digest
    before = {image.tobytes() for image in data.images_and_labels(digits, "validation")[0]}
    after = {image.tobytes() for image in np.load(folder / "validation_images.npy")}
    assert before < after
    # 1,437 draws at 0.3: three standard deviations are 52.
    assert abs(more.counts["validation"] - 0.3 * 1437) < 52


def test_a_fraction_that_leaves_no_validation_is_refused(empty_store: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="must leave images on both sides"):
        data.load(DataConfig(validation_fraction=1e-9), tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mnsit", "did you mean mnist"),
        ("mnist:9.9.9", "only: 3.0.1"),
        ("titanic", "must hold one image and one class label an example. It holds pclass"),
        ("imagenette", "must be uint8 of one fixed shape"),
    ],
)
def test_a_wrong_dataset_is_one_sentence(empty_store: Path, name: str, reason: str) -> None:
    with pytest.raises(DatasetError, match=reason) as caught:
        data.check(DataConfig(name=name))
    assert "\n" not in str(caught.value)


def test_a_mirror_that_lacks_a_file_or_holds_a_damaged_one_is_named(empty_store: Path, tmp_path: Path) -> None:
    config = DataConfig(name="mnist", mirror=tmp_path)
    with pytest.raises(MirrorError, match=r"mnist/\S+\.gz, which is not there"):
        data.check(config)
    (tmp_path / "mnist").mkdir()
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / "mnist" / f"{name}-ubyte.gz").write_bytes(b"no images")
    with pytest.raises(MirrorError, match=r"is damaged: expected SHA-256 [0-9a-f]{64}, received [0-9a-f]{64}"):
        data.check(config)


def test_without_network_it_fails_at_once_with_the_remedy(empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(UnreachableError, match=r"can't be reached .* set data.mirror"):
        data.check(DataConfig(name="mnist"))


def test_two_processes_prepare_a_dataset_once_and_leftovers_are_swept(empty_store: Path) -> None:
    leftover = empty_store / "tfds" / "digits" / "incomplete.ABC_1.0.0"
    leftover.mkdir(parents=True)
    script = """
from layerflow import store
from layerflow.config import DataConfig
from layerflow.data import load
from layerflow.records import DatasetRef
import sys
print(store.make("load_data", sys.argv[1], DatasetRef, lambda folder: load(DataConfig(), folder)).digest)
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", script, key], stdout=subprocess.PIPE, text=True) for key in "ab"
    ]
    answers = [process.communicate(timeout=120)[0].splitlines()[-1] for process in processes]
    assert answers[0] == answers[1]
    assert not leftover.exists()


def test_real_mnist_and_fashion_mnist_come_whole_from_the_mirror(
    mirror: str, empty_store: Path, tmp_path: Path
) -> None:
    first_labels = {"mnist": [], "fashion_mnist": []}
    for name in first_labels:
        (tmp_path / name).mkdir()
        made = data.load(DataConfig(name=name, mirror=Path(mirror)), tmp_path / name)
        assert made.counts["train"] + made.counts["validation"] == 60_000
        assert made.counts["test"] == 10_000
        counted = np.bincount(np.load(tmp_path / name / "test_labels.npy"))
        first_labels[name] = counted.tolist()
    # The class counts that the two datasets publish: neither has images of the other in it.
    assert first_labels["mnist"] == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert first_labels["fashion_mnist"] == [1000] * 10
