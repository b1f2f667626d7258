"""Models whose answers to image files are not those to the pixels of training, and what stops each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from layerflow import checksums
from layerflow.checksums import DIGESTS, EXTRA
from layerflow.export.image_bytes import pixels_of
from layerflow.export.verifier.files import BOTH_WAYS, check_files, check_test_files
from layerflow.export.verifier.graph import check_graph, computes
from layerflow.export.verifier.model import Model
from layerflow.export.verifier.refusal import RefusedError
from tests import image_files

pytestmark = pytest.mark.slow

SHAPE, CLASSES = (6, 7, 3), ["cat", "dog", "ünïcorn"]
IMAGES = np.random.default_rng(0).integers(0, 256, (12, *SHAPE), np.uint8)
WEIGHTS = np.random.default_rng(1).normal(size=(6 * 7 * 3, 3)).astype(np.float32) / 20
Change = Callable[[Any], Any]


def same(value: Any) -> Any:
    return value


def make(
    folder: Path, pixels: Change = same, files: Change = same, label: Change = same, features: Change = same
) -> Path:
    """Write a small linear classifier with all signatures; each argument changes what one of them gives."""

    def ask(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = tf.reshape(tf.cast(images, tf.float32) / 255.0, (-1, len(WEIGHTS))) @ tf.constant(WEIGHTS)
        return {"probabilities": tf.nn.softmax(logits), "class_id": tf.argmax(logits, axis=-1)}

    def ask_files(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        answers = ask(files(pixels_of(image_bytes, SHAPE)))
        return {**answers, "label": label(tf.gather(tf.constant(CLASSES), answers["class_id"]))}

    images = [tf.TensorSpec((None, *SHAPE), tf.uint8, name="images")]
    strings = [tf.TensorSpec((None,), tf.string, name="image_bytes")]
    module = tf.Module()
    signatures = {
        "serving_default": tf.function(lambda images: ask(images), images, autograph=False),
        "image_bytes": tf.function(ask_files, strings, autograph=False),
        "pixels": tf.function(
            lambda image_bytes: {"images": pixels(pixels_of(image_bytes, SHAPE))}, strings, autograph=False
        ),
        "embedding": tf.function(
            lambda images: {"embedding": features(tf.cast(images[:, 0, 0], tf.float32))}, images, autograph=False
        ),
    }
    tf.saved_model.save(module, str(folder), signatures=signatures)
    (folder / EXTRA).mkdir()
    contract = {"image_shape": SHAPE, "classes": CLASSES, "image_bytes": {}, "pixels": True, "embedding": 3}
    (folder / EXTRA / "contract.json").write_text(json.dumps(contract))
    (folder / EXTRA / "labels.txt").write_text("cat\ndog\nünïcorn\n")
    answers = ask(tf.constant(IMAGES))
    np.savez(folder / EXTRA / "golden.npz", images=IMAGES, probabilities=answers["probabilities"].numpy())
    checksums.write_digests(folder)
    return folder


def check(folder: Path, **request: Any) -> dict[str, str]:
    contract = json.loads((folder / EXTRA / "contract.json").read_text())
    model = Model(folder)
    model.check_contract(contract)
    with np.load(folder / EXTRA / "golden.npz") as golden:
        asked = {"digests": DIGESTS, **request}
        return check_files(folder, asked, model, dict(golden), contract, np.random.default_rng(0))[0]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("honest") / "model")


def test_an_honest_model_is_not_refused(honest: Path) -> None:
    assert "operations compute" in check_graph(honest)
    assert check(honest).keys() == {"image_bytes", "embedding"}


def brightest(images: tf.Tensor) -> tf.Tensor:
    return tf.where(images > 200, images - 1, images)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pixels": brightest}, "a PNG file doesn't become its own pixels"),
        ({"files": lambda images: 255 - images}, "image_bytes, batch of 12: answers differ"),
        ({"label": lambda label: tf.where(label == "cat", "dog", "cat")}, "label is not the name of class_id"),
        ({"features": lambda found: found + tf.reduce_sum(found, axis=0)}, "features depend on the batch"),
    ],
    ids=["pixels", "answers", "label", "features"],
)
def test_a_model_that_treats_files_otherwise_is_refused(tmp_path: Path, changes: Any, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        check(make(tmp_path / "model", **changes))


def test_labels_that_are_not_the_classes_are_refused(honest: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(honest, tmp_path / "model"))
    (model / EXTRA / "labels.txt").write_text("dog\ncat\nünïcorn\n")
    with pytest.raises(RefusedError, match=r"labels\.txt doesn't list the classes"):
        check(model)


def test_a_signature_that_the_contract_does_not_name_is_refused(honest: Path) -> None:
    with pytest.raises(RefusedError, match="its signatures must be \\['serving_default'\\], received"):
        Model(honest).check_contract({"image_shape": SHAPE, "classes": CLASSES})


def written(folder: Path, rows: np.ndarray) -> dict[str, Any]:
    """Files of test images with what the verifier is asked: ``rows`` are the pixels that training had."""
    kinds = ("png-rgb", "jpeg-turned-6", "jpeg-cmyk", "gif")
    made = {**image_files.DECODED, **{kind: one for kind, (one, _) in image_files.REFUSED.items()}}
    listed = []
    for row, kind in enumerate(kinds):
        file = folder / f"{kind}.any"
        file.write_bytes(made[kind](np.random.default_rng(row), 30, 20))
        listed.append((str(file), checksums.sha256(file), row))
    np.save(folder / "images.npy", rows)
    np.save(folder / "labels.npy", np.zeros(len(rows), np.int32))
    labels, images = str(folder / "labels.npy"), str(folder / "images.npy")
    return {"test_images": images, "test_labels": labels, "test_files": listed}


def pixels_of_training(folder: Path) -> np.ndarray:
    from layerflow.data import decode

    written(folder, np.zeros((4, *SHAPE), np.uint8))
    names = ("png-rgb", "jpeg-turned-6", "jpeg-cmyk", "gif")
    return np.stack([decode.read((folder / f"{name}.any").read_bytes(), SHAPE) for name in names])


def test_test_files_are_compared_pixel_by_pixel_and_refused_ones_are_named(honest: Path, tmp_path: Path) -> None:
    model = Model(honest)
    model.check_contract(json.loads((honest / EXTRA / "contract.json").read_text()))
    rows = pixels_of_training(tmp_path)
    request = written(tmp_path, rows)
    (tmp_path / "gif.any").write_bytes(b"changed")
    detail, counted = check_test_files(request, model, np.random.default_rng(0))
    assert counted == {"files_same": 2, "files_refused": 1}
    assert "2 test files become the pixels of training, bit by bit; 1 are refused: " in detail
    assert '"jpeg-cmyk.any" (' in detail
    assert "is a CMYK JPEG" in detail
    assert "1 are gone or changed" in detail
    rows[1, 3, 3, 1] ^= 1
    with pytest.raises(RefusedError, match=r"jpeg-turned-6\.any\" becomes other pixels than in training"):
        check_test_files(written(tmp_path, rows), model, np.random.default_rng(0))


def test_both_ways_to_serve_a_model_are_tried_where_nothing_else_is(honest: Path) -> None:
    asked, model = list[tuple[str, bool]](), Model(honest)
    contract = json.loads((honest / EXTRA / "contract.json").read_text())
    model.check_contract(contract)

    def watched(name: str, ask: Any) -> Any:
        return lambda files, served: asked.append((name, served)) or ask(files, served)

    model.signatures = {name: watched(name, ask) for name, ask in model.signatures.items()}
    with np.load(honest / EXTRA / "golden.npz") as golden:
        for request, ways in (({"digests": DIGESTS}, 4), ({"digests": DIGESTS, "test_images": ""}, 2)):
            asked.clear()
            check_files(honest, request, model, dict(golden), contract, np.random.default_rng(0))
            assert len(set(asked) & set(BOTH_WAYS)) == ways


@pytest.mark.parametrize(
    "op", ["DecodeImage", "DecodeJxl", "DecodeCompressed", "DecodeCSV", "ReadFile", "StringFormat"]
)
def test_only_the_text_operations_that_decoding_needs_count_as_computing(op: str) -> None:
    assert not computes(op)
