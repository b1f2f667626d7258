"""A network of ``keras.applications`` as layerflow makes it."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from layerflow import artifacts
from layerflow.data.load import load
from layerflow.errors import ConfigError
from layerflow.evaluation.evaluate import evaluate
from layerflow.export import verification
from layerflow.export.saved_model import export
from layerflow.export.signatures import write_saved_model
from layerflow.export.verifier.graph import check_graph
from layerflow.models.application import Application
from layerflow.models.build import build, make_model
from layerflow.models.network_digest import digest_of
from layerflow.models.precision import in_precision
from layerflow.records import DatasetRef, Evaluation, ExportRef, ModelRef, TrainedRef
from layerflow.serving import Serving
from layerflow.settings.data import DataConfig
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training.train import train

NAME = "applications:MobileNetV3Small"
#: Its smallest form.
SMALL = {"alpha": 0.35, "minimalistic": True}


def small(shape: tuple[int, int, int] = (32, 32, 3), **settings: Any) -> Application:
    keras.utils.set_random_seed(7)
    return make_model(ModelConfig(name=NAME, options=SMALL, **settings), 5, shape)


def images(channels: int = 3, count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, channels), np.uint8)


def test_it_gives_one_float32_logit_a_class() -> None:
    logits = small()(images())
    assert logits.shape == (4, 5)
    assert logits.dtype == "float32"
    assert np.isfinite(logits).all()


@pytest.mark.slow
def test_grey_images_are_seen_as_three_equal_channels() -> None:
    grey, colour = small((32, 32, 1)), small()
    colour.set_weights(grey.get_weights())
    np.testing.assert_array_equal(grey(images(1)), colour(np.repeat(images(1), 3, axis=-1)))


@pytest.mark.slow
def test_a_loaded_network_has_its_backbone_and_its_head(tmp_path: Path) -> None:
    network = small(dropout=0.3)
    network.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert [type(layer).__name__ for layer in again.head] == ["GlobalAveragePooling2D", "Dropout", "Dense"]
    assert again.head[1].rate == 0.3
    parts = [*again.backbone.weights, *(weight for layer in again.head for weight in layer.weights)]
    assert {id(weight) for weight in parts} == {id(weight) for weight in again.weights}
    np.testing.assert_array_equal(again(images()), network(images()))


def test_a_frozen_backbone_stays_as_it_is_in_training() -> None:
    network = small()
    network.backbone.trainable = False
    assert [weight.path.rpartition("/")[2] for weight in network.trainable_weights] == ["w", "b"]
    before = network.backbone.get_weights()
    network(images(), training=True)
    for one, other in zip(before, network.backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_made_again_it_is_the_same_network(tmp_path: Path) -> None:
    digests = set()
    for _ in range(2):
        small().save(tmp_path / "model.keras")
        digests.add(digest_of(NAME, tmp_path / "model.keras"))
    small(dropout=0.3).save(tmp_path / "model.keras")
    assert len(digests) == 1
    assert digest_of(NAME, tmp_path / "model.keras") not in digests


@pytest.mark.slow
def test_its_export_is_accepted(tmp_path: Path, digits: DatasetRef) -> None:
    data = digits.model_copy(update={"image_shape": (32, 32, 3)})
    write_saved_model(small(), data, Serving(), tmp_path / "saved_model", with_pixels=True)
    assert "compute, load or save" in check_graph(tmp_path / "saved_model")


@pytest.mark.slow
def test_in_mixed_precision_it_computes_nearly_the_same() -> None:
    network = small()
    mixed = in_precision(network, "mixed_bfloat16", (32, 32, 3))
    assert {layer.compute_dtype for layer in mixed.backbone.layers if layer.weights} == {"bfloat16"}
    logits = mixed(images())
    assert logits.dtype == "float32"
    # bfloat16 has eight significant bits, and the network some fifty layers.
    np.testing.assert_allclose(logits, network(images()), atol=0.1)


@pytest.mark.slow
def test_mixed_precision_keeps_normalisation_and_the_state_of_keras_random_layers() -> None:
    network = make_model(ModelConfig(name="applications:EfficientNetB0"), 5, (32, 32, 3))
    (norm,) = [layer for layer in network.backbone.layers if isinstance(layer, keras.layers.Normalization)]
    norm.adapt_variance.assign([0.1, 0.2, 0.3])
    norm.finalize_state()
    mixed = in_precision(network, "mixed_bfloat16", (32, 32, 3))
    (same,) = [layer for layer in mixed.backbone.layers if isinstance(layer, keras.layers.Normalization)]
    np.testing.assert_allclose(np.ravel(same.variance), [0.1, 0.2, 0.3], rtol=1e-2)
    for one, other in zip(network.variables, mixed.variables, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "shape", "sentence"),
    [
        (NAME, (8, 8, 1), r"can't take images of shape \(8, 8, 1\): Input size must be at least 32x32"),
        ("applications:VGG16", (31, 32, 3), "Input size must be at least 32x32"),
        (NAME, (32, 32, 4), "must have 1 or 3 channels"),
    ],
)
def test_images_that_it_can_not_take_are_one_sentence(name: str, shape: tuple[int, int, int], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        make_model(ModelConfig(name=name), 5, shape)
    assert "\n" not in str(caught.value)


@pytest.mark.drill
@pytest.mark.process
def test_it_is_trained_evaluated_exported_and_verified(session_store: Path) -> None:
    """Whoever verifies is a process of its own, always."""
    config = ModelConfig(name=NAME, options=SMALL)
    some = DataConfig(image_size="32x32", splits={"train": "train[:15%]", "test": "train[90%:]"})
    data = artifacts.make("load_data", "digits-32", DatasetRef, lambda folder: load(some, folder))
    model = artifacts.make("build_model", "application", ModelRef, lambda folder: build(config, data, 0, folder))
    epochs = TrainingConfig(epochs=1)
    trained = artifacts.make(
        "train_model", "application", TrainedRef, lambda folder: train(epochs, model, data, folder)
    )
    scored = artifacts.make("evaluate_model", "application", Evaluation, lambda folder: evaluate(trained, data, folder))
    exported = artifacts.make("export_model", "application", ExportRef, lambda folder: export(trained, data, folder))
    assert verification.verify(exported, scored, data).test_accuracy == scored.accuracy
    assert trained.compiled == "graph"
