"""Which weights of a file a network is given."""

import logging
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

from layerflow.errors import ConfigError
from layerflow.models.build import build, make_model
from layerflow.models.pretrained import load_weights
from layerflow.records import DatasetRef
from layerflow.settings.model import ModelConfig
from layerflow.weights import FirstWeights, LoadedWeights

SMALL = ModelConfig(name="applications:MobileNetV3Small", options={"alpha": 0.35, "minimalistic": True})


def saved(network: keras.Model, folder: Path, name: str = "first.weights.h5") -> Path:
    """A file with the weights of ``network``, all of which were changed."""
    random = np.random.default_rng(0)
    network.set_weights(
        [each + random.normal(size=each.shape) if each.dtype == "float32" else each for each in network.get_weights()]
    )
    network.save_weights(folder / name)
    return folder / name


def load(network: keras.Model, file: Path) -> LoadedWeights:
    return load_weights(network, file, file.name)


def convolutions(names: list[str | None], classes: int = 2, counted: int = 0) -> keras.Model:
    for _ in range(counted):
        keras.layers.Conv2D(1, 1)
    x = inputs = keras.Input((8, 8, 3))
    for name in names:
        x = keras.layers.Conv2D(3, 3, padding="same", name=name)(x)
    return keras.Model(inputs, keras.layers.Dense(classes, name="logits")(keras.layers.Flatten()(x)))


