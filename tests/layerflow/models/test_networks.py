"""The networks, and that their saved files load where the training code is known."""

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from layerflow import artifacts
from layerflow.errors import ConfigError
from layerflow.evaluation.evaluate import evaluate
from layerflow.export import saved_model, verification
from layerflow.models.build import build, make_model
from layerflow.models.mlp import Mlp
from layerflow.records import DatasetRef, Evaluation, ExportRef, ModelRef, TrainedRef
from layerflow.settings.model import MODELS, ModelConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training import engine, fingerprint, session, train
from tests import forked
from tests.shared import GRAPH

#: A small one of each.
SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": (6, 3), "dropout": 0.2},
    "cnn": {"width": 4},
    "resnet": {"width": 4, "depth": 2},
    "vit": {"width": 8, "depth": 1, "heads": 2, "patch_size": 1},
}
every_network = pytest.mark.parametrize("name", list(MODELS))


def small(name: str, shape: tuple[int, int, int] = (8, 8, 1), classes: int = 5, **settings: Any) -> keras.Model:
    network = make_model(ModelConfig(name=name, **SMALL[name], **settings), classes, shape)
    return network


def images(shape: tuple[int, int, int] = (8, 8, 1), count: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


@every_network
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (7, 5, 3), (1, 1, 1)])
def test_any_image_shape_gives_one_logit_a_class(name: str, shape: tuple[int, int, int]) -> None:
    network = small(name, shape)
    logits = network(images(shape))
    assert logits.shape == (5, 5)
    assert logits.dtype == "float32"
    assert np.isfinite(logits).all()


@pytest.mark.slow
@every_network
def test_every_setting_is_heard(name: str) -> None:
    plain = small(name).count_params()
    for field, value in {"width": 12, "depth": 3, "hidden": (5,), "patch_size": 2}.items():
        if field in MODELS[name]:
            other = make_model(ModelConfig(name=name, **{**SMALL[name], field: value}), 5, (8, 8, 1))
            assert other.count_params() != plain, field
    x = images(count=100)  # that none of them is drawn another way has a chance of 2**-100 with flip, the likeliest
    for field, value in {"shift": 3, "flip": True, "dropout": 0.5}.items():
        if field in MODELS[name]:
            network = make_model(
                ModelConfig(
                    name=name,
                    **{**SMALL[name], "dropout": 0.0, field: value}
                    if "dropout" in MODELS[name]
                    else {**SMALL[name], field: value},
                ),
                5,
                (8, 8, 1),
            )
            one, other = (np.asarray(network(x, training=True)) for _ in range(2))
            assert (one != other).any(), f"{field} draws in training"
            np.testing.assert_array_equal(network(x), network(x))


