"""A network of KerasHub as layerflow makes it.

The suite takes one network of convolutions and one transformer. With ``LAYERFLOW_MODELS``, as in `make drill`, all
families are taken, which takes a minute.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from layerflow import extras
from layerflow.errors import ConfigError
from layerflow.export.verifier.graph import computes
from layerflow.models.build import build, make_model
from layerflow.models.network_code import network_code
from layerflow.models.network_digest import digest_of
from layerflow.models.networks import load_model
from layerflow.models.precision import in_precision
from layerflow.models.preset import Preset, read_preset
from layerflow.models.pretrained import load_weights
from layerflow.records import DatasetRef
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training.phases import Phase, freeze
from layerflow.weights import FirstWeights, PresetFiles
from tests.made_presets import FAMILIES, OFFSET, SCALE, change_config, converter_of, write_preset

pytestmark = pytest.mark.slow

pytest.importorskip("keras_hub", reason="KerasHub is not installed: make hub")
NAME = "hub:tiny"
QUICK = ("ResNet", "ViT")


def network_of(folder: Path, shape: tuple[int, int, int] = (32, 32, 3), **settings: Any) -> Any:
    return make_model(ModelConfig(name=NAME, **settings), 5, shape, read_preset(folder))


def images(shape: tuple[int, int, int] = (32, 32, 3), count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_preset(tmp_path_factory.mktemp("mirror") / "keras_hub" / "tiny")


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_preset(tmp_path_factory.mktemp("mirror") / "keras_hub" / "tiny", "ViT")


def test_every_family_is_tried() -> None:
    import keras_hub

    made = vars(keras_hub.models).items()
    of_images = {name for name, each in made if name.endswith("ImageClassifier") and each.backbone_cls}
    assert of_images == {f"{family}ImageClassifier" for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES if "LAYERFLOW_MODELS" in os.environ else QUICK)
@pytest.mark.slow
def test_with_the_weights_of_the_preset_it_sees_raw_images_as_keras_hub_does(family: str, tmp_path: Path) -> None:
    import keras_hub

    write_preset(tmp_path, family)
    ours = network_of(tmp_path)
    loaded = load_weights(ours, tmp_path / "model.weights.h5", NAME)
    assert (loaded.new_layers, loaded.skipped) == (("head/dense",), 0)

    size = {"image_shape": (32, 32, 3)} if family in ("HGNetV2", "VGG") else {}
    backbone = getattr(keras_hub.models, f"{family}Backbone")(**FAMILIES[family] | size)
    backbone.load_weights(tmp_path / "model.weights.h5")
    assert loaded.parameters == backbone.count_params()
    answer = backbone(converter_of(family).from_preset(str(tmp_path))(images().astype("float32")))
    answer = answer["stage2"] if family == "HGNetV2" else answer
    places = tuple(range(1, len(answer.shape) - 1))
    pooled = answer[:, 0] if family in ("ViT", "DeiT") else np.mean(answer, axis=places)
    expected = pooled @ np.asarray(ours.head[-1].w) + np.asarray(ours.head[-1].b)
    np.testing.assert_allclose(ours(images()), expected, rtol=1e-4, atol=1e-5)

    graph = tf.function(lambda x: ours(x, training=False)).get_concrete_function(
        tf.TensorSpec((None, 32, 32, 3), "uint8")
    )
    definition = graph.graph.as_graph_def()
    operations = {node.op for node in definition.node}
    operations |= {node.op for each in definition.library.function for node in each.node_def}
    assert {op for op in operations if not computes(op)} <= {"Placeholder"}, "the export is verified"

    ours.save(tmp_path / "model.keras")
    before = digest_of(NAME, tmp_path / "model.keras")
    again = load_model(NAME, tmp_path / "model.keras")
    np.testing.assert_array_equal(again(images()), ours(images()))
    again.save(tmp_path / "model.keras")
    assert digest_of(NAME, tmp_path / "model.keras") == before


def test_a_loaded_network_has_its_backbone_and_its_head(resnet: Path, tmp_path: Path) -> None:
    network = network_of(resnet, dropout=0.3)
    network.save(tmp_path / "model.keras")
    again = load_model(NAME, tmp_path / "model.keras")
    assert [type(layer).__name__ for layer in again.head] == ["GlobalAveragePooling2D", "Dropout", "Dense"]
    assert again.head[1].rate == 0.3
    parts = [*again.backbone.weights, *(weight for layer in again.head for weight in layer.weights)]
    assert {id(weight) for weight in parts} == {id(weight) for weight in again.weights}
    assert again(images()).dtype == "float32"


def test_grey_images_are_seen_as_three_equal_channels(resnet: Path) -> None:
    grey, colour = network_of(resnet, (32, 32, 1)), network_of(resnet)
    colour.set_weights(grey.get_weights())
    pixels = images((32, 32, 1))
    np.testing.assert_array_equal(grey(pixels), colour(np.repeat(pixels, 3, axis=-1)))


def test_only_the_head_learns_on_a_frozen_backbone(vit: Path) -> None:
    network = network_of(vit)
    freeze(network, Phase(1, TrainingConfig(), 0.0))
    assert [weight.path.rpartition("/")[2] for weight in network.trainable_weights] == ["w", "b"]


def test_in_mixed_precision_it_computes_nearly_the_same(resnet: Path) -> None:
    network = network_of(resnet)
    mixed = in_precision(network, "mixed_bfloat16", (32, 32, 3))
    assert {layer.compute_dtype for layer in mixed.backbone.layers if layer.weights} == {"bfloat16"}
    assert mixed(images()).dtype == "float32"
    # bfloat16 has eight significant bits, and the network some ten layers.
    np.testing.assert_allclose(mixed(images()), network(images()), atol=0.05)


def test_images_of_any_size_are_taken_where_no_weight_depends_on_it(resnet: Path, tmp_path: Path) -> None:
    assert network_of(resnet, (40, 48, 3))(images((40, 48, 3))).shape == (4, 5)
    write_preset(tmp_path, "VGG")  # it says 16x16
    assert network_of(tmp_path, (40, 48, 3))(images((40, 48, 3))).shape == (4, 5)


@pytest.mark.parametrize("shape", [(64, 64, 3), (30, 30, 3)])
def test_a_transformer_takes_images_of_its_size_alone(shape: tuple[int, int, int], vit: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        network_of(vit, shape)
    assert str(caught.value) == (
        f"hub:tiny can't take images of shape {shape}: the weights of this preset are for images of 32x32 pixels; set "
        "data.image_size or data.channels"
    )


def test_images_of_other_channels_are_refused(resnet: Path) -> None:
    with pytest.raises(ConfigError, match="must have 1 or 3 channels"):
        network_of(resnet, (32, 32, 4))


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        ("BertBackbone", {}, r"Received: a BertBackbone; choose a preset of .*ResNetBackbone"),
        ("ImageClassifier", {}, "Received: a ImageClassifier; choose"),
        ("VGGBackbone", {"inputs": 1}, r"KerasHub's VGGBackbone, .* inputs is not one of them; install the version"),
        ("VGGBackbone", {"kwargs": 1}, "kwargs is not one of them"),
        *(
            ("VGGBackbone", {"image_shape": shape}, "the preset must say height, width and channels of its images")
            for shape in (3, [32, 32], [32, 32, None], [32, "32", 3], [32, 32, 0], [-32, 32, 3])
        ),
        ("ResNetBackbone", {**FAMILIES["ResNet"], "data_format": "channels_first"}, "whose channels come first"),
        ("HGNetV2Backbone", {**FAMILIES["HGNetV2"], "out_features": ["stem"]}, "features of its last stage, stage2"),
        (
            "MobileNetV5Backbone",
            {**FAMILIES["MobileNetV5"], "drop_path_rate": 0.1},
            "with a drop_path_rate; set it to 0",
        ),
        ("VGGBackbone", {"stackwise_num_repeats": "abc"}, r"KerasHub can't make its VGGBackbone \("),
    ],
)
def test_what_keras_hub_can_not_make_for_images_is_one_sentence(
    kind: str, settings: dict[str, Any], sentence: str
) -> None:
    vgg = {"stackwise_num_repeats": [1], "stackwise_num_filters": [4]}
    whole = vgg | settings if kind == "VGGBackbone" else settings
    with pytest.raises(ConfigError, match=sentence) as caught:
        make_model(ModelConfig(name=NAME), 5, (32, 32, 3), Preset(kind, whole, None, None))
    assert "\n" not in str(caught.value)


def test_a_saved_file_makes_no_other_class_of_keras_hub(resnet: Path, tmp_path: Path) -> None:
    config = {**network_of(resnet).get_config(), "backbone": "BertBackbone"}
    with pytest.raises(ConfigError, match="Received: a BertBackbone"):
        type(network_of(resnet)).from_config(config)


def weights_for(folder: Path, digest: str = "0") -> FirstWeights:
    preset = PresetFiles(digest=read_preset(folder).digest, folder=folder)
    return FirstWeights(digest=digest, source=NAME, file=folder / "model.weights.h5", preset=preset)


def test_the_record_says_what_the_preset_gave(vit: Path, digits: DatasetRef, tmp_path: Path) -> None:
    data = digits.model_copy(update={"image_shape": (32, 32, 1)})
    made = build(ModelConfig(name=NAME, weights="preset"), data, 0, tmp_path, weights_for(vit))
    assert made.settings == {"dropout": 0.2, "weights": "preset"}
    assert made.weights
    assert (made.weights.source, made.weights.file, made.weights.license) == (NAME, "model.weights.h5", "unknown")
    assert (made.weights.new_layers, made.weights.skipped) == (("head/dense",), 0)
    new = build(ModelConfig(name=NAME), data, 0, tmp_path, weights_for(vit))
    assert new.weights is None
    assert new.digest == build(ModelConfig(name=NAME), data, 0, tmp_path, weights_for(vit)).digest != made.digest


def test_weights_of_another_network_are_refused(resnet: Path, vit: Path, digits: DatasetRef, tmp_path: Path) -> None:
    data = digits.model_copy(update={"image_shape": (32, 32, 1)})
    mixed_up = tmp_path / "preset"
    mixed_up.mkdir()
    for file in ("config.json", "image_converter.json"):
        (mixed_up / file).write_bytes((vit / file).read_bytes())
    (mixed_up / "model.weights.h5").write_bytes((resnet / "model.weights.h5").read_bytes())
    with pytest.raises(ConfigError, match=r"model\.weights must fit the network"):
        build(ModelConfig(name=NAME, weights="preset"), data, 0, tmp_path, weights_for(mixed_up))


def test_weights_that_lead_out_of_their_file_are_refused(resnet: Path, digits: DatasetRef, tmp_path: Path) -> None:
    folder = tmp_path / "preset"
    shutil.copytree(resnet, folder)
    with h5py.File(folder / "model.weights.h5", "r+") as tree:
        tree["layers/dense/vars/0"] = h5py.ExternalLink(str(resnet / "model.weights.h5"), "/layers")
    with pytest.raises(ConfigError, match=r"model\.weights\.h5 must be .* leads to another place or file"):
        build(ModelConfig(name=NAME, weights="preset"), digits, 0, tmp_path, weights_for(folder))


def test_a_network_of_ones_own_that_ends_in_the_softmax_of_keras_hub_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pets_on_hub.py").write_text(
        "import keras_hub\n"
        "def net(classes, image_shape):\n"
        "    backbone = keras_hub.models.VGGBackbone([1], [4], image_shape=image_shape)\n"
        "    classifier = keras_hub.models.ImageClassifier\n"
        "    return classifier(backbone, num_classes=classes, activation='softmax')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with caplog.at_level("INFO", "layerflow"):
        network = make_model(ModelConfig(name="pets_on_hub:net"), 5, (32, 32, 3))
    assert "ends in a softmax" in caplog.text
    logits = np.asarray(network(images()))
    assert not np.allclose(logits.sum(axis=-1), 1)
    probabilities = np.asarray(keras.ops.softmax(logits))
    assert np.isfinite(probabilities).all()


def test_without_keras_hub_the_command_that_installs_it_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = extras.importlib.util.find_spec
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None if name == "keras_hub" else real(name))
    for ask in (lambda: load_model(NAME, tmp_path / "model.keras"), lambda: network_code(NAME)):
        with pytest.raises(ConfigError) as caught:
            ask()
        assert str(caught.value) == (
            "model.name hub:tiny needs KerasHub, which is not installed; pip install 'layerflow[hub]', or in a clone: "
            "make hub."
        )
    assert network_code("mlp")


def test_change_of_the_preset_changes_the_network(resnet: Path, digits: DatasetRef, tmp_path: Path) -> None:
    folder = write_preset(tmp_path / "preset")
    before = read_preset(folder).digest
    assert before == read_preset(resnet).digest
    assert (read_preset(folder).scale, read_preset(folder).offset) == (SCALE, OFFSET)
    change_config(folder, class_name="VGGBackbone", registered_name="keras_hub>VGGBackbone")
    assert read_preset(folder).digest != before