@pytest.mark.parametrize("form", ["model.keras", "first.weights.h5"])
def test_all_but_the_head_for_other_classes_is_taken_over(form: str, tmp_path: Path) -> None:
    config = ModelConfig(name="cnn", width=4)
    source = make_model(config, 3, (8, 8, 1))
    saved(source, tmp_path)
    source.save(tmp_path / "model.keras")
    network = make_model(config, 5, (8, 8, 1))
    fresh = [np.array(each) for each in network.chain[-1].weights]
    loaded = load(network, tmp_path / form)
    assert (loaded.new_layers, loaded.skipped_layers) == (("chain/dense_1",), ("chain/dense_1",))
    assert loaded.loaded == 6, "two convolutions, a dense layer, three normalisations"
    for layer, same in zip(network.chain[:-1], source.chain[:-1], strict=True):
        for one, other in zip(layer.trainable_weights, same.trainable_weights, strict=True):
            np.testing.assert_array_equal(one, other)
    for one, other in zip(fresh, network.chain[-1].weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_state_of_random_layers_is_not_taken_over(tmp_path: Path) -> None:
    config = ModelConfig(hidden=(4,), dropout=0.5, flip=True)
    source, network = make_model(config, 3, (8, 8, 1)), make_model(config, 3, (8, 8, 1))
    keys = [np.array(each) for each in network.non_trainable_weights]
    load(network, saved(source, tmp_path))
    assert any((np.array(each) != key).any() for each, key in zip(source.non_trainable_weights, keys, strict=True))
    for one, other in zip(keys, network.non_trainable_weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_backbone_that_keras_saved_fits_below_our_head(tmp_path: Path) -> None:
    backbone = keras.applications.MobileNetV3Small(
        include_top=False, weights=None, input_shape=(48, 48, 3), **(SMALL.options or {})
    )
    network = make_model(SMALL, 5, (32, 32, 3))
    loaded = load(network, saved(backbone, tmp_path))
    assert (loaded.new_layers, loaded.skipped) == (("head/dense",), 0)
    for one, other in zip(backbone.weights, network.backbone.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_layers_are_found_by_name_where_another_one_moved_their_paths(tmp_path: Path) -> None:
    source = convolutions(["a", "b"])
    network = convolutions(["new", "a", "b"])
    loaded = load(network, saved(source, tmp_path))
    assert loaded.new_layers == ("layers/conv2d",)
    for name in ("a", "b", "logits"):
        np.testing.assert_array_equal(network.get_layer(name).kernel, source.get_layer(name).kernel)


def test_layers_are_found_by_path_where_keras_counted_their_names_on(tmp_path: Path) -> None:
    file = saved(source := convolutions([None] * 3), tmp_path)
    network = convolutions([None] * 3, counted=1)
    names = [{layer.name for layer in each.layers} for each in (source, network)]
    assert names[0] != names[1]
    assert load(network, file).new == 0
    for one, other in zip(source.weights, network.weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("more", [0, 1])
def test_an_older_file_is_read_as_keras_reads_it(more: int, tmp_path: Path) -> None:
    """By the order of its layers, and by their names where the network has one more."""
    source = convolutions(["a", "b"])
    saved(source, tmp_path)
    with h5py.File(tmp_path / "old.h5", "w") as tree:
        legacy_h5_format.save_weights_to_hdf5_group(tree, source)
    names = [*["new"] * more, "a", "b"] if more else ["c", "d"]
    ours, theirs = convolutions(names), convolutions(names)
    theirs.set_weights(ours.get_weights())
    loaded = load(ours, tmp_path / "old.h5")
    with h5py.File(tmp_path / "old.h5") as tree:
        read = (
            legacy_h5_format.load_weights_from_hdf5_group_by_name
            if more
            else (legacy_h5_format.load_weights_from_hdf5_group)
        )
        read(tree, theirs)
    assert loaded.new_layers == ("new",) * more
    for one, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_arrays_of_another_shape_are_not_read(tmp_path: Path) -> None:
    """An array that says it has a trillion numbers takes no memory."""
    file = saved(convolutions(["a", "b"]), tmp_path)
    with h5py.File(file, "r+") as tree:
        del tree["layers/conv2d/vars/0"]
        tree.create_dataset("layers/conv2d/vars/0", (10**6, 10**6), "f4", chunks=(100, 100))
    loaded = load(convolutions(["a", "b"]), file)
    assert loaded.skipped_layers == ("layers/conv2d",)


def test_nothing_that_fits_is_one_sentence(tmp_path: Path) -> None:
    file = saved(make_model(ModelConfig(hidden=(3,)), 2, (4, 4, 1)), tmp_path)
    with pytest.raises(
        ConfigError, match=r"layers in first.weights.h5, 2 \(chain/dense, chain/dense_1\), none"
    ) as caught:
        load(make_model(ModelConfig(name="cnn", width=4), 5, (8, 8, 1)), file)
    assert "the shapes of one in the network, 7 (chain/batch_normalization, " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_record_and_the_log_say_what_was_loaded_and_from_what(
    digits: DatasetRef, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = ModelConfig(hidden=(4,), weights="first.weights.h5")
    file = saved(make_model(config, 3, (8, 8, 1)), tmp_path)
    weights = FirstWeights(digest="0", source="first.weights.h5", file=file)
    with caplog.at_level(logging.INFO, "layerflow"):
        made = build(config, digits, 0, tmp_path, weights)
    assert made.settings["weights"] == "first.weights.h5"
    assert made.weights
    assert (made.weights.loaded, made.weights.new, made.weights.skipped) == (1, 1, 1)
    assert made.weights.parameters == 64 * 4 + 4
    assert len(made.weights.sha256) == 64
    assert made.weights.license == "unknown"
    assert "layers loaded: 1, with 260 parameters; newly made: 1 (chain/dense_1)" in caplog.text
    assert build(ModelConfig(hidden=(4,)), digits, 0, tmp_path).digest != made.digest
    assert build(config, digits, 0, tmp_path, weights).digest == made.digest


@pytest.mark.parametrize("are_same", [True, False])
def test_the_head_of_a_version_for_other_classes_is_not_taken_over(
    are_same: bool, digits: DatasetRef, tmp_path: Path
) -> None:
    config = ModelConfig(hidden=(4,), weights="mlp-letters@1")
    file = saved(make_model(config, 10, (8, 8, 1)), tmp_path)
    classes = digits.classes if are_same else tuple("abcdefghij")
    made = build(config, digits, 0, tmp_path, FirstWeights(digest="0", source="x", file=file, classes=classes))
    assert made.weights
    assert made.weights.new_layers == (() if are_same else ("chain/dense_1",))


def test_what_could_not_be_written_is_not_blamed_on_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = saved(make_model(ModelConfig(hidden=(3,)), 2, (4, 4, 1)), tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save_weights", full)
    with pytest.raises(OSError, match="No space left"):
        load(make_model(ModelConfig(hidden=(3,)), 2, (4, 4, 1)), file)
