"""Where a preset of KerasHub comes from."""

import importlib
import socket
from pathlib import Path

import pytest

from layerflow import extras
from layerflow.errors import ConfigError, MirrorError, UnreachableError
from layerflow.models.hub_files import fetch, folder_in, handle_of, place_of
from tests.made_presets import write_preset

kagglehub = pytest.importorskip("kagglehub", reason="KerasHub is not installed: make hub")
cache, handles = (importlib.import_module(f"kagglehub.{name}") for name in ("cache", "handle"))
NAME = "hub:resnet_18_imagenet"
HANDLE = "keras/resnetv1/keras/resnet_18_imagenet/"


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for Kaggle, which has what is in this folder; ``asked`` in it lists what was asked for."""
    asked = tmp_path / "asked"
    asked.touch()

    def model_download(handle: str, file: str) -> str:
        asked.write_text(f"{asked.read_text()}{handle} {file}\n")
        if not (tmp_path / file).exists():
            raise ValueError(f"404 Client Error.\n{file} is not here")
        return str(tmp_path / file)

    monkeypatch.setattr(kagglehub, "model_download", model_download)
    return tmp_path


def test_a_preset_is_a_folder_of_the_mirror(tmp_path: Path) -> None:
    folder = folder_in(tmp_path, NAME)
    assert folder == tmp_path / "keras_hub" / "resnet_18_imagenet"
    assert folder_in(None, NAME) is None
    write_preset(folder)
    assert fetch(NAME, folder, with_weights=True) == folder
    assert place_of(NAME, folder, with_weights=True) == f"{folder}, in the mirror"


@pytest.mark.parametrize("file", ["config.json", "model.weights.h5", "image_converter.json"])
def test_the_file_that_the_mirror_lacks_is_named(file: str, tmp_path: Path) -> None:
    (write_preset(tmp_path) / file).unlink()
    with pytest.raises(MirrorError, match=file) as caught:
        place_of(NAME, tmp_path, with_weights=True)
    assert "\n" not in str(caught.value)


def test_new_weights_need_no_file_of_weights(tmp_path: Path) -> None:
    (write_preset(tmp_path) / "model.weights.h5").unlink()
    assert fetch(NAME, tmp_path, with_weights=False) == tmp_path


def test_the_files_of_kaggle_are_those_of_a_version(kaggle: Path) -> None:
    write_preset(kaggle)
    handle = handle_of(NAME)
    assert handle.removeprefix(HANDLE).isdigit()
    assert fetch(NAME, None, with_weights=False) == kaggle
    files = ["config.json", "image_converter.json"]
    assert (kaggle / "asked").read_text().splitlines() == [f"{handle} {file}" for file in files]
    fetch(NAME, None, with_weights=True)
    assert (kaggle / "asked").read_text().splitlines()[-1] == f"{handle} model.weights.h5"


def test_the_preprocessor_is_fetched_where_kaggle_has_no_converter(kaggle: Path) -> None:
    (write_preset(kaggle) / "image_converter.json").rename(kaggle / "preprocessor.json")
    assert fetch(NAME, None, with_weights=False) == kaggle


def test_what_kaggle_does_not_give_is_one_sentence(kaggle: Path) -> None:
    with pytest.raises(UnreachableError, match=r"config.json of the preset .* received: 404 Client Error") as caught:
        fetch(NAME, None, with_weights=False)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_what_was_fetched_before_is_found_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kaggle's own library finds it."""
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("nothing is to be asked for"))
    folder = write_preset(tmp_path / "models" / handle_of(NAME))
    handle = handles.parse_model_handle(handle_of(NAME))
    for file in ("config.json", "image_converter.json", "model.weights.h5"):
        cache.Cache().mark_as_complete(handle, file)
    assert place_of(NAME, None, with_weights=True) == f"{folder}, which was fetched before"
    assert fetch(NAME, None, with_weights=True) == folder


def test_a_kaggle_that_can_not_be_reached_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))

    def refuse(*_: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(UnreachableError, match=r"be reached \(no route\).* that holds keras_hub/resnet_18"):
        place_of(NAME, None, with_weights=True)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("hub:resnet_18_imagnet", r"resnet_18_imagnet is neither \(did you mean .*resnet_18_imagenet"),
        ("hub:bert_base_en", "bert_base_en is neither.*choose another, or set data.mirror"),
    ],
)
def test_a_preset_that_is_not_one_of_images_is_one_sentence(name: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        handle_of(name)


@pytest.mark.parametrize("with_mirror", [True, False])
def test_without_keras_hub_the_command_that_installs_it_is_said(
    with_mirror: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_preset(tmp_path) if with_mirror else None
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'layerflow\[hub\]'"):
        place_of(NAME, folder, with_weights=True)
