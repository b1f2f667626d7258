"""Where the published files of weights come from. The network is a double; the files are made here."""

import hashlib
import logging
import socket
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from layerflow.errors import MirrorError, UnreachableError
from layerflow.models import published as publishing
from layerflow.models.build import build
from layerflow.models.imagenet import fetch, place_of
from layerflow.models.published import Published, published
from layerflow.records import DatasetRef
from layerflow.settings.model import ModelConfig
from layerflow.weights import FirstWeights
from tests.layerflow.models.test_families import write_as_published

BYTES = b"weights"
FILE = Published("some_notop.h5", "https://host.invalid/some_notop.h5", hashlib.md5(BYTES).hexdigest(), "MIT")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No host answers, and Keras has fetched nothing before."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras-home"))


@pytest.mark.parametrize("digest", [hashlib.md5(BYTES).hexdigest(), hashlib.sha256(BYTES).hexdigest()])
def test_a_file_in_the_mirror_with_the_published_digest_is_taken(digest: str, tmp_path: Path) -> None:
    copy = tmp_path / FILE.name
    copy.write_bytes(BYTES)
    assert fetch(FILE._replace(digest=digest), copy) == copy


def test_a_damaged_file_in_the_mirror_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / FILE.name
    copy.write_bytes(b"others")
    with pytest.raises(MirrorError, match=f"{copy} in the mirror is damaged: expected {FILE.digest}, received"):
        fetch(FILE, copy)


def test_a_file_that_the_mirror_lacks_is_named_with_its_address(tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match=f"must hold {tmp_path / FILE.name}, .* under that name, from {FILE.url}"):
        place_of(FILE, tmp_path / FILE.name)


def test_without_network_and_mirror_the_file_and_the_remedy_are_named() -> None:
    with pytest.raises(UnreachableError, match=r"host.invalid can't be reached .* that holds keras/some_notop"):
        fetch(FILE, None)


def test_what_keras_fetched_before_needs_no_network(tmp_path: Path) -> None:
    home = tmp_path / "keras-home" / "models"
    home.mkdir(parents=True)
    (home / FILE.name).write_bytes(BYTES)
    assert place_of(FILE, None) == f"{home / FILE.name}, which Keras fetched before"
    assert fetch(FILE, None) == home / FILE.name


def test_keras_downloads_it_with_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    asked = []

    def get_file(name: str, url: str, **given: Any) -> str:
        print("Downloading")
        asked.append((name, url, given))
        return str(tmp_path)

    monkeypatch.setattr(socket, "create_connection", lambda *_: socket.socket())
    monkeypatch.setattr(keras.utils, "get_file", get_file)
    assert fetch(FILE, None) == tmp_path
    assert asked == [(FILE.name, FILE.url, {"cache_subdir": "models", "file_hash": FILE.digest})]
    assert capsys.readouterr().out == "", "stdout is for JSON"


def test_a_download_that_breaks_off_heals(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_file(*_: Any, **__: Any) -> str:
        raise Exception("URL fetch failure on x: None -- timed out")

    monkeypatch.setattr(socket, "create_connection", lambda *_: socket.socket())
    monkeypatch.setattr(keras.utils, "get_file", get_file)
    with pytest.raises(UnreachableError, match=r"whole from host.invalid; received: URL fetch failure"):
        fetch(FILE, None)


def test_a_file_without_a_published_digest_is_taken_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / FILE.name
    copy.write_bytes(b"whatever")
    with caplog.at_level(logging.WARNING, "layerflow"):
        assert fetch(FILE._replace(digest=None), copy) == copy
    assert "Keras publishes no digest of some_notop.h5" in caplog.text


@pytest.mark.slow
def test_a_network_is_built_with_the_weights_of_the_mirror(
    digits: DatasetRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = published("MobileNetV3Small", {"minimalistic": True}, (32, 32))
    source = keras.applications.MobileNetV3Small(
        include_top=False, weights=None, input_shape=(32, 32, 3), minimalistic=True
    )
    write_as_published("MobileNetV3Small", source, tmp_path / file.name)
    monkeypatch.setitem(publishing.DIGESTS, file.name, hashlib.md5((tmp_path / file.name).read_bytes()).hexdigest())
    config = ModelConfig(name="applications:MobileNetV3Small", weights="imagenet", options={"minimalistic": True})
    weights = FirstWeights(digest="", source="imagenet", license=file.license, file=tmp_path / file.name)
    made = build(config, digits.model_copy(update={"image_shape": (32, 32, 1)}), 0, tmp_path, weights)
    assert made.settings == {"dropout": 0.2, "options": {"minimalistic": True}, "weights": "imagenet"}
    assert made.weights
    assert (made.weights.source, made.weights.file, made.weights.new_layers) == ("imagenet", file.name, ("logits",))
    network = keras.models.load_model(tmp_path / "model.keras")
    for one, other in zip(source.weights, network.backbone.weights, strict=True):
        np.testing.assert_array_equal(one, other)