@every_network
@pytest.mark.process
def test_a_saved_network_answers_the_same_in_a_fresh_process(name: str, tmp_path: Path) -> None:
    """In a process of its own, which knows only what was saved."""
    network = small(name, shift=1, flip=True)
    network(images(), training=True)
    network.save(tmp_path / "model.keras")
    np.savez(tmp_path / "golden.npz", images=images(), logits=network(images()))
    done = forked.run(
        [sys.executable, forked.PROGRAMS / "loads_a_network.py", name, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet", pytest.param("vit", marks=pytest.mark.drill)])
@pytest.mark.process
def test_each_is_trained_evaluated_exported_and_verified_and_learns(name: str, digits: DatasetRef) -> None:
    """Whoever verifies is a process of its own, always."""
    settings = {
        "mlp": {},
        "cnn": {"width": 8},
        "resnet": {"width": 8},
        "vit": {"width": 32, "depth": 1, "patch_size": 2},
    }
    config, key = ModelConfig(name=name, **settings[name]), f"learns-{name}"
    epochs = TrainingConfig(epochs=5, learning_rate=3e-3)
    model = artifacts.make("build_model", key, ModelRef, lambda folder: build(config, digits, 0, folder))
    trained = artifacts.make("train_model", key, TrainedRef, lambda folder: train.train(epochs, model, digits, folder))
    scored = artifacts.make("evaluate_model", key, Evaluation, lambda folder: evaluate(trained, digits, folder))
    exported = artifacts.make(
        "export_model", key, ExportRef, lambda folder: saved_model.export(trained, digits, folder)
    )
    assert verification.verify(exported, scored, digits).test_accuracy == scored.accuracy
    assert scored.accuracy > 0.9
    assert trained.compiled == ("graph" if name in ("cnn", "resnet") else "xla")


@pytest.mark.parametrize("name", ["cnn", pytest.param("vit", marks=pytest.mark.drill)])
@pytest.mark.slow
def test_training_resumed_in_mid_epoch_ends_with_the_same_bits(
    name: str, digits: DatasetRef, session_store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lighter = {"patch_size": 2} if name == "vit" else {}
    config = ModelConfig(name=name, **{**SMALL[name], **lighter, "shift": 1, "flip": True})
    model = artifacts.make("build_model", f"resumed-{name}", ModelRef, lambda folder: build(config, digits, 0, folder))
    monkeypatch.setattr(session, "_SAVING_SHARE", 1e6)
    weights = []
    for seconds, dies in ((60.0, False), (61.0, True)):  # two trainings that differ in nothing that matters
        monkeypatch.setattr(fingerprint, "_NOT_THE_TRAINING", {"epochs", "patience"})
        settings = TrainingConfig(epochs=2, seed=5, checkpoint_seconds=seconds, **GRAPH)
        original, calls = engine.Engine.run_chunk, 0

        def interrupted(self: engine.Engine, epoch: int, original: Any = original) -> bool:
            nonlocal calls
            self._chunk, calls = 7, calls + 1
            if calls == 9:
                raise KeyboardInterrupt
            return original(self, epoch)

        if dies:
            with monkeypatch.context() as patch:
                patch.setattr(engine.Engine, "run_chunk", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    train.train(settings, model, digits, tmp_path)
        train.train(settings, model, digits, tmp_path)
        weights.append(keras.models.load_model(tmp_path / "model.keras").get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "precision"), [("cnn", "mixed_bfloat16"), pytest.param("vit", "mixed_float16", marks=pytest.mark.drill)]
)
@pytest.mark.slow
def test_networks_train_in_mixed_precision(name: str, precision: str, digits: DatasetRef, tmp_path: Path) -> None:
    config = ModelConfig(name=name, **SMALL[name])
    model = artifacts.make("build_model", f"mixed-{name}", ModelRef, lambda folder: build(config, digits, 0, folder))
    made = train.train(TrainingConfig(epochs=1, precision=precision, **GRAPH), model, digits, tmp_path)
    assert np.isfinite(made.history[0].loss)
    shipped = keras.models.load_model(tmp_path / "model.keras")
    assert {weight.dtype for weight in shipped.weights} <= {"float32", "int64"}
    assert shipped.compute_dtype == "float32"


def test_the_tutorials_network_has_its_number_of_parameters() -> None:
    network = Mlp(hidden=(64,), classes=10)
    network.build((None, 28, 28, 1))
    assert network.count_params() == 784 * 64 + 64 + 64 * 10 + 10


def test_pixels_are_scaled_to_one() -> None:
    network = Mlp(hidden=(), classes=2)
    network.build((None, 1, 1, 1))
    network.chain[-1].w.assign([[1.0, -1.0]])
    np.testing.assert_allclose(network(np.full((1, 1, 1, 1), 255, np.uint8)), [[1.0, -1.0]])


def test_networks_are_made_of_our_layers_alone() -> None:
    for name in MODELS:
        network = small(name, shift=1, flip=True)
        layers = list(network._flatten_layers(include_self=False))
        assert {type(layer).__module__.partition(".")[0] for layer in layers} == {"layers"}, name


def test_images_that_do_not_fit_are_refused(digits: DatasetRef, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one fixed shape"):
        Mlp(hidden=(), classes=2).build((None, None, 8, 1))
    with pytest.raises(ConfigError, match=r"vit can't take images of shape \(8, 8, 1\): `patch_size` must divide"):
        build(ModelConfig(name="vit", patch_size=3), digits, 0, tmp_path)


def test_gradients_reach_every_trainable_weight() -> None:
    for name in MODELS:
        network = small(name)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network(images(), training=True) ** 2)
        gradients = tape.gradient(loss, [weight.value for weight in network.trainable_weights])
        assert all(gradient is not None for gradient in gradients), name
