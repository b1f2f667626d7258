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


def exported(network: keras.Model, folder: Path, activation: Callable[[Any], Any] = tf.nn.softmax) -> Any:
    """The signature ``serving_default`` of a network, as it is loaded."""
    archive = keras.export.ExportArchive()
    archive.track(network)

    def answer(images: Any) -> dict[str, Any]:
        logits = network(images, training=False)
        return {"probabilities": activation(logits / 2), "class_id": tf.argmax(logits, -1)}

    archive.add_endpoint("serving_default", answer, [tf.TensorSpec((None, *IMAGE.shape), tf.uint8, name="images")])
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
