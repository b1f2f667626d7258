"""One network of each family of ``keras.applications``, against Keras itself.

The suite takes the weights of one network of each kind of preprocessing. With ``LAYERFLOW_MODELS``, as in `make drill`,
all families are taken, which takes minutes.
"""

import hashlib
import importlib.util
import inspect
import os
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.legacy.saving import legacy_h5_format

from layerflow.export.verifier.graph import computes
from layerflow.models import published as publishing
from layerflow.models.build import make_model
from layerflow.models.network_digest import digest_of
from layerflow.models.pretrained import load_weights, scale_as_imagenet_does
from layerflow.models.published import DIGESTS, published
from layerflow.models.seeded import seeded
from layerflow.settings.applications import ALPHAS, MODULES, OPTIONS
from layerflow.settings.model import ModelConfig

pytestmark = pytest.mark.filterwarnings("ignore:`input_shape` is undefined")
#: The lightest of each module, and the smallest images that it takes.
LIGHTEST = {
    **{"ConvNeXtTiny": 32, "DenseNet121": 32, "EfficientNetB0": 32, "EfficientNetV2B0": 32},
    **{"InceptionResNetV2": 75, "InceptionV3": 75, "MobileNet": 32, "MobileNetV2": 32, "MobileNetV3Small": 32},
    **{"NASNetMobile": 32, "ResNet50": 32, "ResNet50V2": 32, "VGG16": 32, "VGG19": 32, "Xception": 71},
}
#: Those of the suite: pixels as they are, by a scale of the network's own, from -1 to 1, and less ImageNet's means.
QUICK = ("MobileNetV3Small", "EfficientNetB0", "MobileNet", "VGG16")
#: Arguments of the functions that are ours to decide, or that only the classifying layers have.
OURS = {
    *("include_top", "weights", "input_tensor", "input_shape", "pooling", "classes", "classifier_activation", "name"),
    *("include_preprocessing", "dropout", "dropout_rate"),
}


def test_the_names_are_those_of_keras() -> None:
    networks = {name for name, each in vars(keras.applications).items() if callable(each)}
    assert set(MODULES) == networks
    for name, module in MODULES.items():
        assert getattr(keras.applications, name).__module__ == f"keras.src.applications.{module}"
    assert {MODULES[name] for name in LIGHTEST} == set(MODULES.values())


def test_the_options_are_those_of_keras() -> None:
    for name, module in MODULES.items():
        arguments = inspect.signature(getattr(keras.applications, name)).parameters.keys() - OURS
        assert arguments == set(OPTIONS.get(module, ())), name


