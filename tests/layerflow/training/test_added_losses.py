"""What a network adds to its loss, with regularizers and `add_loss`: as Keras' `fit` takes it."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from layerflow import artifacts, store
from layerflow.data.arrays import images_and_labels
from layerflow.models.build import build
from layerflow.models.precision import in_precision
from layerflow.records import DatasetRef, ModelRef
from layerflow.settings.model import ModelConfig
from layerflow.settings.training import TrainingConfig
from layerflow.training import engine as engine_module
from layerflow.training import train as training
from layerflow.training.checkpoint import Checkpoint
from layerflow.training.engine import Engine
from layerflow.training.optimizers import make_optimizer

PROGRAMS = Path(__file__).resolve().parents[2] / "programs"
sys.path.append(str(PROGRAMS))  # for good: what is saved here must be loadable in other tests' processes too

from penalised import Penalised  # noqa: E402

from tests import forked  # noqa: E402
from tests.shared import GRAPH  # noqa: E402

pytestmark = pytest.mark.slow

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Oracle(Penalised):
    """For `fit`, which can't add float16 to float32 by itself."""

    def _aggregate_additional_loss(self, loss: Any) -> Any:
        return super()._aggregate_additional_loss(keras.ops.cast(loss, "float32"))


def small_network(kind: type[Penalised], precision: str) -> Penalised:
    keras.utils.set_random_seed(3)
    network = kind(4)
    network.build((None, 6, 6, 1))
    return in_precision(network, precision, (6, 6, 1))


@pytest.mark.parametrize("xla", [True, False])
@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_training_equals_fit_with_every_kind_of_added_loss(xla: bool, precision: str) -> None:
    random = np.random.default_rng(3)
    images, labels = random.integers(0, 256, (37, 6, 6, 1), np.uint8), random.integers(0, 4, 37, np.int32)
    network, oracle = (small_network(kind, precision) for kind in (Penalised, Oracle))
    optimizer = make_optimizer(TrainingConfig(precision=precision, optimizer="sgd", learning_rate=0.05), 5)
    optimizer.build(network.trainable_variables)
    engine = Engine(network, optimizer, images, labels, batch_size=8, seed=5, xla=xla)
    theirs = optimizer.from_config(optimizer.get_config())
    oracle.compile(theirs, CROSS_ENTROPY, jit_compile=xla)
    for epoch in (1, 2, 3):
        engine.start_epoch()
        while not engine.run_chunk(epoch):
            pass
        order = engine.windows.order(epoch)
        fitted = oracle.fit(images[order], labels[order], 8, shuffle=False, verbose=0)
        # Means summed in another order, in float32 in both precisions: measured 1.4e-7 at most.
        assert engine.loss == pytest.approx(fitted.history["loss"][0], rel=7e-7)
    alone = float(CROSS_ENTROPY(labels, network(images)))
    assert engine.loss > 1.1 * alone, "the additions are a part worth noticing"
    for ours, reference in zip(network.get_weights(), oracle.get_weights(), strict=True):
        # The same operations in both, and weights in float32. Five times what was measured after fifteen steps: 3e-8,
        # the last bit of the largest weights.
        np.testing.assert_allclose(ours, reference, rtol=0, atol=1.5e-7)


@pytest.mark.process
def test_two_replicas_add_it_once_and_end_as_fit_on_one() -> None:
    """In a process of its own: the number of devices is fixed before TensorFlow's first operation."""
    command = [sys.executable, str(PROGRAMS / "penalised_replicas.py")]
    environment = {**os.environ, "PYTHONPATH": str(PROGRAMS.parents[1])}
    done = forked.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


@pytest.fixture
def penalised(digits: DatasetRef) -> ModelRef:
    config = ModelConfig(name="penalised:Penalised", options={"rate": 0.3})
    return artifacts.make("build_model", "penalised", ModelRef, lambda folder: build(config, digits, 0, folder))


def train(model: ModelRef, data: DatasetRef, folder: Path, **settings: object) -> list[object]:
    """What was trained: all that must be the same bits."""
    folder.mkdir(exist_ok=True)
    made = training.train(TrainingConfig(**GRAPH | settings), model, data, folder)
    weights = [weight.tobytes() for weight in keras.models.load_model(folder / "model.keras").get_weights()]
    return [*weights, made.steps, *(epoch.model_dump(exclude={"seconds"}) for epoch in made.history)]


def test_the_figures_are_those_of_fit_and_evaluate(penalised: ModelRef, digits: DatasetRef, tmp_path: Path) -> None:
    last = train(penalised, digits, tmp_path, epochs=2, patience=9, seed=3)[-1]
    network = keras.models.load_model(tmp_path / "model.keras")
    network.compile(loss=CROSS_ENTROPY, metrics=["accuracy"])
    images, labels = (np.array(each) for each in images_and_labels(digits, "validation"))
    expected = network.evaluate(images, labels, verbose=0, return_dict=True)
    # Float32 means over 32 images at a time, against sums over all.
    assert last["val_loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert last["val_accuracy"] == pytest.approx(expected["accuracy"], rel=1e-6)


@pytest.mark.parametrize("compiled", [pytest.param("xla", marks=pytest.mark.drill), "graph"])
def test_interrupted_and_resumed_it_ends_with_the_same_bits(
    penalised: ModelRef, digits: DatasetRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: str
) -> None:
    settings = {"epochs": 3, "checkpoint_seconds": 1e-6, "compile": compiled}
    monkeypatch.setattr(engine_module, "CHUNK_SECONDS", 0.0)  # chunks of one step after the first
    shutil.rmtree(store.root() / "checkpoints", ignore_errors=True)
    whole = train(penalised, digits, tmp_path / "whole", **settings)
    shutil.rmtree(store.root() / "checkpoints")
    original, saves = Checkpoint.save, 0

    def die(self: Checkpoint, arrays: dict, state: dict) -> None:
        nonlocal saves
        saves += 1
        original(self, arrays, state)
        if saves == 20:
            raise SystemExit

    monkeypatch.setattr(Checkpoint, "save", die)
    with pytest.raises(SystemExit):
        train(penalised, digits, tmp_path / "resumed", **settings)
    assert train(penalised, digits, tmp_path / "resumed", **settings) == whole
