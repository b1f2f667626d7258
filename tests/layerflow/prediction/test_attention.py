"""Where a network looked, against what can be worked out by hand for networks with one dense layer at the end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from layerflow.prediction.attention import Attention

IMAGE = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)


def exported(
    network: keras.Model,
    folder: Path,
    activation: Callable[[Any], Any] = tf.nn.softmax,
    shape: tuple[int, int, int] = IMAGE.shape,
) -> Any:
    """The signature ``serving_default`` of a network, as it is loaded."""
    archive = keras.export.ExportArchive()
    archive.track(network)

    def answer(images: Any) -> dict[str, Any]:
        logits = network(images, training=False)
        return {"probabilities": activation(logits / 2), "class_id": tf.argmax(logits, -1)}

    archive.add_endpoint("serving_default", answer, [tf.TensorSpec((None, *shape), tf.uint8, name="images")])
    archive.write_out(str(folder), verbose=False)
    return tf.saved_model.load(str(folder))


def network_of(*steps: Any) -> keras.Model:
    return keras.Sequential([keras.Input(IMAGE.shape, dtype="uint8"), layers.Rescaling(1 / 255), *steps])


def normalized(found: np.ndarray) -> np.ndarray:
    positive = np.maximum(found, 0)
    return positive / (positive.max() or 1)


def test_after_global_pooling_it_is_grad_cam(tmp_path: Path) -> None:
    """There the map is the weighted sum of the features, as Zhou et al. (2016) show."""
    network = network_of(
        layers.Conv2D(5, 3, activation="relu"),
        layers.BatchNormalization(),
        layers.Conv2D(7, 3, strides=2, activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(4),
    )
    model = exported(network, tmp_path)
    features = keras.Model(network.inputs[0], network.layers[-3].output)(IMAGE[None])[0]
    expected = [normalized(np.asarray(features) @ weights) for weights in network.layers[-1].kernel.numpy().T]
    attention = Attention(model.signatures["serving_default"])
    found = [attention.map(IMAGE, class_id) for class_id in range(4)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.any(found)


def test_after_flattening_each_place_has_its_own_weight(tmp_path: Path) -> None:
    """There Grad-CAM, which averages the gradient over the places, would show other ones."""
    network = network_of(layers.Conv2D(5, 3, activation="relu"), layers.Flatten(), layers.Dense(4))
    model = exported(network, tmp_path)
    features = np.asarray(keras.Model(network.inputs[0], network.layers[-3].output)(IMAGE[None])[0])
    weights = network.layers[-1].kernel.numpy()[:, 2].reshape(features.shape)
    found = Attention(model.signatures["serving_default"]).map(IMAGE, 2)
    np.testing.assert_allclose(found, normalized((features * weights).sum(-1)), rtol=1e-4, atol=1e-5)


def test_without_a_convolution_it_is_what_each_pixel_adds(tmp_path: Path) -> None:
    network = network_of(layers.Flatten(), layers.Dense(4))
    model = exported(network, tmp_path)
    weights = network.layers[-1].kernel.numpy()[:, 1].reshape(IMAGE.shape)
    found = Attention(model.signatures["serving_default"]).map(IMAGE, 1)
    np.testing.assert_allclose(found, normalized((IMAGE / 255 * weights).sum(-1)), rtol=1e-4, atol=1e-5)


def test_squeeze_and_excitation_is_passed_over(tmp_path: Path) -> None:
    """Its map of one place is no map."""
    given = keras.Input(IMAGE.shape, dtype="uint8")
    x = layers.Conv2D(6, 3, activation="relu")(layers.Rescaling(1 / 255)(given))
    scale = layers.Conv2D(6, 1, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    answer = layers.Dense(4)(layers.GlobalAveragePooling2D()(layers.Multiply()([x, scale])))
    model = exported(keras.Model(given, answer), tmp_path)
    assert Attention(model.signatures["serving_default"]).map(IMAGE, 0).shape == (6, 4)


@pytest.mark.parametrize("group", [layers.GroupNormalization(2), layers.GroupNormalization(-1)])
def test_group_normalization_keeps_the_places(group: Any, tmp_path: Path) -> None:
    """It reshapes to groups, and back."""
    body = [layers.Conv2D(4, 3, strides=2), group, layers.Activation("silu"), layers.Conv2D(6, 2), layers.ReLU()]
    model = exported(network_of(*body, layers.GlobalAveragePooling2D(), layers.Dense(4)), tmp_path)
    assert Attention(model.signatures["serving_default"]).map(IMAGE, 0).shape == (2, 1)


def test_neither_a_border_nor_a_part_of_the_image_is_taken_for_its_places(tmp_path: Path) -> None:
    padded = network_of(layers.Conv2D(4, 3), layers.ReLU(), layers.ZeroPadding2D(2), layers.Flatten(), layers.Dense(4))
    cropped = network_of(layers.CenterCrop(4, 4), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(4))
    for name, network, shape in (("padded", padded, (6, 4)), ("cropped", cropped, (8, 6))):
        model = exported(network, tmp_path / name)
        assert Attention(model.signatures["serving_default"]).map(IMAGE, 0).shape == shape


@pytest.mark.parametrize("name", ["EfficientNetB0", "MobileNetV3Small"])
@pytest.mark.slow
def test_networks_with_gradients_of_their_own_show_where_they_look(name: str, tmp_path: Path) -> None:
    shape = (32, 32, 3)
    body = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=shape, pooling="avg")
    given = keras.Input(shape, dtype="uint8")
    model = exported(keras.Model(given, layers.Dense(4)(body(given))), tmp_path, shape=shape)
    found = Attention(model.signatures["serving_default"]).map(np.full(shape, 9, np.uint8), 0)
    assert found.ndim == 2
    assert np.isfinite(found).all()


def test_a_network_with_a_loop_is_refused(tmp_path: Path) -> None:
    network = network_of(layers.Conv2D(4, 3), layers.Reshape((6, 16)), layers.LSTM(5, unroll=False), layers.Dense(4))
    model = exported(network, tmp_path)
    with pytest.raises(ValueError, match="no gradient goes through its graph"):
        Attention(model.signatures["serving_default"])


def test_where_nothing_speaks_for_a_class_all_is_zero(tmp_path: Path) -> None:
    network = network_of(layers.Flatten(), layers.Dense(4, kernel_initializer="zeros"))
    model = exported(network, tmp_path)
    assert not Attention(model.signatures["serving_default"]).map(IMAGE, 1).any()


def test_a_network_without_a_map_is_refused(tmp_path: Path) -> None:
    given = keras.Input(IMAGE.shape, dtype="uint8")
    network = keras.Model(given, layers.Dense(4)(layers.Flatten()(given)))
    model = exported(network, tmp_path / "flat")
    with pytest.raises(ValueError, match="its graph has no map of features"):
        Attention(model.signatures["serving_default"])
    model = exported(network, tmp_path / "sigmoid", tf.nn.sigmoid)
    with pytest.raises(ValueError, match="its probabilities do not come from a softmax"):
        Attention(model.signatures["serving_default"])