def test_every_digest_is_one_that_keras_checks() -> None:
    def source(module: str) -> str:
        spec = importlib.util.find_spec(f"keras.src.applications.{module}")
        assert spec
        assert spec.origin
        return Path(spec.origin).read_text()

    named = set()
    for name, module in MODULES.items():
        for alpha in ALPHAS.get(module, (1.0,)) if module == "mobilenet_v3" else (1.0,):
            for minimalistic in (False, True) if module == "mobilenet_v3" and alpha == 1.0 else (False,):
                file = published(name, {"alpha": alpha, "minimalistic": minimalistic}, (224, 224))
                text = source("resnet" if module == "resnet_v2" else module)
                assert (file.digest is None) == (module in ("mobilenet", "mobilenet_v2")), name
                assert file.digest is None or file.digest in text, name
                named.add(file.name)
    assert set(DIGESTS) <= named


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "options", "size", "name"),
    [
        ("MobileNet", {}, (128, 128), "mobilenet_1_0_128_tf_no_top.h5"),
        ("MobileNet", {"alpha": 0.25}, (96, 96), "mobilenet_2_5_224_tf_no_top.h5"),
        ("MobileNetV2", {"alpha": 1.4}, (96, 96), "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.4_96_no_top.h5"),
        ("MobileNetV2", {"alpha": 1}, (96, 128), "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"),
        ("MobileNetV3Large", {"alpha": 0.75}, (32, 32), "weights_mobilenet_v3_large_224_0.75_float_no_top_v2.h5"),
        (
            *("MobileNetV3Small", {"minimalistic": True}, (32, 32)),
            "weights_mobilenet_v3_small_minimalistic_224_1.0_float_no_top_v2.h5",
        ),
    ],
)
def test_the_file_of_a_variant_is_the_one_that_keras_asks_for(
    network: str, options: dict[str, Any], size: tuple[int, int], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = published(network, options, size)
    assert file.name == name
    assert asked_by_keras(network, size, monkeypatch, **options) == (file.url, file.digest)


def asked_by_keras(
    network: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[str, str | None]:
    """The address and the digest of the file that Keras would download."""

    class AskedError(Exception):
        pass

    def get_file(name: str, url: str, cache_subdir: str, file_hash: str | None = None) -> None:
        raise AskedError(url, file_hash)

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", get_file)
    with pytest.raises(AskedError) as asked:
        getattr(keras.applications, network)(include_top=False, weights="imagenet", input_shape=(*size, 3), **options)
    url, digest = asked.value.args
    return url, digest


@pytest.mark.parametrize("name", LIGHTEST if "LAYERFLOW_MODELS" in os.environ else QUICK)
@pytest.mark.slow
def test_with_published_weights_it_sees_raw_images_as_keras_own_does(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = LIGHTEST[name]
    with seeded(0):  # some weights enlarge what float32 rounds a thousand times as much as others
        ours = make_model(ModelConfig(name=f"applications:{name}"), 3, (size, size, 3))
    file = tmp_path / published(name, {}, (size, size)).name
    make = getattr(keras.applications, name)
    write_as_published(name, ours.backbone, file)
    for weight in ours.backbone.weights:
        weight.assign(np.zeros(weight.shape))
    asked = []

    def get_file(name: str, url: str, cache_subdir: str, file_hash: str | None = None) -> str:
        asked.append((url, file_hash))
        return str(file)

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", get_file)
    theirs = make(include_top=False, weights="imagenet", input_shape=(size, size, 3))
    told = published(name, {}, (size, size))
    assert asked == [(told.url, told.digest)]

    loaded = load_weights(ours, file, "imagenet")
    if MODULES[name] == "efficientnet":
        scale_as_imagenet_does(ours)
    assert (loaded.skipped, loaded.new_layers) == (0, ("logits",))
    assert loaded.parameters == theirs.count_params()
    images = various(size)
    features = np.asarray(theirs(preprocessed(name, images))).mean(axis=(1, 2))
    expected = features @ np.asarray(ours.head[-1].w) + np.asarray(ours.head[-1].b)
    # A hundredth of what the images differ by: float32 sums in another order, through as many as 200 layers.
    np.testing.assert_allclose(ours(images), expected, rtol=0, atol=1e-2 * np.ptp(expected, axis=0).max())

    graph = tf.function(lambda x: ours(x, training=False)).get_concrete_function(
        tf.TensorSpec((None, size, size, 3), tf.uint8)
    )
    operations = {node.op for node in graph.graph.as_graph_def().node}
    operations |= {node.op for each in graph.graph.as_graph_def().library.function for node in each.node_def}
    assert {op for op in operations if not computes(op)} <= {"Placeholder"}, "the export is verified"

    ours.save(tmp_path / "model.keras")
    before = digest_of(f"applications:{name}", tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(images), ours(images), rtol=1e-5, atol=1e-6)
    again.save(tmp_path / "model.keras")
    assert digest_of(f"applications:{name}", tmp_path / "model.keras") == before


def various(size: int) -> np.ndarray:
    """Eight images, each of another brightness and colour."""
    random = np.random.default_rng(1)
    brightest = random.integers(20, 256, (8, 1, 1, 3))
    return (random.random((8, size, size, 3)) * brightest).astype(np.uint8)


def write_as_published(name: str, network: keras.Model, file: Path) -> None:
    """Give a network weights that are drawn at random, and write them in the form in which Keras publishes them.

    The moving averages are those of images, as in a trained network: with those of a new one, a deep network answers
    nearly the same to all images.
    """
    random = np.random.default_rng(0)
    network.set_weights([each + 0.01 * abs(random.normal(size=each.shape)) for each in network.get_weights()])
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    network(preprocessed(name, various(network.input_shape[1])), training=True)
    with h5py.File(file, "w") as tree:
        legacy_h5_format.save_weights_to_hdf5_group(tree, network)


def preprocessed(name: str, images: np.ndarray) -> np.ndarray:
    """What the users of Keras do before they call the network."""
    return getattr(keras.applications, MODULES[name]).preprocess_input(images.astype("float32"))


def test_a_digest_of_a_file_of_ours_can_stand_in_for_the_published_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the other tests rely on: the table is looked at when the file is asked for."""
    name = published("VGG16", {}, (32, 32)).name
    monkeypatch.setitem(publishing.DIGESTS, name, hashlib.md5(b"").hexdigest())
    assert published("VGG16", {}, (32, 32)).digest == "d41d8cd98f00b204e9800998ecf8427e"
