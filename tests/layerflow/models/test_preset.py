"""Files of presets, sound, damaged and hostile ones. KerasHub is not needed to read them."""

import json
from pathlib import Path
from typing import Any

import pytest

from layerflow.errors import ConfigError, MirrorError
from layerflow.models.preset import Preset, read_preset

SETTINGS = {"input_conv_filters": [64], "block_type": "basic_block", "use_pre_activation": False, "image_shape": None}
POLICY = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None}


def written(folder: Path, **network: Any) -> Path:
    """A preset without weights, as KerasHub writes it but for these values of ``config.json``."""
    of_any_layer = {"name": "res_net_backbone_3", "trainable": True, "dtype": POLICY}
    content = {
        "module": "keras_hub.src.models.resnet.resnet_backbone",
        "class_name": "ResNetBackbone",
        "config": {**of_any_layer, **SETTINGS},
        "registered_name": "keras_hub>ResNetBackbone",
    }
    (folder / "config.json").write_text(json.dumps(content | network))
    write_converter(folder, {"scale": 0.5, "offset": [1, 2, 3.5]})
    return folder


def write_converter(folder: Path, settings: Any) -> None:
    (folder / "image_converter.json").write_text(json.dumps({"config": settings}))


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_preset(folder)
    assert "\n" not in str(caught.value)
    assert "must be as KerasHub writes it for a network of images" in str(caught.value)
    return str(caught.value)


def test_it_says_which_backbone_and_how_images_are_scaled(tmp_path: Path) -> None:
    assert read_preset(written(tmp_path)) == Preset("ResNetBackbone", SETTINGS, 0.5, [1.0, 2.0, 3.5])


def test_its_digest_is_that_of_what_it_says(tmp_path: Path) -> None:
    first = read_preset(written(tmp_path)).digest
    content = json.loads((tmp_path / "config.json").read_text())
    content["config"] |= {"name": "another", "trainable": False}
    (tmp_path / "config.json").write_text(json.dumps(content, indent=8))
    assert read_preset(tmp_path).digest == first
    write_converter(tmp_path, {"scale": 0.25, "offset": [1, 2, 3.5]})
    assert read_preset(tmp_path).digest != first
    content["config"]["block_type"] = "bottleneck_block"
    written(tmp_path, config=content["config"])
    assert read_preset(tmp_path).digest != first


def test_the_preprocessor_says_it_where_there_is_no_file_of_the_converter(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "image_converter.json").rename(tmp_path / "converter")
    inside = {"image_converter": json.loads((tmp_path / "converter").read_text())}
    (tmp_path / "preprocessor.json").write_text(json.dumps({"class_name": "X", "config": inside}))
    assert read_preset(tmp_path)[2:] == (0.5, [1.0, 2.0, 3.5])


def test_mean_and_variance_of_earlier_versions_are_scale_and_offset(tmp_path: Path) -> None:
    written(tmp_path)
    write_converter(tmp_path, {"scale": 1 / 255, "mean": [0.5, 0.4, 0.2], "variance": [0.25, 0.04, 0.01]})
    _, _, scale, offset = read_preset(tmp_path)
    assert scale == pytest.approx([1 / 255 / 0.5, 1 / 255 / 0.2, 1 / 255 / 0.1])
    assert offset == pytest.approx([-1, -2, -2])


def test_a_tuple_is_a_list(tmp_path: Path) -> None:
    shape = {"class_name": "__tuple__", "items": [224, 224, 3]}
    assert read_preset(written(tmp_path, config={"image_shape": shape})).settings == {"image_shape": [224, 224, 3]}


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match=f"The mirror must hold {tmp_path}/config.json, which is not there"):
        read_preset(tmp_path)
    written(tmp_path)
    (tmp_path / "image_converter.json").unlink()
    with pytest.raises(MirrorError, match=r"must hold image_converter.json or preprocessor.json.* holds neither"):
        read_preset(tmp_path)


def test_a_preset_of_texts_is_refused(tmp_path: Path) -> None:
    written(tmp_path, class_name="BertBackbone", registered_name="keras_hub>BertBackbone")
    (tmp_path / "image_converter.json").unlink()
    tokens = {"tokenizer": {"class_name": "BertTokenizer", "config": {}}, "sequence_length": 512}
    (tmp_path / "preprocessor.json").write_text(json.dumps({"config": tokens}))
    assert "it doesn't say how images are scaled" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        ({"class_name": "Popen", "registered_name": None, "module": "subprocess"}, "its class None is not one of"),
        ({"registered_name": "layerflow>Mlp"}, "its class layerflow>Mlp is not one of KerasHub"),
        ({"class_name": "ResNetBackbone.__init__"}, "it describes no class of KerasHub"),
        ({"class_name": ["ResNetBackbone"]}, "it describes no class of KerasHub"),
        ({"config": None}, "it describes no class of KerasHub"),
        ({"config": {"se_layer": {"class_name": "Lambda", "config": {"function": "x"}}}}, "is no setting of an image"),
        ({"config": {"round_chs_fn": {"class_name": "function", "module": "os"}}}, "is no setting of an image"),
        ({"config": {"stackwise": [[{"class_name": "__lambda__"}]]}}, "is no setting of an image"),
        ({"config": {"depth": 10**9}}, "1000000000 is no setting of an image network"),
        ({"config": {"depth": 10**4000}}, "is no setting of an image network"),
        ({"config": {"rate": float("nan")}}, "nan is no setting of an image network"),
        ({"config": {"rate": float("inf")}}, "inf is no setting of an image network"),
        ({"config": {"activation": "r" * 101}}, "is no setting of an image network"),
        ({"config": {"depths": [1] * 20_000}}, "it has more settings than any network"),
    ],
)
def test_what_no_image_network_of_keras_hub_says_is_refused(
    network: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    assert sentence in refusal(written(tmp_path, **network))


@pytest.mark.parametrize(
    "converter",
    [
        *({"scale": scale} for scale in ("0.5", [1, 2], [[1, 2, 3]], [1, 2, None], True, {"class_name": "Lambda"})),
        {"scale": 1, "mean": [1, 1, 1], "variance": [1, 0, 1]},
        {"scale": [1, 1, 1], "mean": [1, 1, 1], "variance": [1, 1, 1]},
        None,
    ],
)
def test_a_scale_that_is_no_number_is_refused(converter: Any, tmp_path: Path) -> None:
    written(tmp_path)
    write_converter(tmp_path, converter)
    refusal(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000, '{"config": ' + "1" * 5000 + "}"])
def test_what_is_no_small_json_object_is_refused(text: str, tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "config.json").write_text(text)
    refusal(tmp_path)


def test_a_larger_file_than_any_of_keras_hub_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    with (tmp_path / "config.json").open("a") as file:
        file.write(" " * 2**20)
    assert "it is larger than any of KerasHub" in refusal(tmp_path)


def test_what_is_not_utf8_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "config.json").write_bytes(b'{"a": "\xff"}')
    refusal(tmp_path)
